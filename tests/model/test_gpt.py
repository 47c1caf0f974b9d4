"""The model against `litgpt.GPT`: logits, loss, every gradient, state dicts, KV cache, initialisation."""

import math

import litgpt
import pytest
import torch
import torch.nn.functional as F
from litgpt import Config
from litgpt.generate.base import generate
from litgpt.utils import chunked_cross_entropy

from litmoe.errors import LitMoEError
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.moe.balance import switch_loss
from litmoe.model.moe.experts import unstack
from litmoe.model.objective import Objective

BASE = {
    "block_size": 64,
    "n_layer": 3,
    "n_embd": 32,
    "n_head": 4,
    "vocab_size": 61,
    "padded_vocab_size": 64,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
    "intermediate_size": 40,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 6,
    "n_expert_per_token": 2,
}
DEEPSEEK = {
    "n_expert_groups": 3,
    "n_topk_groups": 2,
    "n_topk_scores_per_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "moe_intermediate_size": 24,
    "n_shared_expert": 2,
    "first_k_dense_replace": 1,
}
DENSE = {"n_expert": 0, "n_expert_per_token": 0}
LATENT = {
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
VARIANTS = {
    "mixtral": {"n_query_groups": 2},
    "deepseek": DEEPSEEK,
    "deepseek with latent attention": DEEPSEEK | {"latent_attention": LATENT, "rope_interleave": True},
    "qwen": {"norm_qk": True, "moe_intermediate_size": 24, "head_size": 16, "n_query_groups": 1},
    "sliding window, local and global rope": {
        "sliding_window_size": 8,
        "sliding_window_indices": [1, 0, 1],
        "rope_local_base_freq": 100.0,
        "rope_indices": [1, 0, 1],
    },
    "post norms, softcaps, scaled embeddings": {
        "post_attention_norm": True,
        "post_mlp_norm": True,
        "final_logit_softcapping": 3.0,
        "attention_logit_softcapping": 5.0,
        "scale_embeddings": True,
    },
    "parallel": {"parallel_residual": True, "rotary_percentage": 0.5},
    "parallel, one norm": {"parallel_residual": True, "shared_attention_norm": True},
    "no pre-norms": {"norm_1": False, "norm_2": False, "post_attention_norm": True, "post_mlp_norm": True},
    "dense llama": DENSE | {"mlp_class_name": "LLaMAMLP", "attn_bias": True},
    "dense gemma": DENSE | {"mlp_class_name": "GemmaMLP", "name": "Gemma"},
    "dense pythia": DENSE
    | {
        "mlp_class_name": "GptNeoxMLP",
        "norm_class_name": "LayerNorm",
        "bias": True,
        "parallel_residual": True,
        "lm_head_bias": True,
    },
}
all_variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


def pair(**changes) -> tuple[GPT, litgpt.GPT]:
    """Our model and LitGPT's, with the same weights."""
    torch.manual_seed(0)
    config = Config(**BASE | changes)
    ours, theirs = GPT(config), litgpt.GPT(config)
    initialize(ours, seed=1)
    for name, buffer in ours.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(std=0.1)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def batch(B: int = 2, T: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 61, (B, T + 1), generator=torch.Generator().manual_seed(2))
    return tokens[:, :-1], tokens[:, 1:]


def litgpt_gradients(model: GPT) -> dict[str, torch.Tensor]:
    """Gradients by LitGPT's names."""
    gradients = {}
    for name, parameter in model.named_parameters():
        if name.endswith("w13_EID"):
            prefix = name.removesuffix("w13_EID")
            gradients |= unstack(parameter.grad, model.get_parameter(f"{prefix}w2_EDI").grad, prefix)
        elif not name.endswith("w2_EDI"):
            gradients[name] = parameter.grad
    return gradients


@all_variants
def test_logits_loss_and_every_gradient_are_litgpts(changes):
    ours, theirs = pair(**changes)
    idx_BT, targets_BT = batch()
    logits = theirs(idx_BT)
    loss = chunked_cross_entropy(logits, targets_BT)
    loss.backward()
    torch.testing.assert_close(ours(idx_BT), logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())
    losses = Objective(ours, switch_coefficient=0, z_coefficient=0)(idx_BT, targets_BT)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(loss.item(), rel=1e-6)
    assert losses.cross_entropy.item() == losses.total.item()
    gradients = litgpt_gradients(ours)
    for name, parameter in theirs.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert (gradients.pop(name) - expected).norm() <= 1e-5 * expected.norm(), name
    assert not gradients


@all_variants
def test_state_dicts_are_litgpts_both_ways(changes):
    ours, theirs = pair(**changes)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    again = GPT(ours.config)
    again.load_state_dict(theirs.state_dict(), strict=True)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in ours.state_dict().items())


# not with softcapped attention: there LitGPT adds the cache's boolean mask to the scores, in its own model too
@pytest.mark.parametrize(
    "name", ["mixtral", "deepseek with latent attention", "qwen", "parallel", "dense llama"]
)
def test_decoding_with_the_kv_cache_is_the_full_forward(name):
    ours, theirs = pair(**VARIANTS[name])
    idx_BT, _ = batch(T=12)
    full = ours(idx_BT)
    for model in (ours, theirs):
        model.max_seq_length = 16
        model.set_kv_cache(batch_size=2)
    with torch.no_grad():
        pieces = [ours(idx_BT[:, :5], torch.arange(5), input_pos_maxp1=5)]
        pieces += [ours(idx_BT[:, t : t + 1], torch.tensor([t])) for t in range(5, 11)]
        pieces += [
            ours(idx_BT[:, 11:], torch.tensor([[11], [11]]), input_pos_maxp1=12)
        ]  # positions per sequence
        expected = theirs(idx_BT[:, :5], torch.arange(5), input_pos_maxp1=5)
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pieces[0], expected, rtol=1e-4, atol=1e-5)
    ours.clear_kv_cache()
    with pytest.raises(TypeError, match="set_kv_cache"):
        ours(idx_BT[:, :1], torch.tensor([0]))


def test_litgpt_generates_with_our_model():
    ours, theirs = pair(n_query_groups=2)
    prompt = batch()[0][0, :7]
    texts = []
    for model in (ours, theirs):
        model.eval()
        model.set_kv_cache(batch_size=1)
        texts.append(generate(model, prompt, max_returned_tokens=30, temperature=0.0, include_prompt=True))
    assert texts[0].shape == (30,) and torch.equal(*texts)


def test_lm_head_by_chunks():
    ours, theirs = pair()
    idx_BT, _ = batch()
    chunks, expected = ours(idx_BT, lm_head_chunk_size=10), theirs(idx_BT, lm_head_chunk_size=10)
    assert [chunk.shape for chunk in chunks] == [chunk.shape for chunk in expected]
    torch.testing.assert_close(torch.cat(chunks, dim=1), ours(idx_BT))


def test_wrong_calls_are_refused():
    ours, _ = pair()
    with pytest.raises(ValueError, match="65 tokens are more than max_seq_length = 64"):
        ours(torch.zeros(1, 65, dtype=torch.int64))
    ours.set_kv_cache(batch_size=1)
    with pytest.raises(ValueError, match="input_pos"):
        ours(torch.zeros(1, 3, dtype=torch.int64), torch.arange(4))
    with pytest.raises(LitMoEError, match="shared_attention_norm"):
        GPT(Config(**BASE | {"shared_attention_norm": True}))


def test_bf16_autocast_trains_near_fp32():
    ours, _ = pair()
    objective = Objective(ours)
    gradients = []
    for enabled in (False, True):
        ours.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = objective(*batch())
        losses.total.backward()
        gradients.append((losses.total.detach(), torch.cat([p.grad.flatten() for p in ours.parameters()])))
    (exact_loss, exact), (loss, rounded) = gradients
    assert loss.item() == pytest.approx(exact_loss.item(), rel=2e-3)
    assert (rounded - exact).norm() < 0.1 * exact.norm()


class TestObjective:
    def test_total_is_the_weighted_sum_and_statistics_are_those_of_the_layers(self):
        ours, _ = pair(**DEEPSEEK)
        idx_BT, targets_BT = batch()
        load_LE = torch.randint(1, 50, (2, 6))
        losses = Objective(ours, switch_coefficient=0.3, z_coefficient=0.2)(idx_BT, targets_BT, load_LE)
        _, routings = ours.hidden(idx_BT)
        assert len(routings) == 2  # the first layer is dense
        switch = sum(switch_loss(r.p_E, load) for r, load in zip(routings, load_LE, strict=True)) / 2
        z = sum(r.z for r in routings) / 2
        cross_entropy = F.cross_entropy(ours(idx_BT).flatten(0, 1), targets_BT.flatten())
        for value, expected in (
            (losses.switch, switch),
            (losses.z, z),
            (losses.cross_entropy, cross_entropy),
            (losses.total, cross_entropy + 0.3 * switch + 0.2 * z),
        ):
            torch.testing.assert_close(value, expected.detach(), check_stride=False)
        assert losses.counts_LE.sum(1).tolist() == [2 * 24 * 2] * 2
        torch.testing.assert_close(losses.p_LE.sum(1), torch.ones(2))
        assert (losses.entropy_L <= math.log(6)).all()
        assert [name for name, value in losses._asdict().items() if value.requires_grad] == ["total"]

    def test_loss_does_not_depend_on_the_cut_into_micro_batches(self):
        ours, _ = pair()
        objective = Objective(ours.double(), switch_coefficient=1.0, z_coefficient=1.0)
        idx_BT, targets_BT = batch(B=4)
        load_LE = torch.randint(1, 50, (3, 6))
        results = []
        for size in (4, 2, 1):
            ours.zero_grad()
            total, counts_LE = 0.0, 0
            for idx, targets in zip(idx_BT.split(size), targets_BT.split(size), strict=True):
                losses = objective(idx, targets, load_LE)
                (losses.total * size / 4).backward()
                total += losses.total.item() * size / 4
                counts_LE = counts_LE + losses.counts_LE
            results.append((total, counts_LE, [p.grad.clone() for p in ours.parameters()]))
        for total, counts_LE, gradients in results[1:]:
            assert total == pytest.approx(results[0][0], rel=1e-7)
            assert torch.equal(counts_LE, results[0][1])
            for gradient, expected in zip(gradients, results[0][2], strict=True):
                assert (gradient - expected).norm() < 1e-6 * expected.norm()  # LitGPT's norms work in fp32

    def test_balance_losses_reach_the_router(self):
        ours, _ = pair()
        gate = ours.transformer.h[0].mlp.gate.weight
        gradients = []
        for coefficients in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
            ours.zero_grad()
            load_LE = torch.tensor([[90, 2, 2, 2, 2, 2]] * 3)
            Objective(ours, *coefficients)(*batch(), load_LE).total.backward()
            gradients.append(gate.grad.clone())
        assert not torch.allclose(gradients[0], gradients[1])
        assert not torch.allclose(gradients[0], gradients[2])

    def test_a_dense_model_has_no_layers_to_balance(self):
        ours, _ = pair(**VARIANTS["dense llama"])
        losses = Objective(ours)(*batch())
        assert losses.counts_LE.shape == losses.p_LE.shape == (0, 0)
        assert losses.entropy_L.shape == (0,)
        assert losses.counts_LE.dtype == torch.int64
        assert losses.switch == losses.z == 0
        assert losses.total.item() == losses.cross_entropy.item()

    def test_every_parameter_gets_a_gradient_from_a_single_token(self):
        ours, _ = pair(**DEEPSEEK)
        Objective(ours)(*batch(B=1, T=1)).total.backward()
        assert all(p.grad is not None for p in ours.parameters())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_recomputing_changes_no_bit(self, dtype):
        """Loss, gradients and the experts' counts, which a second forward must not double."""
        ours, _ = pair(**DEEPSEEK)
        ours.to(dtype)
        results = []
        for what in ("none", "experts", "blocks"):
            ours.set_recompute(what)
            ours.zero_grad()
            losses = Objective(ours)(*batch())
            losses.total.backward()
            results.append([*losses, *(p.grad for p in ours.parameters())])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))

    def test_recomputing_keeps_less(self):
        """Bytes that autograd keeps: all but the experts' pre-activations, or little but the blocks' inputs."""
        ours, _ = pair(intermediate_size=256)
        kept = {}
        for what in ("none", "experts", "blocks"):
            ours.set_recompute(what)
            parameters = {parameter.untyped_storage().data_ptr() for parameter in ours.parameters()}
            saved: dict[int, int] = {}

            def note(tensor, parameters=parameters, saved=saved):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in parameters:
                    saved[storage.data_ptr()] = storage.nbytes()
                return tensor

            idx_BT = batch()[0]
            with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
                hidden_BTD, _ = ours.hidden(idx_BT)
            del hidden_BTD
            kept[what] = sum(saved.values())
        T, config = idx_BT.numel(), ours.config
        preactivations = 4 * T * config.n_expert_per_token * 2 * 256 * config.n_layer
        assert kept["none"] - kept["experts"] == preactivations
        assert kept["blocks"] < 0.1 * kept["none"]


class TestInitialize:
    def test_distributions_are_litgpts(self):
        config = Config(**BASE | {"n_embd": 128, "intermediate_size": 256, "n_layer": 2})
        model = GPT(config)
        initialize(model, seed=0)
        std, std_out = math.sqrt(2 / 5 / 128), 1 / math.sqrt(128) / 2
        for name, value in model.state_dict().items():
            if value.dim() == 1:
                assert (value == 1).all(), name
            else:
                expected = std_out if name.endswith("proj.weight") else std
                assert value.std().item() == pytest.approx(expected, rel=5 / math.sqrt(value.numel())), name
                assert abs(value.mean().item()) < 5 * expected / math.sqrt(value.numel()), name

    def test_seed_alone_decides(self):
        models = [GPT(Config(**BASE | DEEPSEEK)) for _ in range(3)]
        for model, seed in zip(models, (7, 7, 8), strict=True):
            torch.rand(seed)  # the global generator does not matter
            initialize(model, seed)
        first, again, other = (torch.cat([v.flatten() for v in m.state_dict().values()]) for m in models)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_a_bf16_model_gets_the_same_draws_rounded(self):
        exact, rounded = GPT(Config(**BASE)), GPT(Config(**BASE)).bfloat16()
        initialize(exact, 3)
        initialize(rounded, 3)
        for fine, coarse in zip(exact.parameters(), rounded.parameters(), strict=True):
            assert torch.equal(fine.bfloat16(), coarse)

    def test_a_model_from_the_meta_device_is_complete(self):
        config = Config(**BASE | DEEPSEEK)
        with torch.device("meta"):
            model = GPT(config)
        model.to_empty(device="cpu")
        initialize(model, 3)
        expected = GPT(config)
        initialize(expected, 3)
        idx_BT, _ = batch()
        assert torch.equal(model(idx_BT), expected(idx_BT))

    def test_biases_and_correction_biases_are_zero(self):
        for changes in (DEEPSEEK, VARIANTS["dense pythia"]):
            model = GPT(Config(**BASE | changes))
            initialize(model, 0)
            state = model.state_dict()
            assert all((value == 0).all() for name, value in state.items() if name.endswith("bias"))


def test_a_tiny_model_learns():
    ours, _ = pair()
    objective, optimizer = Objective(ours), torch.optim.AdamW(ours.parameters(), lr=1e-2)
    load_LE, first = None, None
    for _ in range(40):
        losses = objective(*batch(), load_LE)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        load_LE = losses.counts_LE
        first = first or losses.cross_entropy.item()
    assert losses.cross_entropy.item() < 0.2 * first

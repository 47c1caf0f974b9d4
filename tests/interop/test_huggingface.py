"""Export to Transformers and import from it, judged by Transformers itself."""

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.hub import serving
from support.small import MODEL as SMALL

from litmoe import checkpoint
from litmoe.cli.exchange import EXPORT, IMPORT
from litmoe.cli.main import run
from litmoe.config import EvaluateConfig, GenerateConfig, TrainConfig
from litmoe.errors import LitMoEError
from litmoe.inference.evaluate import evaluate
from litmoe.inference.generate import generate
from litmoe.inference.loading import load_checkpoint
from litmoe.interop.hub_files import check_shards, write_shards
from litmoe.interop.huggingface import export_huggingface, import_huggingface
from litmoe.interop.mixtral import balance_settings
from litmoe.interop.model_card import model_card
from litmoe.interop.training_facts import TrainingFacts, training_facts
from litmoe.model.config import load_model_config
from litmoe.model.moe.balance import switch_loss
from litmoe.training.loop import train

MakeCheckpoint = Callable[..., Path]

transformers = pytest.importorskip("transformers", reason="Transformers judges these tests; not installed")


def same_weights(a: Path, b: Path) -> bool:
    first, second = checkpoint.load_model(a), checkpoint.load_model(b)
    return list(first) == list(second) and all(
        torch.equal(first[n], second[n]) and first[n].dtype == second[n].dtype for n in first
    )


def load_theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "hub"
    lines: list[str] = []
    difference = export_huggingface(trained, folder, lines.append)
    assert difference is not None and difference < 1e-5
    assert "compared with Transformers on 64 tokens of" in lines[0] and "/val/" in lines[0]
    return folder


def test_the_export_is_our_model(trained: Path, exported: Path, corpus: Path) -> None:
    theirs = load_theirs(exported)
    ours = load_checkpoint(trained, "cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    text = next((corpus / "val").glob("*.txt")).read_text(encoding="utf-8")[:200]
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert torch.equal(ids[0], ours.tokenizer.encode(text).long())
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids[:, :64]).logits, ours.model(ids[:, :64]), rtol=1e-5, atol=1e-5)


def test_transformers_writes_the_text_that_we_write(trained: Path, exported: Path) -> None:
    theirs, tokenizer = load_theirs(exported), transformers.AutoTokenizer.from_pretrained(exported)
    prompt = "Once upon a time"
    ids = theirs.generate(**tokenizer(prompt, return_tensors="pt"), do_sample=False, max_new_tokens=30)
    ours = generate(
        GenerateConfig(
            checkpoint=trained, prompt=prompt, temperature=0.0, max_new_tokens=30, accelerator="cpu"
        ),
        write=lambda _: None,
    )
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == ours[0]


def test_the_export_says_how_it_came_to_be(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["MixtralForCausalLM"] and config["vocab_size"] == 520
    assert json.loads((exported / "generation_config.json").read_text())["eos_token_id"] == 0
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for fact in (
        "| steps | 40 |",
        "| tokens | 20,480 |",
        "| optimizer | AdamW, learning rate 0.01 |",
        "| schedule | cosine, down to 0.0001 |",
        "| expert balance | switch, coefficient 0.01 |",
        "| router z-loss coefficient | 0.001 |",
        "| validation loss |",
    ):
        assert fact in card


@pytest.mark.parametrize("n_chosen", [1, 2, 3])
def test_the_balance_loss_is_named_as_transformers_scales_it(n_chosen: int) -> None:
    """On the same router logits of one layer, its loss times its coefficient is ours times ours."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = load_model_config({**SMALL, "n_expert_per_token": n_chosen})
    settings = {"moe": {"balance": "switch", "switch_coefficient": 0.07}}
    logits_TE = torch.randn(100, config.n_expert, generator=torch.Generator().manual_seed(1))
    logits_TE += torch.arange(config.n_expert)  # uneven
    counts_E = logits_TE.topk(n_chosen).indices.flatten().bincount(minlength=config.n_expert)
    ours = 0.07 * switch_loss(logits_TE.softmax(-1).mean(0), counts_E)
    theirs = load_balancing_loss_func((logits_TE,), config.n_expert, n_chosen)
    coefficient = balance_settings(settings, config)["router_aux_loss_coef"]
    assert ours > 0.08  # 0.07 at balance
    torch.testing.assert_close(coefficient * theirs, ours)


def test_whoever_trains_on_finds_the_balance_loss(exported: Path, corpus: Path) -> None:
    """The coefficient is in config.json; asked for its router's logits, the model adds the loss."""
    config = json.loads((exported / "config.json").read_text())
    assert config["router_aux_loss_coef"] == 0.01 / 2 and config["output_router_logits"] is False
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, output_router_logits=True)
    ids = torch.arange(1, 60)[None]
    with torch.no_grad():
        out = model(ids, labels=ids)
        plain = model(ids, labels=ids, output_router_logits=False)
    assert out.aux_loss > 0
    torch.testing.assert_close(out.loss, plain.loss + 0.005 * out.aux_loss)
    card = (exported / "README.md").read_text()
    assert "Switch loss with coefficient 0.01." in card and "output_router_logits=True" in card


def test_nothing_is_said_of_a_balance_loss_that_is_not_known(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    export_huggingface(make_checkpoint(), tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert "router_aux_loss_coef" not in config
    assert "Train on" not in (tmp_path / "hub" / "README.md").read_text()
    config_of_model = load_model_config(SMALL)
    none = balance_settings({"moe": {"balance": "none", "switch_coefficient": 0.5}}, config_of_model)
    assert none["router_aux_loss_coef"] == 0


def test_what_was_not_written_as_given_is_found(trained: Path, tmp_path: Path) -> None:
    weights = {name: t.clone() for name, t in checkpoint.load_model(trained).items()}
    weights["lm_head.weight"][0, 0] = float("nan")
    names = write_shards(tmp_path, weights, 60_000)
    check_shards(tmp_path, weights)
    with pytest.raises(LitMoEError, match="the weight extra was not written"):
        check_shards(tmp_path, {**weights, "extra": torch.zeros(1)})
    data = bytearray((tmp_path / names[1]).read_bytes())
    data[-1] ^= 1
    (tmp_path / names[1]).write_bytes(data)
    with pytest.raises(LitMoEError, match=f"{names[1]}: the weight .* is not what was written"):
        check_shards(tmp_path, weights)


def test_shards_have_an_index(trained: Path, tmp_path: Path) -> None:
    export_huggingface(trained, tmp_path / "hub", lambda _: None, shard_bytes=60_000)
    shards = sorted(path.name for path in (tmp_path / "hub").glob("*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    load_theirs(tmp_path / "hub")
    import_huggingface(tmp_path / "hub", tmp_path / "back", lambda _: None)
    assert same_weights(trained, tmp_path / "back")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back_is_exact(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, dtype: torch.dtype, tied: bool
) -> None:
    source = make_checkpoint(dtype, tied, head_size=16, rope_base=50000)
    export_huggingface(source, tmp_path / "hub", lambda _: None)
    assert load_theirs(tmp_path / "hub").dtype == dtype
    import_huggingface(tmp_path / "hub", tmp_path / "back", lambda _: None)
    assert same_weights(source, tmp_path / "back")
    assert (source / "model_config.yaml").read_text() == (tmp_path / "back" / "model_config.yaml").read_text()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (source / name).read_bytes() == (tmp_path / "back" / name).read_bytes()


def test_a_mixtral_that_transformers_wrote_comes_in(corpus: Path, tmp_path: Path) -> None:
    """Made and saved by Transformers' own code, its tokenizer too."""
    theirs = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            vocab_size=512,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=3,
            max_position_embeddings=64,
        )
    ).eval()
    theirs.save_pretrained(tmp_path / "hub")
    transformers.AutoTokenizer.from_pretrained(corpus / "tokenizer").save_pretrained(tmp_path / "hub")
    import_huggingface(tmp_path / "hub", tmp_path / "ours", lambda _: None)
    checkpoint.verify(tmp_path / "ours")
    ours = load_checkpoint(tmp_path / "ours", "cpu")
    ids = torch.arange(1, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-6)
    assert ours.tokenizer.decode(ours.tokenizer.encode("a red ball")) == "a red ball"


def test_a_model_comes_from_the_hub(exported: Path, tmp_path: Path, plain_python: str) -> None:
    """By its id; without a file that is neither weights, tokenizer nor configuration."""
    shutil.copytree(exported, tmp_path / "repository")
    (tmp_path / "repository" / "modeling.py").write_text("print('not this one')")
    words = ["-m", "litmoe", "import", "someone/stories", "--out-dir", "ours"]
    with serving(tmp_path / "repository", "someone/stories", "models") as hub:
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [plain_python, *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        asked = {name for name, _ in hub.sent}
    assert done.returncode == 0, done.stderr
    assert "imported someone/stories to ours" in done.stdout
    assert done.stderr == ""  # no bars in a pipe
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= asked
    assert "modeling.py" not in asked
    import_huggingface(exported, tmp_path / "local", lambda _: None)
    assert same_weights(tmp_path / "ours", tmp_path / "local")


def test_an_import_can_be_used(
    exported: Path, make_config: Callable[..., TrainConfig], corpus: Path, tmp_path: Path
) -> None:
    """Generated from, evaluated, and trained on: with a fresh optimizer, from step 0."""
    back = tmp_path / "back"
    import_huggingface(exported, back, lambda _: None)
    assert generate(GenerateConfig(back, max_new_tokens=5, accelerator="cpu"), write=lambda _: None)
    loss = evaluate(EvaluateConfig(back, corpus / "val", accelerator="cpu", progress=False)).loss
    config = make_config(
        f"--initial_checkpoint_dir={back}", eval={"initial_validation": True, "max_iters": 100, "interval": 1}
    )
    config.model_config = back / "model_config.yaml"
    result = train(config)
    assert result.steps == 6 and result.val_loss is not None and result.val_loss < loss + 0.3


REFUSED = {
    "rotary_percentage": 0.5,
    "norm_class_name": "LayerNorm",
    "parallel_residual": True,
    "attn_bias": True,
    "lm_head_bias": True,
    "norm_qk": True,
    "post_attention_norm": True,
    "post_mlp_norm": True,
    "sliding_window_size": 8,
    "attention_logit_softcapping": 5.0,
    "final_logit_softcapping": 5.0,
    "first_k_dense_replace": 1,
    "n_shared_expert": 1,
    "routed_scaling_factor": 2.0,
    "scale_embeddings": True,
    "rope_condense_ratio": 2,
    "attention_scores_scalar": 4,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixtral_cannot_express_is_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, name: str
) -> None:
    folder = make_checkpoint(**{name: REFUSED[name]})
    with pytest.raises(LitMoEError, match=rf"cannot be exported to Hugging Face.*{name}: {REFUSED[name]} \("):
        export_huggingface(folder, tmp_path / "hub", lambda _: None)
    assert not (tmp_path / "hub").exists()


def test_every_fault_is_named_at_once(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    grouped = {"n_expert_groups": 2, "n_topk_groups": 1, "n_topk_scores_per_group": 1, "norm_topk_prob": True}
    folder = make_checkpoint(rotary_percentage=0.5, **grouped)
    with pytest.raises(LitMoEError, match=r"rotary_percentage: 0.5 .*; n_expert_groups: 2 .*sigmoid"):
        export_huggingface(folder, tmp_path / "hub", lambda _: None)


def test_a_dense_model_is_refused(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    dense = {"mlp_class_name": "LLaMAMLP", "n_expert": 0, "n_expert_per_token": 0}
    with pytest.raises(LitMoEError, match="mlp_class_name: LLaMAMLP"):
        export_huggingface(make_checkpoint(**dense), tmp_path / "hub", lambda _: None)


def test_other_logits_are_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong number in config.json is noticed, and nothing is left of the export."""
    from litmoe.interop import huggingface

    right = huggingface.to_mixtral_config
    monkeypatch.setattr(huggingface, "to_mixtral_config", lambda *args: right(*args) | {"rope_theta": 20000})
    with pytest.raises(LitMoEError, match="logits differ from ours"):
        export_huggingface(trained, tmp_path / "hub", lambda _: None)
    assert list(tmp_path.iterdir()) == [tmp_path / ".hub.lock"]


def test_without_transformers_it_says_so(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    lines: list[str] = []
    assert export_huggingface(trained, tmp_path / "hub", lines.append) is None
    assert "not compared with Transformers" in lines[0]


def test_only_an_older_export_is_replaced(exported: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    export_huggingface(trained, folder, lambda _: None)
    export_huggingface(trained, folder, lambda _: None)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(LitMoEError, match="not an export of litmoe"):
        export_huggingface(trained, folder, lambda _: None)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(LitMoEError, match="not an import of litmoe"):
        import_huggingface(exported, folder, lambda _: None)
    with pytest.raises(LitMoEError, match="not an import of litmoe"):
        import_huggingface(exported, trained, lambda _: None)
    import_huggingface(exported, tmp_path / "back", lambda _: None)
    import_huggingface(exported, tmp_path / "back", lambda _: None)


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"hidden_size": 48}, "shape|weight|sizes"),
        ({"num_hidden_layers": 3}, "layers.2.* is missing"),
        ({"num_hidden_layers": 1}, "no weight of a Mixtral"),
        ({"num_hidden_layers": -1}, "num_hidden_layers must be a number greater than 0"),
        ({"vocab_size": "many"}, "vocab_size must be a number"),
        ({"num_attention_heads": 3}, "sizes do not fit|shape"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"sliding_window": 16}, "sliding_window 16"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": "yarn"}, "rope_type 'yarn'"),
        ({"rope_theta": float("inf")}, "rope_theta inf"),
        ({"rope_theta": [1]}, "rope_theta"),
        ({"head_dim": "8"}, "head_dim '8'"),
        ({"sliding_window": "16"}, "sliding_window '16'"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings 'false'"),
    ],
)
def test_what_our_model_cannot_be_is_refused(
    exported: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:

    shutil.copytree(exported, tmp_path / "hub")
    edit(tmp_path / "hub", **values)
    with pytest.raises(LitMoEError, match=message):
        import_huggingface(tmp_path / "hub", tmp_path / "back", lambda _: None)
    assert not (tmp_path / "back").exists()


def test_damaged_and_dangerous_sources_are_refused(exported: Path, tmp_path: Path) -> None:

    hub = tmp_path / "hub"

    def fresh() -> None:
        shutil.rmtree(hub, ignore_errors=True)
        shutil.copytree(exported, hub)

    def refuses(message: str) -> None:
        with pytest.raises(LitMoEError, match=message):
            import_huggingface(hub, tmp_path / "back", lambda _: None)

    fresh()
    (hub / "config.json").write_text("{")
    refuses("not readable JSON")
    fresh()
    (hub / "model.safetensors").write_bytes(b"no weights at all")
    refuses("damaged")
    fresh()
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    refuses("pickled weights can run code")
    fresh()
    index = {"weight_map": {"lm_head.weight": "../hub/model.safetensors"}}
    (hub / "model.safetensors.index.json").write_text(json.dumps(index))
    refuses("is missing")
    (hub / "config.json").unlink()
    refuses("not a Hugging Face model folder")
    with pytest.raises(LitMoEError, match="not a hub id"):
        import_huggingface("nothing-here", tmp_path / "back", lambda _: None)


def test_the_hub_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LitMoEError, match="cannot be fetched from the Hugging Face hub") as caught:
        import_huggingface("owner/no-such-model", tmp_path / "back", lambda _: None)
    assert "\n" not in str(caught.value)


def test_commands(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub, back = tmp_path / "hub", tmp_path / "back"
    words = [str(trained), "--to", "huggingface", str(hub)]
    assert run(EXPORT, words, "litmoe export") == 0
    assert run(IMPORT, [str(hub), "--out-dir", str(back)], "litmoe import") == 0
    assert same_weights(trained, back)
    out = capsys.readouterr().out
    assert f"exported {trained} to {hub}: 1 safetensors file(s)" in out and f"imported {hub} to {back}" in out
    for command, bad, message in (
        (EXPORT, [str(trained)], "say what to write"),
        (EXPORT, [str(trained), "--to", "hugingface", str(hub)], "did you mean huggingface?"),
        (EXPORT, [str(tmp_path / "no"), "--to", "huggingface", str(hub)], "no such checkpoint"),
        (IMPORT, [], "name a folder"),
        (IMPORT, [str(hub), "--outdir", "x"], "did you mean --out-dir?"),
    ):
        assert run(command, bad, "litmoe") == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1, captured.err


def test_the_card_says_how_the_learning_rate_went_and_how_experts_were_balanced(trained: Path) -> None:
    settings = {
        "train": {"lr_warmup_steps": 200, "min_lr": 6e-5, "max_norm": 1.0},
        "schedule": {"name": "wsd", "decay_fraction": 0.1},
        "moe": {"balance": "bias", "bias_update_speed": 0.002, "z_coefficient": 0.0},
        "head_z_coefficient": 1e-4,
        "optimizer": {"class_path": "litmoe.optim.AdamW8bit", "init_args": {"lr": 1e-3, "weight_decay": 0.1}},
    }
    card = model_card(load_model_config(SMALL), TrainingFacts(settings, 10, 100, {}), tied=False)
    for fact in (
        "| schedule | wsd, warm-up over 200 steps, decay over the last 0.1 of the run, down to 6e-05 |",
        "| expert balance | bias, update speed 0.002 |",
        "| head z-loss coefficient | 0.0001 |",
        "| gradient clipping | 1.0 |",
        "| optimizer | AdamW8bit, learning rate 0.001, weight_decay 0.1 |",
    ):
        assert fact in card
    assert "router z-loss" not in card


def test_losses_of_another_run_beside_a_copied_checkpoint_are_not_its_own(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "other" / "final")
    assert "train_loss" in training_facts(trained).metrics
    (tmp_path / "other" / "metrics.csv").write_text("step,train_loss,val_loss,total_tokens\n40,1.0,1.5,7\n")
    assert training_facts(tmp_path / "other" / "final").metrics == {}


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_is_not_dropped_in_silence(
    make_checkpoint: MakeCheckpoint, make_config: Callable[..., TrainConfig], tied: bool
) -> None:
    folder = make_checkpoint(tied=tied)
    args = [
        f"--initial-checkpoint-dir={folder}",
        f"--model-config={folder / 'model_config.yaml'}",
        "--max-steps=1",
    ]
    said: list[str] = []
    if tied:
        train(make_config(*args), said.append)
        assert any("from here on they are trained apart" in line for line in said)
    else:
        with pytest.raises(LitMoEError, match="head was trained apart from the token embedding"):
            train(make_config(*args, "--train.tie-embeddings=true"))

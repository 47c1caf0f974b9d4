"""The routing explorer: equal to LitGPT's own routing, honest about chance, and clear about collapse."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import litgpt.model
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small import MODEL

from litmoe import checkpoint
from litmoe.errors import LitMoEError
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.report.routing.explore import Effort, explore
from litmoe.report.routing.figures import RoutingFigures
from litmoe.report.routing.kinds import Pieces, groupings_of
from litmoe.report.routing.knockout import knockouts
from litmoe.report.routing.observe import observe
from litmoe.report.routing.page import as_json, routing_page
from litmoe.report.routing.structure import effective_experts, is_collapsed, mutual_information, pair_lift
from litmoe.report.routing.text import Document, Text, store_documents, text_of
from litmoe.report.run import dump

QUICK = Effort(max_tokens=4096, shuffles=12, knockout_windows=6)
NO_KNOCKOUT = replace(QUICK, knockout_windows=0)

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(trained: Path, tmp_path: Path) -> MakeModel:
    """Writes a checkpoint of the small model with other fields and weights of one's own making."""

    def make(
        change: Callable[[GPT], object] = lambda model: None, name: str = "made", seed: int = 1, **fields: Any
    ) -> Path:
        config = load_model_config({**MODEL, **fields})
        model = GPT(config)
        initialize(model, seed)
        with torch.no_grad():
            change(model)
        folder = tmp_path / name
        contents = checkpoint.Contents(
            step=7,
            model=model.state_dict(),
            trainer={},
            model_config=asdict(config),
            settings=load_checkpoint(trained).settings,
            tokenizer_dir=trained,
        )
        checkpoint.save(folder, contents)
        return folder

    return make


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    """The trained small model."""
    return load_checkpoint(trained, "cpu")


@pytest.fixture(scope="module")
def text(loaded: LoadedModel) -> Text:
    """Its validation text."""
    where, documents = store_documents(loaded, 4096, 64)
    return text_of(where, documents, 64)


@pytest.fixture(scope="module")
def figures(trained: Path) -> RoutingFigures:
    """Of the trained model, on its validation text."""
    return explore([trained], effort=QUICK, accelerator="cpu")


def _reference(loaded: LoadedModel, closed: tuple[int, int] | None = None) -> tuple[Any, list[torch.Tensor]]:
    """LitGPT's own model with these weights, and a list that gets its routers' logits; one expert closed."""
    model = litgpt.model.GPT(loaded.model.config)
    model.load_state_dict(loaded.model.state_dict())
    logits: list[torch.Tensor] = []

    def see(layer: int) -> Callable[..., torch.Tensor]:
        def hook(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
            if closed is not None and closed[0] == layer:
                output = output.clone()
                output[:, closed[1]] = -math.inf
            logits.append(output)
            return output

        return hook

    for layer, block in enumerate(model.transformer.h):
        block.mlp.gate.register_forward_hook(see(layer))
    return model.eval(), logits


@torch.no_grad()
def test_experts_weights_and_losses_are_litgpts(loaded: LoadedModel, text: Text) -> None:
    observed = observe(loaded, text)
    model, logits = _reference(loaded)
    at = 0
    for window in text.windows[:12]:
        logits.clear()
        out_TV = model(torch.from_numpy(window)[None])[0]
        here = slice(at, at + len(window) - 1)
        loss_T = torch.nn.functional.cross_entropy(
            out_TV[:-1], torch.from_numpy(window[1:]), reduction="none"
        )
        torch.testing.assert_close(
            torch.from_numpy(observed.loss_N[here]).float(), loss_T, rtol=1e-4, atol=1e-4
        )
        for layer, logits_TE in enumerate(logits):
            top_TK, ids_TK = logits_TE[1:].topk(2)
            assert observed.ids_LNK[layer, here].tolist() == ids_TK.tolist()
            expected = top_TK.softmax(-1).numpy()
            np.testing.assert_allclose(observed.weights_LNK[layer, here], expected, rtol=1e-4, atol=1e-5)
        at = here.stop


@torch.no_grad()
def test_a_knockout_equals_litgpts_model_without_that_expert(loaded: LoadedModel, text: Text) -> None:
    windows = text.windows[:6]
    found = knockouts(loaded, windows, [0, 1])
    assert set(found) == {(layer, expert) for layer in (0, 1) for expert in range(4)}
    whole, _ = _reference(loaded)
    for key in ((0, 0), (1, 3)):
        without, _ = _reference(loaded, closed=key)
        rises, tokens = [], sum(len(window) - 1 for window in windows)
        for window in windows:
            ids, targets = torch.from_numpy(window)[None], torch.from_numpy(window[1:])
            losses = [
                torch.nn.functional.cross_entropy(model(ids)[0, :-1], targets, reduction="sum").item()
                for model in (without, whole)
            ]
            rises.append(losses[0] - losses[1])
        rise = found[key]
        assert rise.rise == pytest.approx(sum(rises) / tokens, abs=2e-5)
        assert rise.low < rise.rise < rise.high
        # as many tokens in each window: then the interval is that of a mean
        if len({len(window) for window in windows}) == 1:
            error = np.std(rises, ddof=1) / math.sqrt(len(rises)) / (tokens / len(rises))
            assert rise.high - rise.rise == pytest.approx(2.571 * error, rel=0.02)


def test_shares_and_loads_are_plain_counts(figures: RoutingFigures, loaded: LoadedModel, text: Text) -> None:
    observed = observe(loaded, text)
    groupings = groupings_of(text, Pieces(loaded.tokenizer))
    assert figures.text.tokens == len(text.ids_N) and figures.step == 80
    for layer, ids_NK in enumerate(observed.ids_LNK):
        shown = figures.layers[layer]
        for expert in range(4):
            assert shown.experts[expert].load == pytest.approx((ids_NK == expert).mean())
            assert shown.experts[expert].first == pytest.approx((ids_NK[:, 0] == expert).mean())
        for grouping, category_N in groupings:
            for category, shares in enumerate(shown.shares[grouping.name]):
                inside = ids_NK[category_N == category]
                assert shares == pytest.approx([(inside == e).mean() for e in range(4)], abs=1e-4)
        for expert in shown.experts:
            for token in expert.tokens:
                assert token.share > 0 and token.lift > 1 and token.count >= 1
    first_N, next_N = observed.ids_LNK[0, :, 0], observed.ids_LNK[1, :, 0]
    assert figures.flow[0].shares is not None
    for one in range(4):
        expected = [(next_N[first_N == one] == other).mean() for other in range(4)]
        assert figures.flow[0].shares[one] == pytest.approx(expected, abs=1e-4)


def test_kinds_of_tokens(loaded: LoadedModel) -> None:
    words = "Once upon a time, Tom's dog ran 12 miles.\n\nThe end"
    ids = loaded.tokenizer.encode(words, bos=False, eos=False).numpy().astype(np.int64)
    text = text_of("here", [Document(ids, 0)], 64)
    pieces = Pieces(loaded.tokenizer)
    assert "".join(pieces(int(token)) for token in text.ids_N) == words
    kinds = {grouping.name: (grouping, category_N) for grouping, category_N in groupings_of(text, pieces)}
    grouping, category_N = kinds["kind"]
    by_kind: dict[str, str] = {}
    for token, category in zip(text.ids_N, category_N, strict=True):
        name = grouping.categories_C[category]
        by_kind[name] = by_kind.get(name, "") + pieces(int(token))
    assert set(by_kind["digits"].split()) <= {"12", "1", "2"} and {",", "."} <= set(by_kind["punctuation"])
    assert by_kind["capitalised"].replace(" ", "").startswith("O") and by_kind["white space"].strip() == ""
    grouping, category_N = kinds["word"]
    starts = [
        pieces(int(token)).strip()[:1]
        for token, category in zip(text.ids_N, category_N, strict=True)
        if grouping.categories_C[category] == "start of a word"
    ]
    assert "".join(starts) in ("OuatTdr1mTe", "OuatTsdr1mTe")  # 's may be one token
    grouping, _ = kinds["position"]
    assert grouping.tokens_C[0] == 16 and sum(grouping.tokens_C) == len(ids)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_untrained_model_has_no_structure(make_model: MakeModel, seed: int) -> None:
    figures = explore([make_model(seed=seed)], effort=NO_KNOCKOUT, accelerator="cpu")
    assert not figures.structure_found and not figures.collapsed_layers
    assert {layer.state for layer in figures.layers} == {"no structure"}
    assert figures.verdict[0].startswith("No structure: ")
    # it does send tokens to experts of their own, which is no structure
    assert figures.flow[0].bits > 3 * figures.flow[0].bits_shuffled


def test_structure_that_was_put_in_is_found(make_model: MakeModel, loaded: LoadedModel) -> None:
    pieces = Pieces(loaded.tokenizer)
    punctuation = [
        token for token in range(500) if pieces(token).strip() in (".", ",", "!", "?", '"', "'", '."')
    ]

    def change(model: GPT) -> None:
        model.transformer.wte.weight[:, 0] = -1.0
        model.transformer.wte.weight[punctuation, 0] = 1.0
        model.transformer.h[0].mlp.gate.weight[2, 0] = 3.0

    figures = explore([make_model(change, n_expert=8)], effort=NO_KNOCKOUT, accelerator="cpu")
    one = figures.layers[0].structure["kind"]
    assert one.found and one.bits > 2 * one.shuffled_high and figures.layers[0].state == "structure"
    assert figures.verdict[0].startswith("The experts divide the tokens by kind of token (")
    kinds = figures.groupings[0].categories_C
    assert (
        figures.layers[0].shares["kind"][kinds.index("punctuation")][2] > 0.4
    )  # of at most a half, for two choices
    assert {token.text.strip() for token in figures.layers[0].experts[2].tokens[:3]} <= {
        ".",
        ",",
        "!",
        '"',
        "'",
        '."',
    }


@pytest.mark.parametrize("sure", [True, False])
def test_a_collapsed_router_shows_as_collapsed(make_model: MakeModel, sure: bool) -> None:
    def change(model: GPT) -> None:
        bias = model.transformer.h[1].mlp.gate.e_score_correction_bias
        bias[:2] += 10.0 if sure else 0.0

    groups = {
        "n_expert": 8,
        "n_expert_groups": 8,
        "n_topk_groups": 8,
        "n_topk_scores_per_group": 1,
        "norm_topk_prob": True,
    }
    figures = explore([make_model(change, **groups)], effort=QUICK, accelerator="cpu")
    assert figures.collapsed_layers == ([1] if sure else [])
    if sure:
        assert figures.layers[1].state == "collapsed" and figures.layers[
            1
        ].effective_experts == pytest.approx(2, abs=0.01)
        assert "router of layer 1 has collapsed: 2 of 8 experts get 100%" in figures.verdict[0]
        assert "6 experts get no token of this text: 2 of layer 1" in " ".join(figures.verdict)
        assert "collapsed" in routing_page(figures)


def test_a_dense_model_is_refused_in_one_line(make_model: MakeModel) -> None:
    dense = {name: value for name, value in MODEL.items() if "expert" not in name and "moe" not in name}
    config = load_model_config(dense | {"mlp_class_name": "LLaMAMLP"})
    folder = make_model()
    checkpoint.save(
        folder.with_name("dense"),
        checkpoint.Contents(
            step=1,
            model=GPT(config).state_dict(),
            trainer={},
            model_config=asdict(config),
            settings={},
            tokenizer_dir=folder,
        ),
    )
    with pytest.raises(LitMoEError, match="a dense model has no experts to look at"):
        explore([folder.with_name("dense")], accelerator="cpu")


def test_changes_between_checkpoints(make_model: MakeModel, trained: Path) -> None:
    same, other = make_model(name="a"), make_model(name="b", seed=2)
    figures = explore([same, same, other], effort=replace(NO_KNOCKOUT, shuffles=0), accelerator="cpu")
    assert figures.changes[0].changed_L == [0, 0]
    assert figures.changes[1].changed_L == pytest.approx(figures.changes[1].by_chance_L, abs=0.15)
    assert figures.changes[1].name == "a" and figures.changes[1].to_name == "b" and figures.step == 7
    assert "Nothing is said about structure" in " ".join(figures.verdict)
    with pytest.raises(LitMoEError, match="of another model than"):
        explore(
            [make_model(name="c", n_layer=3), other], effort=replace(QUICK, shuffles=0), accelerator="cpu"
        )


def test_by_source_where_the_data_says_so(trained: Path, tmp_path: Path) -> None:
    stories = [{"text": f"The cat sat on the mat {n}. " * 12, "domain": "cats"} for n in range(8)]
    numbers = [{"text": " ".join(str(n * k) for k in range(60)), "domain": "numbers"} for n in range(8)]
    lines = [json.dumps(one) for pair in zip(stories, numbers, strict=True) for one in pair]
    (tmp_path / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    figures = explore(
        [trained], tmp_path / "text.jsonl", effort=replace(NO_KNOCKOUT, shuffles=2), accelerator="cpu"
    )
    grouping = next(one for one in figures.groupings if one.name == "source")
    assert grouping.categories_C == ["cats", "numbers"] and min(grouping.tokens_C) > 200
    assert set(figures.shown.sources) == {"cats", "numbers"}
    shares = figures.layers[0].shares["source"]
    assert len(shares) == 2 and sum(shares[0]) == pytest.approx(1, abs=1e-3)


def test_an_imported_mixtral_works(trained: Path, tmp_path: Path, figures: RoutingFigures) -> None:
    pytest.importorskip(
        "transformers", reason="the export is checked by transformers, which is not installed"
    )
    from litmoe.interop.huggingface import export_huggingface, import_huggingface

    export_huggingface(trained, tmp_path / "mixtral", say=lambda line: None)
    import_huggingface(tmp_path / "mixtral", tmp_path / "back", say=lambda line: None)
    with pytest.raises(LitMoEError, match="name a text with --text"):
        explore([tmp_path / "back"], accelerator="cpu")
    val = Path(figures.text.source)
    found = explore([tmp_path / "back"], val, effort=replace(QUICK, shuffles=0), accelerator="cpu")
    again = explore([trained], val, effort=replace(QUICK, shuffles=0), accelerator="cpu")
    assert found.step is None and found.shown.experts_LKT == again.shown.experts_LKT
    assert [e.load for layer in found.layers for e in layer.experts] == [
        e.load for layer in again.layers for e in layer.experts
    ]


def test_a_prompt_is_shown_and_the_figures_are_of_the_validation_text(
    trained: Path, make_model: MakeModel
) -> None:
    prompt = "Once there was <script>alert(1)</script> a cat."
    figures = explore([trained], prompt=prompt, effort=replace(NO_KNOCKOUT, shuffles=0), accelerator="cpu")
    assert "".join(figures.shown.pieces_T) == prompt and figures.text.tokens > 1000
    assert "<script>alert" not in routing_page(figures).replace("\\u003c", "<").split("</main>")[0]
    with pytest.raises(LitMoEError, match="--text and --prompt"):
        explore([trained], Path("x"), prompt=prompt, accelerator="cpu")
    with pytest.raises(LitMoEError, match="no text to look at"):
        explore([trained], prompt="", accelerator="cpu")


def test_the_json_is_strict_and_small(figures: RoutingFigures) -> None:
    text = dump(as_json(figures))
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["schema"] == "litmoe-routing/1"
    assert len(routing_page(figures).encode()) < 2_000_000


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(0, 50), st.integers(2, 400))
def test_mutual_information_and_pairs_against_plain_formulas(
    n_experts: int, seed: int, n_tokens: int
) -> None:
    draw = np.random.default_rng(seed)
    table = draw.integers(0, 30, (3, n_experts)).astype(float)
    entropy = lambda p: -(p[p > 0] * np.log2(p[p > 0])).sum()  # noqa: E731
    if table.sum():
        p = table / table.sum()
        expected = entropy(p.sum(0)) + entropy(p.sum(1)) - entropy(p.ravel())
        assert mutual_information(table) == pytest.approx(expected, abs=1e-9)
    assert mutual_information(np.outer([1, 2, 3], np.arange(1, n_experts + 1))) == pytest.approx(0, abs=1e-12)
    ids_NK = np.array([draw.choice(n_experts, 2, replace=False) for _ in range(n_tokens)])
    lift_EE = pair_lift(ids_NK, n_experts)
    known = np.isfinite(lift_EE)
    np.testing.assert_allclose(lift_EE[known], lift_EE.T[known])
    assert not np.diagonal(known).any()
    together = lift_EE[known].mean() if known.any() else 1.0
    assert 0 <= together < 4


def test_pairs_that_always_fire_together() -> None:
    ids_NK = np.array([[0, 1]] * 50 + [[2, 3]] * 50)
    lift_EE = pair_lift(ids_NK, 4)
    assert lift_EE[0, 1] == pytest.approx(3, rel=1e-3) and lift_EE[0, 2] == 0
    assert effective_experts(np.array([0.25] * 4)) == pytest.approx(4)
    assert is_collapsed(np.array([0.5, 0.5, 0, 0, 0, 0]), 2) and not is_collapsed(np.array([0.5, 0.5]), 2)

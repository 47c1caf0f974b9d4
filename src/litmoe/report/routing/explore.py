"""The routing explorer's figures: a model, a text, and what goes where.

Shape suffixes: N tokens of the text, L MoE layers, K experts per token, E experts.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from litmoe import checkpoint
from litmoe.errors import CheckpointError, ConfigError, DataError
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.messages import Say, silent
from litmoe.report.routing.figures import (
    ENOUGH_TOKENS,
    Change,
    Expert,
    Flow,
    Layer,
    RoutingFigures,
    ShownText,
    TextFacts,
)
from litmoe.report.routing.kinds import Grouped, Pieces, groupings_of
from litmoe.report.routing.knockout import knockouts
from litmoe.report.routing.observe import Observed, moe_blocks, observe
from litmoe.report.routing.structure import (
    FEWEST_SHUFFLES,
    against_shuffles,
    bits_by_grouping,
    counts,
    effective_experts,
    flow_table,
    is_collapsed,
    mutual_information,
    other_occurrence,
    pair_lift,
    shuffle_weights,
)
from litmoe.report.routing.text import Text, file_documents, prompt_documents, store_documents, text_of
from litmoe.report.routing.typical import typical_tokens
from litmoe.report.routing.verdict import verdict

SEED = 20
MOST_MATRIX = 64
"""Experts up to which tables of experts by experts are shown."""

_MOST_SHOWN_EXPERTS = 512  # in all layers together; of more layers, some are shown
_MOST_SHOWN_CHOICES = 16_000  # tokens times layers times experts per token


@dataclass(frozen=True)
class Effort:
    """How much is measured. Time grows with all of them."""

    max_tokens: int = 16_384
    """Tokens of the text that are looked at."""
    shuffles: int = 12
    """Runs of the model with shuffled weights, on the whole text; 0: no baseline, and no structure is claimed."""
    knockout_windows: int = 16
    """Windows that the loss without each expert is measured on; 0: it is not."""


def explore(
    checkpoints: Sequence[Path | str],
    text_path: Path | None = None,
    prompt: str | None = None,
    effort: Effort = Effort(),
    accelerator: str = "auto",
    say: Say = silent,
) -> RoutingFigures:
    """Look at the routing of a checkpoint; with several of one run, also at how it changed from one to the next.

    Args:
        checkpoints: folders, in the order of training; a run's folder stands for its newest one. The last one
            is the one that is looked at in full.
        text_path: a file or folder of text, in any form that ``litmoe prepare`` reads; records may say where
            they are from in a field ``domain`` or ``source``. None: the run's validation text.
        prompt: a text to show with its experts. The other figures are then of the run's validation text, where
            that is here, or else of the prompt alone.
        effort: how much to measure.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: is told what is measured, and how long it will take.

    Raises:
        LitMoEError: no checkpoint, a dense model, no text, or checkpoints with different tokenizers or sizes.
    """
    if not checkpoints:
        raise ConfigError("name at least one checkpoint")
    *earlier, last = checkpoints
    loaded = _load(last, accelerator)
    length = _window_length(loaded)
    read = (
        None if prompt is None else text_of("the prompt", prompt_documents(loaded.tokenizer, prompt), length)
    )
    text = _text(loaded, text_path, read, effort.max_tokens, length)
    say(f"text             {len(text.ids_N):,} tokens of {text.documents:,} documents from {text.where}")
    started = time.perf_counter()
    observed = observe(loaded, text)
    seconds = time.perf_counter() - started
    _announce(loaded, text, effort, seconds, len(earlier), say)
    pieces = Pieces(loaded.tokenizer)
    changes = _changes(earlier, loaded, text, observed, accelerator)
    shown = (text, observed) if read is None or read is text else (read, observe(loaded, read))
    figures = _figures(loaded, text, observed, groupings_of(text, pieces), pieces, effort, shown)
    figures.changes = changes
    figures.verdict = verdict(figures)
    return figures


def _load(folder: Path | str, accelerator: str) -> LoadedModel:
    loaded = load_checkpoint(folder, accelerator)
    if not moe_blocks(loaded.model):
        raise CheckpointError(
            f"{loaded.folder}: a dense model has no experts to look at; name a MoE checkpoint"
        )
    return loaded


def _window_length(loaded: LoadedModel) -> int:
    """Tokens of a window: as in training."""
    section, most = loaded.settings.get("train"), loaded.model.config.block_size
    length = section.get("max_seq_length") if isinstance(section, dict) else None
    return max(2, min(int(length or most), most))


def _text(loaded: LoadedModel, path: Path | None, read: Text | None, most_tokens: int, length: int) -> Text:
    """The text that figures are measured on; ``read`` is the prompt, where there is one."""
    if path is not None:
        if read is not None:
            raise ConfigError("--text and --prompt: name one of them")
        return text_of(str(path), file_documents(loaded.tokenizer, path, most_tokens, length), length)
    try:
        where, documents = store_documents(loaded, most_tokens, length)
    except DataError:
        if read is None:
            raise
        return read
    return text_of(where, documents, length)


def _announce(
    loaded: LoadedModel, text: Text, effort: Effort, seconds: float, n_earlier: int, say: Say
) -> None:
    """How long it will take, from the time of one run over the text."""
    config, n_layers = loaded.model.config, len(moe_blocks(loaded.model))
    share = min(effort.knockout_windows, len(text.windows)) / len(text.windows)
    runs = effort.shuffles + n_earlier + share * n_layers * config.n_expert * 0.6
    if runs * seconds > 20:
        say(
            f"measures         for about {max(1, round(runs * seconds / 60))} min; fewer --max-tokens, --shuffles "
            "or --knockout-windows take less"
        )


def _figures(
    loaded: LoadedModel,
    text: Text,
    observed: Observed,
    groupings: list[Grouped],
    pieces: Pieces,
    effort: Effort,
    shown_text: tuple[Text, Observed],
) -> RoutingFigures:
    """All figures of one checkpoint. Ruins the loaded model's weights: shuffling them comes last."""
    n_layers, _, n_chosen = observed.ids_LNK.shape
    n_experts, blocks = observed.n_experts, moe_blocks(loaded.model)
    stride = -(-n_layers * n_experts // _MOST_SHOWN_EXPERTS)
    shown = list(range(0, n_layers, stride))
    step = np.linspace(0, len(text.windows) - 1, min(effort.knockout_windows, len(text.windows)))
    windows = [text.windows[at] for at in np.unique(step.astype(int))] if effort.knockout_windows else []
    without = knockouts(loaded, windows, shown) if windows else {}
    measured = bits_by_grouping(groupings, observed.ids_LNK, n_experts)
    enough = len(text.ids_N) >= ENOUGH_TOKENS
    structures = against_shuffles(
        measured, _shuffled(loaded, text, groupings, effort.shuffles if enough else 0)
    )
    layers = []
    for layer in shown:
        ids_NK = observed.ids_LNK[layer].astype(np.int64)
        load_E = np.bincount(ids_NK.ravel(), minlength=n_experts) / ids_NK.size
        first_E = np.bincount(ids_NK[:, 0], minlength=n_experts) / len(ids_NK)
        typical = typical_tokens(text, pieces, ids_NK, observed.weights_LNK[layer], n_experts)
        found = any(one.found for one in structures[layer].values())
        collapsed = is_collapsed(load_E, n_chosen)
        layers.append(
            Layer(
                layer=blocks[layer],
                effective_experts=effective_experts(load_E),
                entropy=float(observed.entropy_L[layer]),
                state=_state(collapsed, found, enough and effort.shuffles >= FEWEST_SHUFFLES),
                experts=[
                    Expert(float(load_E[e]), float(first_E[e]), typical[e], without.get((layer, e)))
                    for e in range(n_experts)
                ],
                shares={
                    grouping.name: _rows(counts(category_N, ids_NK, len(grouping.categories_C), n_experts))
                    for grouping, category_N in groupings
                },
                structure=structures[layer],
                pairs=_pairs(ids_NK, n_experts),
            )
        )
    return RoutingFigures(
        checkpoint=loaded.folder.as_posix(),
        name=f"{loaded.folder.resolve().parent.name}/{loaded.folder.resolve().name}",
        step=_step(loaded.folder),
        n_experts=n_experts,
        experts_per_token=n_chosen,
        text=TextFacts(
            text.where, len(text.ids_N), text.documents, len(text.windows), float(observed.loss_N.mean())
        ),
        groupings=[grouping for grouping, _ in groupings],
        layers=layers,
        layers_in_all=n_layers,
        flow=_flow(text, observed, shown, blocks),
        changes=[],
        shown=_shown_text(*shown_text, shown, pieces),
        structure_found=any(layer.state == "structure" for layer in layers),
        collapsed_layers=[layer.layer for layer in layers if layer.state == "collapsed"],
        verdict=[],
        knockout_windows=len(windows) if without else 0,
    )


def _state(collapsed: bool, found: bool, compared: bool) -> str:
    if collapsed:
        return "collapsed"
    return "structure" if found else "no structure" if compared else "unknown"


def _shuffled(
    loaded: LoadedModel, text: Text, groupings: list[Grouped], shuffles: int
) -> list[dict[str, np.ndarray]]:
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for _ in range(shuffles):
        shuffle_weights(loaded.model, generator)
        observed = observe(loaded, text)
        found.append(bits_by_grouping(groupings, observed.ids_LNK, observed.n_experts))
    return found


def _rows(table_CE: np.ndarray) -> list[list[float]]:
    """Each row as shares of its sum."""
    rows: list[list[float]] = (table_CE / np.maximum(table_CE.sum(1, keepdims=True), 1)).round(4).tolist()
    return rows


def _pairs(ids_NK: np.ndarray, n_experts: int) -> list[list[float | None]] | None:
    if ids_NK.shape[1] < 2 or n_experts > MOST_MATRIX:
        return None
    lift_EE = pair_lift(ids_NK, n_experts)
    return [[round(value, 3) if np.isfinite(value) else None for value in row] for row in lift_EE.tolist()]


def _flow(text: Text, observed: Observed, shown: Sequence[int], blocks: Sequence[int]) -> list[Flow]:
    """Between neighbouring layers, as far as both are shown."""
    draw, n_experts = np.random.default_rng(SEED), observed.n_experts
    other_N = other_occurrence(text.ids_N, draw)
    repeated = other_N >= 0
    found = []
    for layer in shown:
        if layer + 1 not in shown:
            continue
        first_N = observed.ids_LNK[layer, :, 0].astype(np.int64)
        next_N = observed.ids_LNK[layer + 1, :, 0].astype(np.int64)
        tables = (
            flow_table(first_N, next_N, n_experts),
            flow_table(first_N[repeated], next_N[other_N[repeated]], n_experts),
            flow_table(first_N, draw.permutation(next_N), n_experts),
        )
        own, same_token, shuffled = (mutual_information(table) for table in tables)
        shares = _rows(tables[0]) if n_experts <= MOST_MATRIX else None
        found.append(Flow(blocks[layer], blocks[layer + 1], own, same_token, shuffled, shares))
    return found


def _changes(
    earlier: Sequence[Path | str], last: LoadedModel, text: Text, observed: Observed, accelerator: str
) -> list[Change]:
    """From each checkpoint to the next one."""
    found = []
    before: tuple[LoadedModel, Observed] | None = None
    for folder in [*earlier, None]:
        if folder is None:
            now = (last, observed)
        else:
            loaded = _load(folder, accelerator)
            if vars(loaded.model.config) | {"name": ""} != vars(last.model.config) | {"name": ""}:
                raise CheckpointError(f"{loaded.folder}: of another model than {last.folder}; name one run's")
            now = (loaded, observe(loaded, text))
        if before is not None:
            found.append(_change(*before, *now))
        before = now
    return found


def _change(one: LoadedModel, was: Observed, other: LoadedModel, now: Observed) -> Change:
    first_LN, next_LN = was.ids_LNK[:, :, 0], now.ids_LNK[:, :, 0]
    by_chance = []
    for first_N, next_N in zip(first_LN, next_LN, strict=True):
        loads = [np.bincount(ids_N, minlength=was.n_experts) / len(ids_N) for ids_N in (first_N, next_N)]
        by_chance.append(1 - float(loads[0] @ loads[1]))
    return Change(
        _step(one.folder),
        _step(other.folder),
        one.folder.name,
        other.folder.name,
        (first_LN != next_LN).mean(1).round(4).tolist(),
        [round(value, 4) for value in by_chance],
    )


def _shown_text(text: Text, observed: Observed, shown: Sequence[int], pieces: Pieces) -> ShownText:
    """The start of the text, and of a text with several sources the start of each."""
    n_chosen = observed.ids_LNK.shape[2]
    most = max(64, _MOST_SHOWN_CHOICES // (len(shown) * n_chosen))
    at = _spread(text, most)
    layers = list(shown)
    return ShownText(
        pieces_T=[pieces(int(token)) for token in text.ids_N[at]],
        loss_T=observed.loss_N[at].round(2).tolist(),
        experts_LKT=observed.ids_LNK[layers][:, at].transpose(0, 2, 1).tolist(),
        weights_LKT=observed.weights_LNK[layers][:, at].transpose(0, 2, 1).astype(float).round(2).tolist(),
        starts=[0, *(int(i) for i in np.flatnonzero(np.diff(text.document_N[at])) + 1)],
        sources=_sources_at(text, at),
    )


def _spread(text: Text, most: int) -> np.ndarray:
    """Tokens to show: as many of the first document of each source, else from the start."""
    if not text.sources:
        return np.arange(min(most, len(text.ids_N)))
    each = max(32, most // len(text.sources))
    parts = [np.flatnonzero(text.source_N == number)[:each] for number in range(len(text.sources))]
    return np.concatenate(parts)[:most]


def _sources_at(text: Text, at: np.ndarray) -> list[str]:
    """The source of each stretch that is shown, in the order of their starts; empty where the text has none."""
    starts = [0, *(np.flatnonzero(np.diff(text.document_N[at])) + 1)]
    if not text.sources:
        return ["" for _ in starts]
    return [
        text.sources[text.source_N[at[start]]] if text.source_N[at[start]] >= 0 else "" for start in starts
    ]


def _step(folder: Path) -> int | None:
    """The step of a checkpoint; None for one that LitGPT wrote, or that was imported."""
    try:
        step = json.loads((folder / checkpoint.MANIFEST).read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return int(step) or None if isinstance(step, int) else None

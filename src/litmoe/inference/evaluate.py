"""The loss of a trained model on a whole text, in units that can be compared.

Shape suffixes: B windows, T tokens, D model width, L layers, E experts.
"""

import json
import math
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from litmoe.config import EvaluateConfig
from litmoe.data.reading.listing import has_text
from litmoe.data.token_store import TokenStore, ensure_store, ensure_stores
from litmoe.errors import CheckpointError, ConfigError, DataError
from litmoe.files import write_text
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.messages import Say, silent
from litmoe.model.loss import token_losses
from litmoe.progress_bar import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text."""

    checkpoint: str
    data: str
    loss: float
    """Mean over all tokens, nats per token."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """All bits over all UTF-8 bytes of the documents, end tokens paid for: does not depend on the tokenizer."""
    tokens: int
    documents: int
    bytes: int
    max_seq_length: int
    expert_load: list[list[float]]
    """Share of the assignments per MoE layer and expert; each row sums to 1."""


def evaluate(config: EvaluateConfig, loaded: LoadedModel | None = None, say: Say = silent) -> Evaluation:
    """Measure a model on every token of a text: the same windows every time, the last short one included.

    Windows do not overlap. The first token of the text is predicted from an end-of-text token before it, so that
    every byte is paid for exactly once.

    Args:
        config: what to measure.
        loaded: a model that is already loaded, instead of ``config.checkpoint``.
        say: told which checkpoints are skipped, and what of the text is tokenized or left out.

    Raises:
        ConfigError: settings out of range.
        CheckpointError: no checkpoint, or one that cannot be used.
        DataError: no text, or text that cannot be read.
    """
    if config.batch_size <= 0:
        raise ConfigError(f"--batch-size must be greater than 0, got {config.batch_size}")
    if config.json is not None and not config.json.parent.is_dir():
        raise ConfigError(f"--json {config.json}: cannot be written: there is no folder {config.json.parent}")
    loaded = loaded or load_checkpoint(config.checkpoint, config.accelerator, say)
    length = _trained_length(loaded) if config.max_seq_length is None else config.max_seq_length
    block_size = loaded.model.config.block_size
    if not 0 < length <= block_size:
        raise ConfigError(
            f"--max-seq-length must be from 1 to the model's block_size {block_size}, got {length}"
        )
    with ExitStack() as temporary:
        data, store = _find_text(config, loaded, temporary, say)
        evaluation = _measure(loaded, store, data, length, config)
        del store  # Windows cannot remove a folder with a mapped file in it
    if config.json is not None:
        write_text(
            config.json, json.dumps(asdict(evaluation), indent=1) + "\n", "give another file with --json"
        )
    return evaluation


def table(evaluation: Evaluation) -> str:
    """The figures as lines for people."""
    lines = [
        f"checkpoint     {evaluation.checkpoint}",
        f"text           {evaluation.data}: {evaluation.documents:,} documents, {evaluation.tokens:,} tokens, "
        f"{evaluation.bytes:,} bytes, windows of {evaluation.max_seq_length}",
        f"loss           {evaluation.loss:.4f} nats per token",
        f"perplexity     {evaluation.perplexity:.3f}",
        f"bits per byte  {evaluation.bits_per_byte:.4f}",
    ]
    for layer, load_E in enumerate(evaluation.expert_load):
        lines.append(f"load, layer {layer:<2} " + " ".join(f"{share:.3f}" for share in load_E))
    return "\n".join(lines)


@torch.no_grad()
def _measure(
    loaded: LoadedModel, store: TokenStore, data: Path, length: int, config: EvaluateConfig
) -> Evaluation:
    model = loaded.model
    device = model.cos.device
    n_windows = math.ceil(store.n_tokens / length)
    loss_sum = 0.0
    counts_LE: torch.Tensor | None = None
    per_batch = config.batch_size * length
    starts = range(0, n_windows * length, per_batch)
    for first in progress_bar(starts, desc="evaluate", unit="batch", show=config.progress):
        targets = store.read(first, first + per_batch).astype(np.int64)
        before = store.eos_id if first == 0 else int(store.tokens[first - 1])
        inputs = np.concatenate([[before], targets[:-1]])
        full = len(targets) // length * length
        # Whole windows as one batch; then the rest, which is shorter than one.
        for part in (slice(0, full), slice(full, None)):
            if len(targets[part]) == 0:
                continue
            shape = (-1, min(length, len(targets[part])))
            idx_BT = torch.from_numpy(inputs[part]).view(shape).to(device)
            targets_T = torch.from_numpy(targets[part]).to(device)
            x_BTD, routings = model.hidden(idx_BT)
            losses_T = token_losses(
                x_BTD.flatten(0, 1),
                model.lm_head.weight,
                targets_T,
                bias=model.lm_head.bias,
                softcap=model.config.final_logit_softcapping,
            )
            loss_sum += losses_T.double().sum().item()
            if routings:
                batch_LE = torch.stack([routing.counts_E for routing in routings])
                counts_LE = batch_LE if counts_LE is None else counts_LE + batch_LE
    loss = loss_sum / store.n_tokens
    if not math.isfinite(loss):
        raise CheckpointError(
            f"{loaded.folder}: the loss is not finite: its weights have diverged; use an earlier checkpoint"
        )
    load = [] if counts_LE is None else (counts_LE / counts_LE.sum(dim=1, keepdim=True)).tolist()
    return Evaluation(
        checkpoint=str(loaded.folder),
        data=str(data),
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,  # beyond the largest float
        bits_per_byte=loss_sum / math.log(2) / store.n_bytes,
        tokens=store.n_tokens,
        documents=store.n_documents,
        bytes=store.n_bytes,
        max_seq_length=length,
        expert_load=load,
    )


def _find_text(
    config: EvaluateConfig, loaded: LoadedModel, temporary: ExitStack, say: Say
) -> tuple[Path, TokenStore]:
    """The token store of the text to measure on, made with the model's own tokenizer.

    The run's own validation store is used as it is; for any other text the store is made in a temporary folder,
    so that nothing is left beside the user's text.
    """
    if config.data is None:
        _refuse_reading_options(config)
        section = loaded.settings.get("data")
        init_args = section.get("init_args", {}) if isinstance(section, dict) else {}
        train, val = init_args.get("train_data_path"), init_args.get("val_data_path")
        if not train:
            raise ConfigError(
                f"{loaded.folder} does not say what it was validated on: name a text with --data"
            )
        text = Path(val or train)
        if not Path(train).is_dir():
            raise DataError(f"{train}: the text of the run is not here: name one with --data")
        _, store = ensure_stores(Path(train), text, loaded.folder, say=say, progress=config.progress)
        return text, store
    text = config.data
    if not text.exists():
        raise DataError(f"{text}: no such file or folder: check --data")
    if has_text(text / "val"):  # a prepared data folder
        text = text / "val"
    scratch = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="litmoe-evaluate-")))
    return text, ensure_store(
        text,
        loaded.folder,
        scratch / "evaluation",
        say=say,
        progress=config.progress,
        boundaries=config.document_boundaries,
        text_field=config.text_field,
    )


def _refuse_reading_options(config: EvaluateConfig) -> None:
    defaults = EvaluateConfig()
    for name in ("text_field", "document_boundaries"):
        if getattr(config, name) != getattr(defaults, name):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect without --data")


def _trained_length(loaded: LoadedModel) -> int:
    section = loaded.settings.get("train")
    length = section.get("max_seq_length") if isinstance(section, dict) else None
    return int(length or loaded.model.config.block_size)

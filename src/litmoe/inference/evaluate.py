"""The loss of a trained model on a whole text, in units that can be compared."""

import json
import math
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile

import numpy as np
import torch
from tqdm import tqdm

from litmoe.config import EvaluateConfig
from litmoe.data.token_store import TokenStore, ensure_store, ensure_stores
from litmoe.errors import LitMoEError
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.model.loss import token_losses


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a text."""

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


def evaluate(config: EvaluateConfig, loaded: LoadedModel | None = None) -> Evaluation:
    """Measure a model on every token of a text: the same windows every time, the last short one included.

    Windows do not overlap. The first token of the text is predicted from an end-of-text token before it, so that
    every byte is paid for exactly once.

    Raises:
        LitMoEError: no checkpoint, no text, or settings out of range.
    """
    if config.batch_size <= 0:
        raise LitMoEError(f"--batch_size must be greater than 0, got {config.batch_size}")
    loaded = loaded or load_checkpoint(config.checkpoint, config.accelerator)
    length = config.max_seq_length or _trained_length(loaded)
    block_size = loaded.model.config.block_size
    if not 0 < length <= block_size:
        raise LitMoEError(
            f"--max_seq_length must be from 1 to the model's block_size {block_size}, got {length}"
        )
    with ExitStack() as temporary:
        data, store = _find_text(config.data, loaded, config.progress, temporary)
        evaluation = _measure(loaded, store, data, length, config)
        del store  # Windows cannot remove a folder with a mapped file in it
    print(_table(evaluation))
    if config.json is not None:
        try:
            config.json.write_text(json.dumps(asdict(evaluation), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise LitMoEError(f"{config.json}: cannot be written: {error.strerror}") from error
    return evaluation


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
    for first in tqdm(
        range(0, n_windows * length, per_batch), desc="evaluate", unit="batch", disable=not config.progress
    ):
        targets = np.asarray(store.tokens[first : first + per_batch]).astype(np.int64)
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
    load = [] if counts_LE is None else (counts_LE / counts_LE.sum(dim=1, keepdim=True)).tolist()
    return Evaluation(
        checkpoint=str(loaded.folder),
        data=str(data),
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=loss_sum / math.log(2) / store.n_bytes,
        tokens=store.n_tokens,
        documents=store.n_documents,
        bytes=store.n_bytes,
        max_seq_length=length,
        expert_load=load,
    )


def _find_text(
    data: Path | None, loaded: LoadedModel, progress: bool, temporary: ExitStack
) -> tuple[Path, TokenStore]:
    """The token store of the text to measure on, made with the model's own tokenizer.

    The run's own validation store is used as it is; for any other text the store is made in a temporary folder,
    so that nothing is left in the user's.
    """
    if data is None:
        section = loaded.settings.get("data")
        init_args = section.get("init_args", {}) if isinstance(section, dict) else {}
        train, val = init_args.get("train_data_path"), init_args.get("val_data_path")
        if not train:
            raise LitMoEError(
                f"{loaded.folder} does not say what it was validated on: name a text with --data"
            )
        text = Path(val or train)
        if not Path(train).is_dir():
            raise LitMoEError(f"{train}: the text of the run is not here: name one with --data")
        _, store = ensure_stores(Path(train), text, loaded.folder, say=print, progress=progress)
        return text, store
    if not data.exists():
        raise LitMoEError(f"{data}: no such file or folder")
    scratch = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="litmoe-evaluate-")))
    text = data
    if data.is_file():
        text = scratch / "text"
        text.mkdir()
        copyfile(data, text / "text.txt")
    elif any((data / "val").glob("*.txt")):  # a prepared data folder
        text = data / "val"
    return text if data.is_dir() else data, ensure_store(
        text, loaded.folder, scratch / "evaluation", say=print, progress=progress
    )


def _trained_length(loaded: LoadedModel) -> int:
    section = loaded.settings.get("train")
    length = section.get("max_seq_length") if isinstance(section, dict) else None
    return int(length or loaded.model.config.block_size)


def _table(evaluation: Evaluation) -> str:
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

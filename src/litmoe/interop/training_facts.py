"""The facts of a checkpoint's training, from its settings, its manifest and the run's metrics."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litmoe import checkpoint
from litmoe.config.files import read_yaml
from litmoe.data.reading.formats import read_documents
from litmoe.data.token_store import text_files
from litmoe.errors import LitMoEError

SENTENCE = (
    "Once upon a time there was a little girl who lived near a forest. One day she found a red ball under a tree, "
    "and because nobody had lost it, she gave it to her brother. They played until the sun went down."
)


@dataclass(frozen=True)
class TrainingFacts:
    """What is known; None or empty for what a checkpoint does not say, as those of LitGPT."""

    settings: dict[str, Any]
    """The training configuration."""
    step: int | None
    tokens: int | None
    """Tokens trained on."""
    metrics: dict[str, float]
    """Losses of the checkpoint's step, by the names of ``metrics.csv``."""


def training_facts(folder: Path) -> TrainingFacts:
    """Read the facts of a checkpoint folder.

    Raises:
        LitMoEError: its settings are not readable.
    """
    settings_file, manifest_file = folder / checkpoint.SETTINGS, folder / checkpoint.MANIFEST
    settings = read_yaml(settings_file) if settings_file.is_file() else {}
    step, val_loss = None, None
    if manifest_file.is_file():
        manifest = checkpoint.verify(folder, contents=False)
        step, val_loss = manifest["step"], manifest.get("val_loss")
    row = _metrics_row(folder.parent / "metrics.csv", step)
    if val_loss is not None and not math.isclose(row.get("val_loss", val_loss), val_loss, rel_tol=1e-5):
        row = {}  # of another run: the checkpoint was copied here
    tokens = int(row["total_tokens"]) if "total_tokens" in row else None
    names = ("train_loss", "val_loss", "val_bits_per_byte")
    return TrainingFacts(settings, step or None, tokens, {name: row[name] for name in names if name in row})


def real_text(folder: Path, settings: dict[str, Any], n_bytes: int = 4000) -> tuple[str, str]:
    """The first documents that a model was trained or validated on, and the file that they are in.

    The built-in sentence if that text is not on this machine.
    """
    for key in ("val_data_path", "train_data_path"):
        path = section(settings, "data", "init_args").get(key)
        try:
            file = text_files(Path(path))[0] if path else None
            text = ""
            for piece in read_documents(file) if file is not None else ():
                text += piece.text + "\n"
                if len(text.encode()) >= n_bytes:
                    break
            if text.strip():
                return text.encode()[:n_bytes].decode("utf-8", errors="ignore"), str(file)
        except (LitMoEError, OSError):
            continue
    return SENTENCE, "the built-in text"


def section(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """A section of settings; empty if it is missing, or not a section."""
    found: Any = settings
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _metrics_row(path: Path, step: int | None) -> dict[str, float]:
    """The figures of a step; empty if the run's metrics are not beside the checkpoint."""
    if not step or not path.is_file():
        return {}
    row: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for values in csv.DictReader(file):
            if values.get("step") == str(step):
                for name, value in values.items():
                    try:
                        row[name] = float(value)
                    except (TypeError, ValueError):  # an empty cell, a cell too many
                        continue
    return row

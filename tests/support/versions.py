"""Runs that earlier versions left behind: what is kept of one, and how two results are compared."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import torch

VERSIONS = Path(__file__).resolve().parents[1] / "versions"
EXPECTED = "expected.json"
FIRST, LAST = 4, 8
"""The step of the checkpoint that is kept, and the last step of the run that it came from."""

FIGURES = ("train_loss", "val_loss", "learning_rate", "total_tokens", "grad_norm", "switch_loss", "z_loss")
"""Columns of ``metrics.csv`` that do not depend on the clock."""


def machine() -> dict[str, Any]:
    """What must be equal for results to be equal to the bit."""
    vendor = [line for line in _cpuinfo() if line.startswith("vendor_id")]
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_vendor": vendor[0].split(":")[1].strip() if vendor else "",
        "threads": torch.get_num_threads(),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []


def fingerprints(checkpoint: Path) -> dict[str, str]:
    """SHA-256 over names, types, shapes and bytes of all weights, and of all tensors of the optimizer."""
    weights = torch.load(checkpoint / "lit_model.pth", weights_only=True)
    trainer = torch.load(checkpoint / "trainer_state.pth", weights_only=True)
    return {"weights": _fingerprint(weights), "optimizer": _fingerprint(trainer["optimizer"]["state"])}


def _fingerprint(tensors: Any) -> str:
    hash_ = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])
        elif isinstance(value, torch.Tensor):
            hash_.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            hash_.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())

    add("", tensors)
    return hash_.hexdigest()


def figures(metrics: Path) -> list[dict[str, float | None]]:
    """The rows of a run's ``metrics.csv``, without what depends on the clock."""
    with metrics.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(row[name]) if row[name] else None for name in ("step", *FIGURES)}
            for row in csv.DictReader(file)
        ]

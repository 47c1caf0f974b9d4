"""``run.json``: what a run is, on which machine, and how it ended; for whoever looks at it later.

Written at the start, so that it is there before the first checkpoint, and at the end. Imports no torch by itself.
"""

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from litmoe.config import as_plain
from litmoe.files import write_text
from litmoe.version import __version__

if TYPE_CHECKING:
    from litmoe.training.run import Run

RUN_FILE = "run.json"

_PACKAGES = ("torch", "litgpt", "lightning", "numpy", "tokenizers")
_MOST_PARTS = 100


class RunFile:
    """The ``run.json`` of a folder, kept by the process that trains.

    A resumed run adds a part to those before it; a new run begins the file again.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], first_step: int, resumed: bool) -> None:
        """
        Args:
            folder: the run's.
            facts: what :func:`facts_of` says.
            first_step: steps done before.
            resumed: whether the run goes on from a checkpoint of this folder.

        Raises:
            LitMoEError: the file cannot be written.
        """
        self.path = folder / RUN_FILE
        parts = _parts_before(self.path) if resumed else []
        parts.append({"started": time.time(), "ended": None, "first_step": first_step, "last_step": None})
        process = {"pid": os.getpid(), "process_started": psutil.Process().create_time()}
        self._about = {
            "format": 1,
            "state": "running",
            "message": "",
            **process,
            **facts,
            "parts": parts[-_MOST_PARTS:],
        }
        self._write()

    def end(self, state: str, step: int, message: str = "") -> None:
        """Record the end of this part.

        Args:
            state: ``finished``, ``interrupted`` or ``failed``.
            step: steps done.
            message: why, where that is not plain.

        Raises:
            LitMoEError: the file cannot be written.
        """
        self._about |= {"state": state, "message": message}
        self._about["parts"][-1] |= {"ended": time.time(), "last_step": step}
        self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps(self._about, indent=1, ensure_ascii=False) + "\n")


def facts_of(run: "Run") -> dict[str, Any]:
    """What there is to know of a run before its first step: model, extent, data, machine, versions, settings."""
    from litmoe.model.flops import flops_per_token, num_active_params, num_params

    model, horizon = run.model_config, run.horizon
    tied = model.padded_vocab_size * model.n_embd if run.config.train.tie_embeddings else 0
    shape = ("n_layer", "n_embd", "n_head", "n_expert", "n_expert_per_token", "block_size", "vocab_size")
    return {
        "model": {
            "name": model.name or "unnamed",
            "parameters": num_params(model) - tied,
            "active_parameters": num_active_params(model) - tied,
            "flops_per_token": flops_per_token(model, run.seq_length),
            **{name: getattr(model, name) for name in shape},
        },
        "steps": horizon.steps,
        "tokens_per_step": horizon.tokens_per_step,
        "tokens_per_window": run.seq_length,
        "data": {
            "training_text": str(run.batches.fingerprint),
            "tokenizer": run.identity["tokenizer"],
            "windows": run.batches.n_windows,
            "bytes_per_token": run.batches.bytes_per_token,
            "dataset": run.dataset.artifact if run.dataset is not None else None,
        },
        "precision": str(run.config.precision),
        "hardware": _hardware(run),
        "versions": _versions(),
        "settings": as_plain(run.config),
    }


def is_alive(about: dict[str, Any]) -> bool:
    """Whether the process that last wrote a ``run.json`` is still there, on this machine."""
    try:
        process = psutil.Process(int(about["pid"]))
        return abs(process.create_time() - float(about["process_started"])) < 1 and process.is_running()
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False


def host_memory() -> int:
    """Bytes of memory that this process has in use now."""
    return int(psutil.Process().memory_info().rss)


def _hardware(run: "Run") -> dict[str, Any]:
    import torch

    device = run.fabric.device
    cuda = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "device": cuda.name if cuda else _processor() if device.type == "cpu" else device.type,
        "devices": run.fabric.world_size,
        "device_memory": cuda.total_memory if cuda else None,
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "threads": torch.get_num_threads(),
        "host_memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
    }


def _processor() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"litmoe": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _parts_before(path: Path) -> list[dict[str, Any]]:
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        return [part for part in parts if isinstance(part, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []

"""Tasks of EleutherAI's lm-evaluation-harness on a checkpoint, through its adapter for Transformers."""

import contextlib
import io
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from litmoe.errors import ConfigError, LitMoEError, MissingExtraError
from litmoe.files import check_writable, write_text
from litmoe.inference.loading import find_checkpoint, pick_device
from litmoe.interop.huggingface import export_huggingface
from litmoe.messages import Say, nearest, one_line, silent
from litmoe.progress_bar import watched


def evaluate_tasks(
    folder: Path | None,
    tasks: Sequence[str],
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    accelerator: str = "auto",
    json_file: Path | None = None,
    say: Say = silent,
) -> dict[str, dict[str, float]]:
    """Run tasks on a checkpoint, by way of an export to a temporary folder.

    A prompt starts with the begin token, as in training. Tasks that lm-eval brings fetch their data from the
    Hugging Face hub; a task's own YAML file may name local data.

    Args:
        folder: the checkpoint; None: the newest valid one below ``checkpoints``.
        tasks: names that lm-eval knows, or YAML files that define a task.
        num_fewshot: examples before each question; None: as the task says.
        limit: at most so many questions per task.
        batch_size: questions at once.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        json_file: also write the results there, null for what is no number.
        say: gets one line per event.

    Returns:
        Metrics by task.

    Raises:
        MissingExtraError: lm-eval is not installed.
        LitMoEError: no such task, no data for it, a model that cannot be exported, a file that cannot be written.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError(
            f'lm-eval is not installed ({one_line(error)}): pip install "litmoe[eval]" '
            "(in a checkout: uv sync --extra eval)"
        ) from error
    if json_file is not None:
        check_writable(json_file)
    # which tasks there are: reading the thousands that lm-eval brings takes many seconds
    files = [Path(task) for task in tasks if task.endswith((".yaml", ".yml"))]
    names = [_task_name(Path(task)) if Path(task) in files else task for task in tasks]
    folders = [str(file.parent) for file in files]
    manager = TaskManager(include_path=folders, include_defaults=len(files) < len(tasks))
    for name in names:
        if name not in manager.all_tasks:
            known = manager.all_tasks
            raise ConfigError(
                f"--tasks {name}: lm-eval knows no such task{nearest(name, known, otherwise='')}"
            )

    device = pick_device(accelerator)
    folder = find_checkpoint(folder, say)
    with tempfile.TemporaryDirectory(prefix="litmoe-lm-eval-") as scratch:
        export_huggingface(folder, Path(scratch, "model"), say)
        # The model keeps the dtype of its weights; the tokenizer's begin token is the one it was trained with.
        try:
            with _bars_on_terminals_only():
                model = HFLM(
                    pretrained=str(Path(scratch, "model")),
                    device=str(device),
                    batch_size=batch_size,
                    add_bos_token=True,
                )
                found = simple_evaluate(
                    model=model,
                    tasks=names,
                    num_fewshot=num_fewshot,
                    limit=limit,
                    task_manager=manager,
                    log_samples=False,
                )
        except Exception as error:  # lm-eval and datasets raise anything
            reason = one_line(error)[:200] or type(error).__name__
            raise LitMoEError(f"lm-eval: {', '.join(names)}: {reason}") from error
        del model  # Windows cannot remove a folder with a mapped file in it
    assert found is not None  # only other processes of a distributed run get nothing
    results = {name: _figures(figures) for name, figures in found["results"].items()}
    for name, figures in results.items():
        say("\n".join(f"{name}  {metric:<16} {value:.4f}" for metric, value in figures.items()))
    if json_file is not None:
        finite = {
            name: {metric: value if math.isfinite(value) else None for metric, value in figures.items()}
            for name, figures in results.items()
        }
        write_text(json_file, json.dumps(finite, indent=1, allow_nan=False) + "\n")
    return results


def _figures(figures: dict[str, Any]) -> dict[str, float]:
    """The numbers of a task, without the ``,none`` of a task that has no filter."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in figures.items()
        if isinstance(value, int | float)
    }


def _task_name(file: Path) -> str:
    """The name that a task's YAML file gives it. Read as text: lm-eval's YAML may hold tags that name code.

    Raises:
        ConfigError: no such file, or it names no task.
    """
    try:
        found = re.search(r"^task:\s*[\"']?([^\s\"']+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--tasks {file}: cannot be read: {one_line(error)}") from error
    if found is None:
        raise ConfigError(f"--tasks {file}: no `task: NAME` in it")
    return found[1]


@contextlib.contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Keep the progress bars of lm-eval and Transformers out of files and pipes; all else passes."""
    if watched():
        yield
        return
    with contextlib.redirect_stderr(_WithoutBars(sys.stderr)):
        yield


class _WithoutBars(io.TextIOBase):
    """A stream without what begins with a carriage return, as every state of a progress bar does."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not text.startswith("\r") and self._stream is not None:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

"""Instants of a run that a test makes long, or lets fail, in a process of its own.

What happens at such an instant is not replaced: the wrapped function still does its work. The names are those of
``POINTS``; ``data@3=5`` makes the third call last five seconds more, ``data=5`` every call.
"""

import importlib
import os
import signal
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from litmoe.errors import LitMoEError

POINTS = {
    "setup": ("litmoe.training.setup", "connect_batches"),
    "step": ("litmoe.training.loop", "update"),
    "validate": ("litmoe.training.loop", "validate"),
    "sample": ("litmoe.training.loop", "sample_texts"),
    "save": ("litmoe.checkpoint", "save"),
    "metrics": ("litmoe.training.recording.recorder.Recorder", "row"),
    "data": ("litmoe.training.batches", "_to_device"),
}


def install(slow: str, fail: str) -> None:
    """Wrap the points that are named.

    Args:
        slow: ``name=seconds`` or ``name@call=seconds``, with commas between several.
        fail: ``name=kind`` or ``name@call=kind``: ``error`` (a LitMoEError), ``bug`` (a KeyError),
            ``kill``, ``kill-once`` (not after a restart).
    """
    for text in filter(None, slow.split(",")):
        _wrap(text, lambda value: time.sleep(float(value)))
    for text in filter(None, fail.split(",")):
        _wrap(text, _fail)


def count_collectives(path: Path) -> None:
    """Append the name of every collective that Python code starts to a file."""
    import torch.distributed as dist

    for name in (
        "all_reduce",
        "barrier",
        "broadcast",
        "all_gather",
        "all_gather_object",
        "broadcast_object_list",
    ):
        function = getattr(dist, name)

        @wraps(function)
        def counted(
            *args: Any, _function: Callable[..., Any] = function, _name: str = name, **kwargs: Any
        ) -> Any:
            with path.open("a") as file:
                file.write(f"{_name}\n")
            return _function(*args, **kwargs)

        setattr(dist, name, counted)


def _fail(kind: str) -> None:
    if kind == "kill-once":  # in the first life of a process that its launcher starts again
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            return
        kind = "kill"
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise KeyError("bug") if kind == "bug" else LitMoEError("a test made this fail")


def _wrap(text: str, act: Callable[[str], None]) -> None:
    name, _, value = text.partition("=")
    name, _, call = name.partition("@")
    owner_name, attribute = POINTS[name]
    owner = _find(owner_name)
    function, calls = getattr(owner, attribute), [0]

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if not call or calls[0] == int(call):
            with Path(f"at-{name}").open("a") as file:  # so that the test knows when
                file.write(f"{os.getpid()}\n")
            act(value)
        return function(*args, **kwargs)

    setattr(owner, attribute, wrapped)


def _find(name: str) -> Any:
    """A module, or a class in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)

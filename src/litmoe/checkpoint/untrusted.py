"""The weights in a file of ``torch.save``, whatever else it holds, without running any of it.

LitGPT's training puts its optimizer into ``lit_model.pth`` beside the weights, and its data loader too, which with
many data modules is a pickled Python object. Unpickling that would run whatever the file says. Here it is skipped,
and only tensors and dictionaries are built.
"""

import collections
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litmoe.checkpoint.layout import unreadable
from litmoe.errors import CheckpointError
from litmoe.messages import one_line

_COMPILED = "_orig_mod."
_BUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file, memory-mapped, under the names of a model that was not compiled.

    Of what the file names, only the functions that build tensors and dictionaries are called.

    Raises:
        CheckpointError: missing, damaged, or without weights.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: not a checkpoint, it has no {path.name}") from None
    except OSError as error:
        raise unreadable(path, error) from error
    except pickle.UnpicklingError:
        state = _load_tensors_only(path)
    except Exception as error:  # torch raises a dozen kinds for a file that is not what it says it is
        raise CheckpointError(f"{path}: damaged: {one_line(error)[:200]}") from error
    weights = state.get("model", state) if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: holds no weights of a model")
    return {name.replace(_COMPILED, ""): tensor for name, tensor in weights.items()}


class _Skipped:
    """Stands for an object of any other class: accepts whatever its pickle gives it, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Skipped":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "_Skipped":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _TensorsOnly(pickle.Unpickler):
    """Builds tensors and dictionaries; everything else that a pickle names becomes a :class:`_Skipped`."""

    def find_class(self, module: str, name: str) -> Any:
        found = _BUILDERS.get((module, name))
        if found is None and module == "torch":
            dtype = getattr(torch, name, None)
            found = dtype if isinstance(dtype, torch.dtype) else None
        return _Skipped if found is None else found


def _load_tensors_only(path: Path) -> Any:
    """Read a file of ``torch.save`` without calling what it names.

    Raises:
        CheckpointError: another kind of file, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            is_script = any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
        if is_script:  # torch would run it
            raise CheckpointError(f"{path}: holds a TorchScript program, not weights")
        tensors_only: Any = types.ModuleType("tensors_only")  # torch asks for a module with an Unpickler
        tensors_only.Unpickler = _TensorsOnly
        return torch.load(path, map_location="cpu", weights_only=False, mmap=True, pickle_module=tensors_only)
    except CheckpointError:
        raise
    except Exception as error:  # as above
        raise CheckpointError(f"{path}: damaged or of an unknown kind: {one_line(error)[:200]}") from error

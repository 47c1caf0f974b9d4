"""What LitGPT wrote, as a checkpoint of ours.

Our loaders read most of LitGPT's folders as they are. ``litgpt pretrain`` also puts its data loader into
``lit_model.pth``, and with many data modules that is a pickled Python object. Unpickling it would run whatever the
file says; here it is skipped, and only the tensors are built.
"""

import collections
import pickle
import types
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litmoe import checkpoint
from litmoe.config_files import one_line, read_yaml
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import LitMoEError
from litmoe.model.gpt import GPT
from litmoe.model.specification import load_model_config

IMPORTED = "imported_from"
"""Key of hyperparameters.yaml that says where an imported checkpoint came from."""

_COMPILED = "_orig_mod."
_BUILDERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


def is_litgpt(folder: Path) -> bool:
    """Whether a folder holds a LitGPT checkpoint, ours included."""
    return (folder / checkpoint.MODEL).is_file() and (folder / checkpoint.MODEL_CONFIG).is_file()


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder of LitGPT's or ours, memory-mapped, whatever else its ``lit_model.pth`` holds.

    Nothing that the file names is called, but what builds tensors and dictionaries.

    Raises:
        LitMoEError: missing, damaged, or without weights.
    """
    path = folder / checkpoint.MODEL
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise LitMoEError(f"{folder}: no LitGPT checkpoint, it has no {checkpoint.MODEL}") from None
    except pickle.UnpicklingError:
        state = _load_tensors_only(path)
    except Exception as error:  # torch raises a dozen kinds for a file that is not what it says it is
        raise LitMoEError(f"{path}: damaged: {one_line(error)[:200]}") from error
    weights = state.get("model", state) if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise LitMoEError(f"{path}: holds no weights of a model")
    return {name.replace(_COMPILED, ""): tensor for name, tensor in weights.items()}


def import_litgpt(source: Path, directory: Path, say: Callable[[str], None] = print) -> None:
    """Write LitGPT's checkpoint as one of ours: plain weights, verified by a manifest.

    Args:
        source: the folder of ``litgpt pretrain``, ``litgpt convert_to_litgpt`` and the like.
        directory: the checkpoint folder to write; an earlier import there is replaced.
        say: gets one line per event.

    Raises:
        LitMoEError: the folder is damaged, its weights are not of its configuration, it is no model that ours can
            be, or ``directory`` holds anything but an earlier import.
    """
    refuse_other_than_import(directory)
    config = load_model_config(source / checkpoint.MODEL_CONFIG)
    weights = load_weights(source)
    with torch.device("meta"):
        model = GPT(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = one_line(error)[:200]
        raise LitMoEError(f"{source}: the weights are not of its model_config.yaml: {reason}") from error
    save_import(directory, str(source), source, asdict(config), weights, say)


def save_import(
    directory: Path,
    name: str,
    folder: Path,
    model_config: dict[str, Any],
    weights: dict[str, Tensor],
    say: Callable[[str], None],
) -> None:
    """Write a checkpoint of step 0 from weights and the tokenizer of ``folder``, where there is one.

    Raises:
        LitMoEError: the tokenizer cannot be read, or the checkpoint cannot be written.
    """
    has_tokenizer = (folder / "tokenizer.json").is_file()
    if has_tokenizer:
        load_tokenizer(folder)
    else:
        say(f"{folder} has no tokenizer.json: good to start training from, but not to generate text with")
    contents = checkpoint.Contents(
        step=0,
        model=weights,
        trainer={},
        model_config=model_config,
        settings={IMPORTED: name},
        tokenizer_dir=folder if has_tokenizer else None,
    )
    checkpoint.save(directory, contents)
    count = sum(tensor.numel() for tensor in weights.values())
    say(f"imported {name} to {directory}: {count:,} weights, {next(iter(weights.values())).dtype}")


def refuse_other_than_import(directory: Path) -> None:
    """Raise unless ``directory`` is missing, empty, or an earlier import.

    Raises:
        LitMoEError: it is a file, or a folder with something else in it.
    """
    if directory.exists() and not directory.is_dir():
        raise LitMoEError(f"{directory} is a file: choose another folder")
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    try:
        if IMPORTED in read_yaml(directory / checkpoint.SETTINGS):
            return
    except LitMoEError:
        pass
    raise LitMoEError(f"{directory} holds files that are not an import of litmoe: choose another folder")


class _Skipped:
    """Stands for an object of any other class: takes what its pickle gives it, and does nothing."""

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
    """Builds tensors and dictionaries; everything else a pickle names becomes a :class:`_Skipped`."""

    def find_class(self, module: str, name: str) -> Any:
        found = _BUILDERS.get((module, name))
        if found is None and module == "torch":
            dtype = getattr(torch, name, None)
            found = dtype if isinstance(dtype, torch.dtype) else None
        return _Skipped if found is None else found


def _load_tensors_only(path: Path) -> Any:
    """Read a file of ``torch.save`` without calling what it names.

    Raises:
        LitMoEError: another kind of file, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            is_script = any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
        if is_script:  # torch would run it
            raise LitMoEError(f"{path}: holds a TorchScript program, not weights")
        how: Any = types.ModuleType("tensors_only")
        how.Unpickler = _TensorsOnly
        return torch.load(path, map_location="cpu", weights_only=False, mmap=True, pickle_module=how)
    except LitMoEError:
        raise
    except Exception as error:  # as above
        raise LitMoEError(f"{path}: damaged or of an unknown kind: {one_line(error)[:200]}") from error

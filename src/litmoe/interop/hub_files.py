"""The files of a Hugging Face model folder: weights as safetensors with an index, and JSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from litmoe.errors import CheckpointError
from litmoe.files import reason_of
from litmoe.messages import one_line

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def write_shards(folder: Path, weights: Mapping[str, Tensor], shard_bytes: int) -> list[str]:
    """Write the weights as safetensors, with an index if they are several files.

    Args:
        folder: where to.
        weights: by their names in the files; may share memory.
        shard_bytes: largest size of a file.

    Returns:
        The names of the files.

    Raises:
        OSError: the disk refuses.
    """
    shards = split_torch_state_dict_into_shards(dict(weights), max_shard_size=shard_bytes)
    for name, keys in shards.filename_to_tensors.items():
        # Queries, keys and values are views of one matrix; in a file each stands for itself.
        shard = {key: weights[key].contiguous().clone() for key in keys}
        save_file(shard, folder / name, metadata={"format": "pt"})
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        write_json(folder / INDEX, index)
    return list(shards.filename_to_tensors)


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder's safetensors, by the names in the files.

    Raises:
        CheckpointError: there are none, one is missing or damaged, or the index points out of the folder.
    """
    weights: dict[str, Tensor] = {}
    for name in _shard_names(folder):
        with _opened(folder / name) as file:
            weights |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    return weights


def check_shards(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Read back what `write_shards` wrote, tensor by tensor, and compare it to the bit.

    Raises:
        CheckpointError: the files do not hold these weights.
    """
    missing = set(weights)
    for name in _shard_names(folder):
        with _opened(folder / name) as file:
            for key in file.keys():  # noqa: SIM118
                if key not in missing or not _same_bits(file.get_tensor(key), weights[key]):
                    raise CheckpointError(f"{folder / name}: the weight {key} is not what was written")
                missing.remove(key)
    if missing:
        raise CheckpointError(f"{folder}: the weight {min(missing)} was not written")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file by JSON's own rules: NaN and infinity are refused.

    Raises:
        OSError: the disk refuses.
        CheckpointError: a number that JSON does not have.
    """
    try:
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    path.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable JSON: {one_line(error)[:200]}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return values


def _shard_names(folder: Path) -> list[str]:
    """The safetensors of a folder: one, or those of its index.

    Raises:
        CheckpointError: there are none, one is missing, or the index is damaged or points out of the folder.
    """
    names = [SINGLE]
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(n, str) for n in weight_map.values()):
            raise CheckpointError(f"{folder / INDEX}: damaged, it has no weight_map")
        names = sorted(set(weight_map.values()))
    elif not (folder / SINGLE).is_file():
        raise CheckpointError(
            f"{folder} has no {SINGLE} and no {INDEX}: only safetensors are read, pickled weights can run code"
        )
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{folder}: the file {name} of {INDEX} is missing")
    return names


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged: {one_line(error)}") from error


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same, NaN included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(*(t.contiguous().flatten().view(torch.uint8) for t in (a, b)))

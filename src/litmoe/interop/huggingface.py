"""Hugging Face both ways: a checkpoint as a Mixtral folder for Transformers, and such a folder as a checkpoint."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from litgpt import Config, Tokenizer
from safetensors.torch import save_file
from torch import Tensor

from litmoe import checkpoint
from litmoe.checkpoint.hf_config import OURS, to_mixtral_config
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import LitMoEError
from litmoe.files import only_one_process, whole_folder
from litmoe.inference.loading import find_checkpoint
from litmoe.interop.litgpt import refuse_other_than_import, save_import
from litmoe.interop.mixtral import (
    CONFIG,
    from_mixtral_config,
    from_mixtral_weights,
    refuse_other_than_mixtral,
    to_mixtral_weights,
)
from litmoe.interop.model_card import model_card
from litmoe.interop.training_facts import TrainingFacts, real_text, training_facts
from litmoe.messages import one_line
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT

Say = Callable[[str], None]

CARD = "README.md"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 2 * 10**9
TOLERANCE = 1e-5
"""Largest difference of logits in fp32, relative to the largest logit."""

_TOKENIZER_FILES = checkpoint.TOKENIZER_FILES


def export_huggingface(
    folder: Path, directory: Path, say: Say = print, shard_bytes: int = SHARD_BYTES
) -> float | None:
    """Write a checkpoint as a folder that Transformers loads as a Mixtral.

    The folder appears whole or not at all, after its logits were compared with ours in fp32; an older export
    of that name is replaced, any other folder is left alone.

    Args:
        folder: the checkpoint, or the output folder of a run.
        directory: the folder to write.
        say: gets one line per event.
        shard_bytes: largest size of a safetensors file.

    Returns:
        The largest difference of the logits, relative to the largest logit; None without Transformers.

    Raises:
        LitMoEError: no valid checkpoint, a model that Mixtral cannot express (with the fields that stand in the
            way), a folder that is not ours to replace, or logits that differ.
    """
    folder = find_checkpoint(folder, say)
    config = load_model_config(folder / checkpoint.MODEL_CONFIG)
    refuse_other_than_mixtral(config, str(folder), "Hugging Face")
    tokenizer = load_tokenizer(folder)
    facts = training_facts(folder)
    weights = checkpoint.load_model(folder)
    tied = torch.equal(weights["transformer.wte.weight"], weights["lm_head.weight"])
    renamed = to_mixtral_weights(config, weights, tied)
    _refuse_other_than_export(directory)
    with only_one_process(directory, say):
        own = {entry.name for entry in directory.iterdir()} if directory.is_dir() else ()
        with whole_folder(directory, own, "export") as building:
            files = _write_shards(building, renamed, shard_bytes)
            values = to_mixtral_config(config, weights["transformer.wte.weight"].dtype, tied)
            values |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
            _write_json(building / CONFIG, values)
            _copy_tokenizer(folder, building)
            _write_json(building / "generation_config.json", _generation(tokenizer))
            (building / CARD).write_text(model_card(config, facts, tied), encoding="utf-8", newline="\n")
            difference = _check_logits(folder, config, weights, tokenizer, building, facts, say)
    size = sum((directory / name).stat().st_size for name in files)
    say(f"exported {folder} to {directory}: {len(files)} safetensors file(s), {size / 1e6:,.1f} MB")
    return difference


def import_huggingface(source: str | Path, directory: Path, say: Say = print) -> None:
    """Write a Mixtral folder, or a Mixtral on the hub, as a checkpoint of ours, with the very same weights.

    Only safetensors and JSON are read; nothing is unpickled, and no code of the source is run.

    Args:
        source: a folder, or a hub id such as ``owner/name``.
        directory: the checkpoint folder to write; an earlier import there is replaced.
        say: gets one line per event.

    Raises:
        LitMoEError: there is no such source, it is no Mixtral that our model can be, a file is damaged, or
            ``directory`` holds anything but an earlier import.
    """
    refuse_other_than_import(directory)
    found = _source_folder(str(source), say)
    values = _read_json(found / CONFIG)
    config = from_mixtral_config(values, str(found / CONFIG))
    tied = bool(values.get("tie_word_embeddings"))
    weights = from_mixtral_weights(config, _read_shards(found), tied, str(found))
    save_import(directory, str(source), found, config, weights, say)


def _refuse_other_than_export(directory: Path) -> None:
    if directory.is_dir():
        if any(directory.iterdir()) and not _is_export(directory):
            raise LitMoEError(
                f"{directory} holds files that are not an export of litmoe: choose another folder"
            )
    elif directory.exists():
        raise LitMoEError(f"{directory} is a file: choose another folder")


def _is_export(directory: Path) -> bool:
    """Whether a folder holds an export of ours, and nothing else."""
    fixed = {CONFIG, CARD, INDEX, *_TOKENIZER_FILES}
    others = (p for p in directory.iterdir() if p.name not in fixed and p.suffix != ".safetensors")
    try:
        return OURS in _read_json(directory / CONFIG) and not any(others)
    except LitMoEError:
        return False


def _write_shards(building: Path, weights: Mapping[str, Tensor], shard_bytes: int) -> list[str]:
    """Write the weights as safetensors, with an index where they are several; returns the files' names."""
    plan = split_torch_state_dict_into_shards(dict(weights), max_shard_size=shard_bytes)
    for name, keys in plan.filename_to_tensors.items():
        # Queries, keys and values are views of one matrix of ours: a file needs each for itself.
        shard = {key: weights[key].contiguous().clone() for key in keys}
        save_file(shard, building / name, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        _write_json(building / INDEX, index)
    return list(plan.filename_to_tensors)


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder's safetensors.

    Raises:
        LitMoEError: there are none, one is missing or damaged, or the index points out of the folder.
    """
    names = [SINGLE]
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(n, str) for n in weight_map.values()):
            raise LitMoEError(f"{folder / INDEX}: damaged, it has no weight_map")
        names = sorted(set(weight_map.values()))
    elif not (folder / SINGLE).is_file():
        raise LitMoEError(
            f"{folder} has no {SINGLE} and no {INDEX}: only safetensors are read, pickled weights can run code"
        )
    weights: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise LitMoEError(f"{folder}: the file {name} of {INDEX} is missing")
        try:
            with safetensors.safe_open(folder / name, framework="pt") as file:
                weights |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except (safetensors.SafetensorError, OSError) as error:
            raise LitMoEError(f"{folder / name}: damaged: {one_line(error)}") from error
    return weights


def _source_folder(source: str, say: Say) -> Path:
    """A local folder as it is; else a hub repository, its safetensors and JSON only.

    Raises:
        LitMoEError: there is neither.
    """
    if Path(source).is_dir():
        if not (Path(source) / CONFIG).is_file():
            raise LitMoEError(f"{source} has no {CONFIG}: not a Hugging Face model folder")
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/")):
        raise LitMoEError(f"{source}: no such folder, and not a hub id such as owner/name")
    say(f"fetching {source} from the Hugging Face hub")
    try:
        patterns = [CONFIG, "*.safetensors", INDEX, *_TOKENIZER_FILES]
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:  # requests, httpx, hub and OS errors share no base class
        reason = one_line(error)[:200] or type(error).__name__
        raise LitMoEError(
            f"{source}: no such folder, and it cannot be fetched from the Hugging Face hub: {reason}"
        ) from error


def _copy_tokenizer(folder: Path, building: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, building / name)


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """Sampling as ``litmoe generate`` does by default; padding needs a token, and the end is the one there is."""
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.eos_id,
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 50,
    }


@torch.no_grad()
def _check_logits(
    folder: Path,
    config: Config,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    export: Path,
    facts: TrainingFacts,
    say: Say,
) -> float | None:
    """Compare our logits in fp32 with those of Transformers' model from the exported files.

    Raises:
        LitMoEError: weights are missing or left over, or the logits differ by more than ``TOLERANCE``.
    """
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        say("not compared with Transformers, which is not installed: pip install transformers")
        return None
    text, where = real_text(folder, facts.settings)
    idx_BT = tokenizer.encode(text)[None, : min(config.block_size, 512)].long()
    model = GPT(config)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    ours = model.eval()(idx_BT)
    del model  # of a large model, one at a time
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            export, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    theirs_model, info = loaded
    if any(info.values()):
        raise LitMoEError(
            f"{folder}: Transformers does not take the export's weights: {one_line(info)[:300]}"
        )
    theirs = theirs_model.eval()(idx_BT).logits
    difference = ((ours - theirs).abs().max() / ours.abs().max()).item()
    say(
        f"compared with Transformers on {idx_BT.numel()} tokens of {where}: "
        f"largest difference of logits {difference:.1e} of the largest logit"
    )
    if not difference <= TOLERANCE:
        raise LitMoEError(
            f"{folder}: the export's logits differ from ours by {difference:.1e}, more than {TOLERANCE:.0e}: "
            "nothing was written; please report this model_config.yaml"
        )
    return difference


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        LitMoEError: missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LitMoEError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise LitMoEError(f"{path}: not readable JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise LitMoEError(f"{path}: expected a JSON object")
    return values

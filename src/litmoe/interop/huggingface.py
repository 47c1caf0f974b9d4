"""Hugging Face both ways: a checkpoint as a Mixtral folder for Transformers, and such a folder as a checkpoint."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from litgpt import Config, Tokenizer
from torch import Tensor

from litmoe import checkpoint
from litmoe.checkpoint.hf_config import OURS, to_mixtral_config
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import CheckpointError, LitMoEError
from litmoe.files import only_one_process, whole_folder
from litmoe.inference.loading import find_checkpoint
from litmoe.interop.hub_files import INDEX, check_shards, read_json, read_shards, write_json, write_shards
from litmoe.interop.litgpt import refuse_other_than_import, save_import
from litmoe.interop.mixtral import (
    CONFIG,
    balance_settings,
    from_mixtral_config,
    from_mixtral_weights,
    refuse_other_than_mixtral,
    to_mixtral_weights,
)
from litmoe.interop.model_card import model_card
from litmoe.interop.training_facts import TrainingFacts, real_text, training_facts
from litmoe.messages import Say, one_line, readable, silent
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT
from litmoe.progress_bar import WatchedBar

CARD = "README.md"
SHARD_BYTES = 2 * 10**9
TOLERANCE = 1e-5
"""Largest difference of logits in fp32, relative to the largest logit."""

_TOKENIZER_FILES = checkpoint.TOKENIZER_FILES


def export_huggingface(
    folder: Path, directory: Path, say: Say = silent, shard_bytes: int = SHARD_BYTES
) -> float | None:
    """Write a checkpoint as a folder that Transformers loads as a Mixtral.

    The folder appears whole or not at all, after its files were read back and its logits compared with litmoe's in
    fp32. An older export of that name is replaced; any other folder is left alone.

    Args:
        folder: the checkpoint, or the output folder of a run.
        directory: the folder to write.
        say: gets one line per event.
        shard_bytes: largest size of a safetensors file.

    Returns:
        The largest difference of the logits, relative to the largest logit; None without Transformers.

    Raises:
        LitMoEError: no valid checkpoint, a model that Mixtral cannot express (names the fields), a folder that is
            not litmoe's to replace, or an export that is not the same model.
    """
    # what can be refused before any work
    folder = find_checkpoint(folder, say)
    config = load_model_config(folder / checkpoint.MODEL_CONFIG)
    refuse_other_than_mixtral(config, str(folder), "Hugging Face")
    tokenizer = load_tokenizer(folder)
    facts = training_facts(folder)
    _refuse_other_than_export(directory)

    weights = checkpoint.load_model(folder)
    tied = checkpoint.is_tied(weights)
    renamed = to_mixtral_weights(config, weights, tied)
    values = to_mixtral_config(config, weights["transformer.wte.weight"].dtype, tied)
    balance = balance_settings(facts.settings, config)
    values |= balance | {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    with only_one_process(directory, say):
        own = {entry.name for entry in directory.iterdir()} if directory.is_dir() else ()
        with whole_folder(directory, own, "export") as building:
            files = write_shards(building, renamed, shard_bytes)
            write_json(building / CONFIG, values)
            for name in _TOKENIZER_FILES:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, building / name)
            write_json(building / "generation_config.json", _generation(tokenizer))
            card = model_card(config, facts, tied, balance.get("router_aux_loss_coef"))
            (building / CARD).write_text(card, encoding="utf-8", newline="\n")
            _check_files(building, values, renamed, tied)
            difference = _check_logits(folder, config, weights, tokenizer, building, facts, say)
    size = sum((directory / name).stat().st_size for name in files)
    say(f"exported {folder} to {directory}: {len(files)} safetensors file(s), {readable(size)}")
    return difference


def import_huggingface(source: str | Path, directory: Path, say: Say = silent) -> None:
    """Write a Mixtral folder, or a Mixtral on the hub, as a checkpoint of litmoe, with the very same weights.

    Only safetensors and JSON are read; nothing is unpickled, and no code of the source is run.

    Args:
        source: a folder, or a hub id such as ``owner/name``.
        directory: the checkpoint folder to write; an earlier import there is replaced.
        say: gets one line per event.

    Raises:
        LitMoEError: there is no such source, it is no Mixtral that a litmoe model can be, a file is damaged, or
            ``directory`` holds anything but an earlier import.
    """
    refuse_other_than_import(directory)
    found = _source_folder(str(source), say)
    values = read_json(found / CONFIG)
    config = from_mixtral_config(values, str(found / CONFIG))
    tied = bool(values.get("tie_word_embeddings"))
    weights = from_mixtral_weights(config, read_shards(found), tied, str(found))
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
    """Whether a folder holds an export of litmoe's, and nothing else."""
    fixed = {CONFIG, CARD, INDEX, *_TOKENIZER_FILES}
    others = (p for p in directory.iterdir() if p.name not in fixed and p.suffix != ".safetensors")
    try:
        return OURS in read_json(directory / CONFIG) and not any(others)
    except CheckpointError:
        return False


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
        return Path(snapshot_download(source, allow_patterns=patterns, tqdm_class=WatchedBar))
    except Exception as error:  # requests, httpx, hub and OS errors share no base class
        reason = one_line(error)[:200] or type(error).__name__
        raise LitMoEError(
            f"{source}: no such folder, and it cannot be fetched from the Hugging Face hub: {reason}"
        ) from error


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """Sampling as ``litmoe generate`` does by default; for padding, which Transformers wants, the end token."""
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.eos_id,
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 50,
    }


def _check_files(export: Path, values: Mapping[str, Any], weights: Mapping[str, Tensor], tied: bool) -> None:
    """Read the export back by the rules of `import_huggingface`: it must be the same model, to the bit.

    Raises:
        CheckpointError: it is not.
    """
    written = read_json(export / CONFIG)
    config = from_mixtral_config(written, str(export / CONFIG))
    again = to_mixtral_config(config, weights["model.embed_tokens.weight"].dtype, tied)
    if written != values or any(written[name] != value for name, value in again.items()):
        raise CheckpointError(f"{export / CONFIG}: not the model that was written")
    check_shards(export, weights)


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
    """Compare litmoe's logits in fp32 with those of Transformers' model from the exported files.

    Raises:
        LitMoEError: weights are missing or left over, or the logits differ by more than ``TOLERANCE``.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError:
        say("not compared with Transformers, which is not installed: pip install transformers")
        return None
    # litmoe's logits of some real text
    text, where = real_text(folder, facts.settings)
    idx_BT = tokenizer.encode(text)[None, : min(config.block_size, 512)].long()
    model = GPT(config)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    ours = model.eval()(idx_BT)
    del model  # of a large model, one at a time

    # Transformers' logits of the same tokens
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            export, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
        theirs_T = AutoTokenizer.from_pretrained(export, local_files_only=True)(text).input_ids
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
    if theirs_T[: idx_BT.numel()] != idx_BT[0].tolist():
        say("Transformers' tokenizer cuts that text into other tokens than litmoe's does")
    return difference

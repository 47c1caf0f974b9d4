"""A checkpoint as a GGUF file for llama.cpp, which knows a Mixtral as a ``llama`` with experts."""

import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from litgpt import Config
from torch import Tensor

from litmoe import checkpoint
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import CheckpointError, DataError, LitMoEError, MissingExtraError
from litmoe.files import whole_file
from litmoe.inference.loading import find_checkpoint
from litmoe.interop.mixtral import refuse_other_than_mixtral
from litmoe.messages import Say, one_line, readable, silent
from litmoe.model.config import load_model_config

_MAGIC = b"GGUF"

Sums = dict[str, tuple[tuple[int, ...], int]]
"""Shape and checksum of every tensor by its name, as it was given to the writer."""


def export_gguf(folder: Path, file: Path, say: Say = silent) -> None:
    """Write a checkpoint as one GGUF file, with its tokenizer; no weight is rounded.

    The file is read back by llama.cpp's own reader, and compared, before it gets its name.

    Args:
        folder: the checkpoint, or the output folder of a run.
        file: the file to write; an older GGUF file of that name is replaced.
        say: gets one line per event.

    Raises:
        MissingExtraError: the package ``gguf`` is not installed.
        LitMoEError: no valid checkpoint, a model or tokenizer that llama.cpp does not have, or the file cannot be
            written.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(
            'gguf is not installed: pip install "litmoe[gguf]" (in a checkout: uv sync --extra gguf)'
        ) from error
    # what can be refused before any work
    folder = find_checkpoint(folder, say)
    config = load_model_config(folder / checkpoint.MODEL_CONFIG)
    refuse_other_than_mixtral(config, str(folder), "GGUF")
    _refuse_other_file(file)
    tokenizer = load_tokenizer(folder)
    tokens, kinds, merges = _vocabulary(folder, config.padded_vocab_size)

    weights = checkpoint.load_model(folder)
    sums: Sums = {}
    with whole_file(file) as building:
        writer = gguf.GGUFWriter(building, "llama")
        writer.add_name(config.name or "litmoe model")
        _add_sizes(writer, config)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(merges)
        if tokenizer.bos_id is not None:
            writer.add_bos_token_id(tokenizer.bos_id)
        writer.add_eos_token_id(tokenizer.eos_id)
        writer.add_add_bos_token(tokenizer.bos_id is not None)
        for name, tensor in _tensors(config, weights):
            _add_tensor(gguf, writer, name, tensor, sums)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        check_gguf(gguf, building, file, tokens, merges, sums)
    say(f"exported {folder} to {file}: {readable(file.stat().st_size)}")


def check_gguf(
    gguf: Any, building: Path, file: Path, tokens: list[str], merges: list[str], sums: Sums
) -> None:
    """Read a file back: it must hold the tensors and the vocabulary that were given to its writer.

    Raises:
        CheckpointError: it does not.
    """
    try:
        reader = gguf.GGUFReader(building)
        found = {t.name: (tuple(int(n) for n in t.shape), zlib.crc32(t.data.data)) for t in reader.tensors}
        read_tokens = reader.fields["tokenizer.ggml.tokens"].contents()
        read_merges = reader.fields["tokenizer.ggml.merges"].contents() if merges else []
    except Exception as error:  # for a file that is not as it must be, its reader raises anything
        raise CheckpointError(f"{file}: cannot be read back: {one_line(error)[:200]}") from error
    if found != sums:
        wrong = sorted(name for name in found.keys() | sums.keys() if found.get(name) != sums.get(name))
        raise CheckpointError(f"{file}: the tensor {wrong[0]} is not what was written")
    if read_tokens != tokens or read_merges != merges:
        raise CheckpointError(f"{file}: the vocabulary is not what was written")


def _add_sizes(writer: Any, config: Config) -> None:
    writer.add_vocab_size(config.padded_vocab_size)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.moe_intermediate_size or config.intermediate_size)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_query_groups)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(float(config.rope_base))
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_expert_count(config.n_expert)
    writer.add_expert_used_count(config.n_expert_per_token)


def _tensors(config: Config, weights: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The weights by llama.cpp's names: the experts of a layer stacked, queries and keys for its rotation."""
    named = [
        ("token_embd.weight", weights["transformer.wte.weight"]),
        ("output_norm.weight", weights["transformer.ln_f.weight"]),
        ("output.weight", weights["lm_head.weight"]),
    ]
    queries, keys = config.n_head * config.head_size, config.n_query_groups * config.head_size
    for layer in range(config.n_layer):
        ours, theirs = f"transformer.h.{layer}", f"blk.{layer}"
        q, k, v = weights[f"{ours}.attn.qkv.weight"].split((queries, keys, keys))
        named += [
            (f"{theirs}.attn_norm.weight", weights[f"{ours}.norm_1.weight"]),
            (f"{theirs}.attn_q.weight", _rotated_in_pairs(q, config.n_head)),
            (f"{theirs}.attn_k.weight", _rotated_in_pairs(k, config.n_query_groups)),
            (f"{theirs}.attn_v.weight", v),
            (f"{theirs}.attn_output.weight", weights[f"{ours}.attn.proj.weight"]),
            (f"{theirs}.ffn_norm.weight", weights[f"{ours}.norm_2.weight"]),
            (f"{theirs}.ffn_gate_inp.weight", weights[f"{ours}.mlp.gate.weight"].float()),
        ]
        for name, part in (("gate", "fc_1"), ("up", "fc_2"), ("down", "proj")):
            experts = [weights[f"{ours}.mlp.experts.{e}.{part}.weight"] for e in range(config.n_expert)]
            named.append((f"{theirs}.ffn_{name}_exps.weight", torch.stack(experts)))
    return named


def _rotated_in_pairs(weight: Tensor, n_heads: int) -> Tensor:
    """Rows reordered: llama.cpp rotates neighbours (0, 1), (2, 3), litmoe the halves of a head."""
    rows, columns = weight.shape
    return weight.view(n_heads, 2, rows // n_heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def _add_tensor(gguf: Any, writer: Any, name: str, tensor: Tensor, sums: Sums) -> None:
    """Add a tensor in the type that it has, one-dimensional ones in fp32 as llama.cpp wants them."""
    if tensor.dim() == 1 or tensor.dtype == torch.float32:
        data, kind = tensor.float().contiguous().numpy(), None
    elif tensor.dtype == torch.float16:
        data, kind = tensor.contiguous().numpy(), None
    else:
        kind = gguf.GGMLQuantizationType.BF16
        data = gguf.quants.quantize(tensor.float().contiguous().numpy(), kind)
    writer.add_tensor(name, data, raw_dtype=kind)
    sums[name] = (
        tuple(reversed(tensor.shape)),
        zlib.crc32(data.data),
    )  # the file's shapes begin with the columns


def _vocabulary(folder: Path, size: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their kinds and the merges, filled up to the rows of the embedding.

    Raises:
        DataError: not a byte-level BPE that cuts text as GPT-2's, the one kind that is the same in llama.cpp; or
            tokens that llama.cpp refuses.
    """
    from gguf import TokenType

    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model, cut = content["model"], content.get("pre_tokenizer") or {}
    if (
        model.get("type") != "BPE"
        or cut.get("type") != "ByteLevel"
        or cut.get("add_prefix_space")
        or not cut.get("use_regex", True)
        or content.get("normalizer")
        or model.get("ignore_merges")
    ):
        raise DataError(
            f"{folder}: GGUF is written for tokenizers of GPT-2's kind only (byte-level BPE, its word pattern), "
            "such as litmoe prepare trains"
        )
    named = {number: (token, TokenType.NORMAL) for token, number in model["vocab"].items()}
    for added in content.get("added_tokens", []):
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        named[added["id"]] = (added["content"], kind)
    if (largest := max(named, default=-1)) >= size:
        raise DataError(
            f"{folder}: the tokenizer has a token {largest}, the model only {size} rows for tokens"
        )

    # llama.cpp refuses a vocabulary with a gap, or with one name for two tokens
    taken = {token for token, _ in named.values()}
    if len(taken) < len(named):
        (twice, _), *_ = Counter(token for token, _ in named.values()).most_common(1)
        raise DataError(f"{folder}: the tokenizer has two tokens {twice!r}, which llama.cpp refuses")
    for number in range(size):
        if number not in named:
            named[number] = (_padding_name(number, taken), TokenType.UNUSED)
    tokens = [named[number][0] for number in range(size)]
    kinds = [int(named[number][1]) for number in range(size)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return tokens, kinds, merges


def _padding_name(number: int, taken: set[str]) -> str:
    """A name for a row of the embedding that is no token: one that no token has."""
    name = f"[PAD{number}]"
    while name in taken:
        name += "_"
    return name


def _refuse_other_file(file: Path) -> None:
    """Raise unless ``file`` is missing, or a GGUF file already.

    Raises:
        LitMoEError: it is something else.
    """
    if file.is_dir():
        raise LitMoEError(f"{file} is a folder: name a file, such as {file / 'model.gguf'}")
    if file.is_file():
        with file.open("rb") as stream:
            if stream.read(4) != _MAGIC:
                raise LitMoEError(f"{file} is not a GGUF file and is not written over: choose another name")

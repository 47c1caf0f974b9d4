"""Export to GGUF, judged by llama.cpp's Python binding."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litmoe.cli.exchange import EXPORT
from litmoe.cli.main import run
from litmoe.errors import LitMoEError
from litmoe.inference.decode import decode
from litmoe.inference.loading import load_checkpoint
from litmoe.inference.prompts import encode_prompt

pytest.importorskip("gguf", reason="gguf is not installed (extra: gguf)")
from litmoe.interop.gguf import check_gguf, export_gguf

TEXTS = ["Once upon a time", "She found a red ball, didn't she?", " A  b\n\nc 123 naïve 😀!"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_llama_cpp_computes_our_logits(
    make_checkpoint: Callable[..., Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    """Random weights, far from each other's logits: an error in any tensor would show."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    import numpy as np

    folder = make_checkpoint(dtype, head_size=16, rope_base=20000, n_embd=64, norm_eps=1e-4)
    export_gguf(folder, tmp_path / "model.gguf", lambda _: None)
    exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}  # else a cache in fp16
    theirs = llama_cpp.Llama(
        str(tmp_path / "model.gguf"), n_ctx=64, logits_all=True, verbose=False, n_threads=1, **exact
    )
    ours = load_checkpoint(folder, "cpu")
    model = ours.model.float()
    for text in TEXTS:
        ids = theirs.tokenize(text.encode())
        assert ids == ours.tokenizer.encode(text).tolist()
        theirs.reset()
        theirs.eval(ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0].numpy()
        error = np.abs(theirs.scores[: len(ids)] - logits).max() / np.abs(logits).max()
        # llama.cpp rounds activations to the weights' dtype where that is not fp32.
        assert error < (1e-5 if dtype == torch.float32 else 2e-2)


def test_llama_cpp_writes_our_text(trained: Path, tmp_path: Path) -> None:
    """Greedy, token for token."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    file = tmp_path / "model.gguf"
    assert run(EXPORT, [str(trained), "--to", "gguf", str(file)], "litmoe export") == 0
    theirs = llama_cpp.Llama(str(file), n_ctx=64, verbose=False, n_threads=1)
    ours = load_checkpoint(trained, "cpu")
    for prompt in TEXTS[:2]:
        prompt_T = encode_prompt(ours.tokenizer, prompt)
        expected = list(
            decode(ours.model, prompt_T, max_new_tokens=30, end_id=ours.tokenizer.eos_id, temperature=0.0)
        )
        got = theirs.create_completion(prompt, max_tokens=30, temperature=0.0)["choices"][0]["text"]
        assert got == ours.tokenizer.decode(torch.tensor(expected))


def test_what_llama_cpp_does_not_have_is_refused(
    make_checkpoint: Callable[..., Path], tmp_path: Path, trained: Path
) -> None:
    with pytest.raises(LitMoEError, match=r"cannot be exported to GGUF.*rotary_percentage: 0\.5"):
        export_gguf(make_checkpoint(rotary_percentage=0.5), tmp_path / "a.gguf", lambda _: None)
    folder = make_checkpoint()
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "manifest.json").unlink()  # a changed file is no checkpoint of ours any more
    (folder / "tokenizer.json").write_text(text.replace('"use_regex": true', '"use_regex": false'))
    with pytest.raises(LitMoEError, match="GPT-2's kind only"):
        export_gguf(folder, tmp_path / "a.gguf", lambda _: None)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LitMoEError, match="is not a GGUF file"):
        export_gguf(trained, tmp_path / "notes.txt", lambda _: None)
    with pytest.raises(LitMoEError, match="is a folder"):
        export_gguf(trained, tmp_path, lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == {"made", "notes.txt"}


def edit_vocabulary(folder: Path, change: Callable[[dict[str, int]], None]) -> None:
    """Rename tokens of a checkpoint's tokenizer; then it is a folder of LitGPT's, without a manifest."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["model"]["vocab"])
    path.write_text(json.dumps(content), encoding="utf-8")
    (folder / "manifest.json").unlink(missing_ok=True)


def last(vocab: dict[str, int]) -> str:
    """A token that no merge of a small vocabulary needs: the last one made."""
    return max(vocab, key=lambda token: vocab[token])


def test_a_row_that_is_no_token_gets_a_name_that_is_none(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The model has 520 rows and the tokenizer 512 tokens, one of them called as a row would be."""
    import gguf

    def rename(vocab: dict[str, int]) -> None:
        vocab["[PAD513]"] = vocab.pop(last(vocab))

    folder = make_checkpoint()
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"].pop()  # the one that made the last token
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    edit_vocabulary(folder, rename)
    export_gguf(folder, tmp_path / "a.gguf")
    tokens = gguf.GGUFReader(tmp_path / "a.gguf").fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == len(set(tokens)) == 520
    assert tokens[511] == "[PAD513]" and tokens[513] == "[PAD513]_" and tokens[514] == "[PAD514]"


def test_a_tokenizer_with_more_tokens_than_rows_is_one_line(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    def move(vocab: dict[str, int]) -> None:
        vocab[last(vocab)] = 600

    folder = make_checkpoint()
    edit_vocabulary(folder, move)
    with pytest.raises(LitMoEError, match=r"token 600, the model only 520 rows"):
        export_gguf(folder, tmp_path / "a.gguf")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))


def test_a_file_that_is_not_what_was_written_is_found(trained: Path, tmp_path: Path) -> None:
    import gguf
    import numpy as np

    file = tmp_path / "model.gguf"
    export_gguf(trained, file)
    reader = gguf.GGUFReader(file)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    sums = {
        t.name: (tuple(int(n) for n in t.shape), zlib.crc32(np.ascontiguousarray(t.data)))
        for t in reader.tensors
    }
    check_gguf(gguf, file, file, tokens, merges, sums)
    with pytest.raises(LitMoEError, match="the vocabulary is not what was written"):
        check_gguf(gguf, file, file, [*tokens[:-1], "x"], merges, sums)
    place = reader.tensors[3].data_offset
    name = reader.tensors[3].name
    del reader
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(LitMoEError, match=f"the tensor {name} is not what was written"):
        check_gguf(gguf, file, file, tokens, merges, sums)
    file.write_bytes(data[:place])
    with pytest.raises(LitMoEError, match="cannot be read back"):
        check_gguf(gguf, file, file, tokens, merges, sums)

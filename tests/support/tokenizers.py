"""Tokenizers of other makes than litmoe's, small, as folders that people download have them."""

import json
from pathlib import Path

import tokenizers as hf

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'</>|_"


def llama_tokenizer(folder: Path, words: tuple[str, ...] = ("Tom", "lily", "red", "the")) -> Path:
    """A Llama-type tokenizer: SentencePiece's BPE with a space before every word, and bytes for what it lacks."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    merges: list[tuple[str, str]] = []
    for word in words:
        left = "▁"
        for letter in word:
            if left + letter not in tokens:
                tokens.append(left + letter)
                merges.append((left, letter))
            left += letter
    model = hf.models.BPE(
        {token: number for number, token in enumerate(tokens)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = hf.Tokenizer(model)
    normalizers = hf.normalizers
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    decoders = hf.decoders
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _write(tokenizer, folder)


def unigram_tokenizer(folder: Path) -> Path:
    """SentencePiece's Unigram with Metaspace, whose model knows ``</s>`` as a piece like any other."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(letter, -5.0) for letter in "▁" + LETTERS] + [("▁the", -3.0), ("▁red", -3.0)]
    tokenizer = hf.Tokenizer(hf.models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Metaspace()
    tokenizer.decoder = hf.decoders.Metaspace()
    return _write(tokenizer, folder)


def word_tokenizer(folder: Path, words: list[str], end: str = "</s>") -> Path:
    """A vocabulary of whole words between white space; the first stands for unknown ones."""
    tokenizer = hf.Tokenizer(hf.models.WordLevel({w: n for n, w in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    return _write(tokenizer, folder, special=(), end=end)


def _write(
    tokenizer: hf.Tokenizer,
    folder: Path,
    special: tuple[str, ...] = ("<unk>", "<s>", "</s>"),
    end: str = "</s>",
) -> Path:
    tokenizer.add_special_tokens([hf.AddedToken(token, normalized=False, special=True) for token in special])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder

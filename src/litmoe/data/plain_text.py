"""Text encoded as plain characters: a special token that a text quotes does not control anything.

The ``tokenizers`` library can be told to leave special tokens in a text alone, but its models may still make
one out of its letters: SentencePiece's Unigram lists ``</s>`` among its pieces, and an end token may be an
ordinary word.
"""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from litmoe.errors import DataError

if TYPE_CHECKING:
    import tokenizers


class PlainText:
    """Encodes texts without special tokens."""

    def __init__(self, tokenizer: "tokenizers.Tokenizer", end_id: int) -> None:
        """
        Args:
            tokenizer: One with ``encode_special_tokens`` set.
            end_id: The end token, which must not come out of a text in any case.
        """
        self._tokenizer, self._end_id = tokenizer, end_id
        added = tokenizer.get_added_tokens_decoder()
        self._contents = {number: token.content for number, token in added.items() if token.special}
        self._is_control = np.zeros(max([end_id, *self._contents]) + 1, dtype=bool)
        self._is_control[list(self._contents)] = True
        if (unknown := _unknown_id(tokenizer)) in self._contents:
            self._is_control[unknown] = False  # which comes out of a text rightly
        self._is_control[end_id] = True
        self._without_special: tokenizers.Tokenizer | None = None

    def encode(self, text: str) -> list[int]:
        """The ids of a text.

        Raises:
            DataError: As :meth:`checked`.
        """
        return self.checked(text, self._tokenizer.encode(text, add_special_tokens=False).ids)

    def checked(self, text: str, ids: list[int]) -> list[int]:
        """As :meth:`plain`, for text to train on.

        Raises:
            DataError: The end token cannot be told from ordinary text.
        """
        plain = self.plain(text, ids)
        if plain is not ids and self._end_id in plain:
            end, place = self._tokenizer.id_to_token(self._end_id), self._around_end(text)
            raise DataError(
                f"the tokenizer's end token {end!r} also stands for ordinary text, here {place!r}, and would end "
                "documents in their middle: name another token as eos_token in its tokenizer_config.json, or use "
                "another tokenizer"
            )
        return plain

    def plain(self, text: str, ids: list[int]) -> list[int]:
        """The ids of a text, which the library has encoded; others if there are special tokens among them.

        One remains if it is an ordinary word of the vocabulary, or the only way to write a character.
        """
        if not self._has_control(ids):
            return ids
        if self._without_special is None:
            self._without_special = _without_special(self._tokenizer, set(self._contents.values()))
        plain: list[int] = self._without_special.encode(text, add_special_tokens=False).ids
        return plain

    def _has_control(self, ids: list[int]) -> bool:
        array = np.asarray(ids, dtype=np.int64)
        return bool(self._is_control[array[array < len(self._is_control)]].any())

    def _around_end(self, text: str) -> str:
        """The text around the first end token that comes out of it."""
        assert self._without_special is not None
        encoding = self._without_special.encode(text, add_special_tokens=False)
        start, end = encoding.offsets[encoding.ids.index(self._end_id)]
        return text[max(0, start - 15) : end + 15]


def _unknown_id(tokenizer: "tokenizers.Tokenizer") -> int | None:
    """What the model gives for characters that it does not know."""
    model: Any = tokenizer.model
    if type(model).__name__ == "Unigram":  # does not show it otherwise
        number: int | None = json.loads(model.__getstate__())["unk_id"]
        return number
    token = getattr(model, "unk_token", None)
    return None if token is None else tokenizer.token_to_id(token)


def _without_special(tokenizer: "tokenizers.Tokenizer", contents: set[str]) -> "tokenizers.Tokenizer":
    """The same tokenizer, whose model cannot put special tokens together, or only if nothing else fits."""
    import tokenizers as hf

    parts = json.loads(tokenizer.to_str())
    model = parts["model"]
    if model["type"] == "Unigram":
        # Lower than any path around it. The library derives the score of an unknown character from the lowest one.
        model["vocab"] = [[piece, -1e9 if piece in contents else score] for piece, score in model["vocab"]]
    elif model["type"] == "BPE":
        written = contents | {_byte_letters(content) for content in contents}
        model["merges"] = [merge for merge in model["merges"] if "".join(merge) not in written]
    changed = hf.Tokenizer.from_str(json.dumps(parts))
    changed.encode_special_tokens = True
    return changed


def _byte_letters(text: str) -> str:
    """A text as byte-level BPE writes its bytes."""
    import tokenizers as hf

    splitter = hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(letters for letters, _ in splitter.pre_tokenize_str(text))

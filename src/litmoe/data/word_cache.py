"""Token ids word by word, where the tokenizer splits text as GPT-2's does: each word is encoded once.

99 of 100 words of a text repeat. Splitting and looking them up takes a quarter of the tokenizer library's time,
which caches only after its own, slower, splitting.
"""

import json
import re
import unicodedata
from typing import Any

import numpy as np

# Characters that Unicode settled long ago, so that Python and the library agree on what is a letter, and no
# white space but ASCII's: text with anything else is left to the library.
_KNOWN = [*range(0x80), *range(0xA1, 0x250), *range(0x2010, 0x2028)]
_SPACE = r"\t\n\v\f\r "
_ONLY_KNOWN = re.compile(r"[\0-\x7f\xa1-\u024f\u2010-\u2027]*")
_LONGEST_WORD = 64


def _of_category(first_letter: str) -> str:
    """The characters of a class, to stand between the brackets of a pattern."""
    return "".join(re.escape(chr(c)) for c in _KNOWN if unicodedata.category(chr(c))[0] == first_letter)


def _gpt2_pattern() -> re.Pattern[str]:
    letters, numbers = _of_category("L"), _of_category("N")
    return re.compile(
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?[{letters}]+| ?[{numbers}]+| ?[^{_SPACE}{letters}{numbers}]+|"
        rf"[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
    )


class WordCache:
    """Encodes text that consists of well-known characters, by the words of GPT-2's pattern."""

    def __init__(self, tokenizer: Any, dtype: str, most_words: int = 1 << 18) -> None:
        """
        Args:
            tokenizer: One of the ``tokenizers`` library that :func:`splits_like_gpt2`.
            dtype: Type of the ids.
            most_words: Words kept, about 150 bytes each.
        """
        self._ids = _Ids(tokenizer, dtype, most_words)
        self._find = _gpt2_pattern().findall
        self._added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]

    def encode(self, text: str) -> bytes | None:
        """The ids of a text as the bytes of an array, those of the library; None where that has to be asked."""
        if not text.isascii() and not _ONLY_KNOWN.fullmatch(text):
            return None
        if any(token in text for token in self._added):
            return None
        return b"".join(map(self._ids.__getitem__, self._find(text)))


class _Ids(dict[str, bytes]):
    """The ids of words, asked of the library when they are first met."""

    def __init__(self, tokenizer: Any, dtype: str, most_words: int) -> None:
        self._tokenizer, self._dtype, self._most_words = tokenizer, dtype, most_words

    def __missing__(self, word: str) -> bytes:
        encoding = self._tokenizer.encode(word, add_special_tokens=False)
        ids = np.asarray(encoding.ids, dtype=self._dtype).tobytes()
        if len(word) <= _LONGEST_WORD:
            if len(self) >= self._most_words:
                self.clear()  # the frequent ones are soon back
            self[word] = ids
        return ids


def splits_like_gpt2(tokenizer: Any) -> bool:
    """Whether the tokenizer is byte-level BPE on the words of GPT-2's pattern, and changes nothing before."""
    pre_tokenizer = (
        {} if tokenizer.pre_tokenizer is None else json.loads(tokenizer.pre_tokenizer.__getstate__())
    )
    return bool(
        tokenizer.normalizer is None
        and tokenizer.truncation is None
        and tokenizer.padding is None
        and pre_tokenizer.get("type") == "ByteLevel"
        and pre_tokenizer.get("use_regex", True)
        and not pre_tokenizer["add_prefix_space"]
        and type(tokenizer.model).__name__ == "BPE"
        and not tokenizer.model.dropout
        and len(tokenizer.get_added_tokens_decoder()) <= 8  # each is looked for in every text
    )

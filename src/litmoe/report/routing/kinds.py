"""Kinds of tokens: what a token looks like, where it stands, how frequent it is, where its text is from.

Shape suffixes: N tokens of the text, V tokens of the vocabulary that occur in it.
"""

from collections.abc import Callable

import numpy as np
import torch
from litgpt import Tokenizer

from litmoe.report.routing.figures import Grouping
from litmoe.report.routing.text import Text

Grouped = tuple[Grouping, np.ndarray]
"""A grouping, and the category of every token, (N,); -1: in none."""

_POSITIONS = ((16, "first 16 tokens"), (64, "17 to 64"), (256, "65 to 256"), (None, "after 256"))
_QUARTERS = ("most frequent quarter", "second quarter", "third quarter", "rarest quarter")
_KINDS = ("white space", "punctuation", "digits", "capitalised", "lower case", "other letters", "other")
_PLACES = ("start of a word", "inside a word", "not a word")


class Pieces:
    """The text of tokens, as a person reads it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """
        Args:
            tokenizer: of the model.
        """
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        self._name: Callable[[int], str | None] | None = None
        processor = getattr(tokenizer, "processor", None)
        name = getattr(processor, "id_to_token", None) or getattr(processor, "id_to_piece", None)
        # Llama's kind marks a word's start by a character of its own, and loses it when a token is decoded alone.
        if name is not None and any(
            (name(i) or "").startswith("\N{LOWER ONE EIGHTH BLOCK}") for i in range(300, 600)
        ):
            self._name = name

    def __call__(self, token: int) -> str:
        """The text of a token; a replacement character for part of one."""
        if token not in self._known:
            self._known[token] = self._text(token)
        return self._known[token]

    def _text(self, token: int) -> str:
        if self._name is not None:
            name = self._name(token) or ""
            if name.startswith("<0x") and name.endswith(">"):
                return bytes([int(name[3:-1], 16)]).decode("ascii", "replace")
            return name.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
        text: str = self._tokenizer.decode(torch.tensor([token]))
        return text


def groupings_of(text: Text, pieces: Pieces) -> list[Grouped]:
    """All ways in which the tokens of a text are grouped."""
    types_V, type_N, count_V = np.unique(text.ids_N, return_inverse=True, return_counts=True)
    texts_V = [pieces(int(token)) for token in types_V]
    found = [
        _grouping(
            "kind", "Kind of token", _KINDS, np.array([_KINDS.index(_kind(t)) for t in texts_V])[type_N]
        ),
        _grouping("word", "Place in the word", _PLACES, _place_in_word(text, texts_V, type_N)),
        _grouping("position", "Position in the document", [name for _, name in _POSITIONS], _position(text)),
        _grouping("frequency", "Frequency of the token", _QUARTERS, _frequency(count_V)[type_N]),
    ]
    if len(text.sources) > 1:
        found.append(_grouping("source", "Source of the text", text.sources, text.source_N))
    return found


def _grouping(name: str, title: str, categories: object, category_N: np.ndarray) -> Grouped:
    """Without the categories that no token is in."""
    names = [str(category) for category in categories]  # type: ignore[attr-defined]
    counts = np.bincount(category_N[category_N >= 0], minlength=len(names))
    used = np.flatnonzero(counts)
    index = np.full(len(names) + 1, -1)
    index[used] = np.arange(len(used))
    return Grouping(name, title, [names[at] for at in used], counts[used].tolist()), index[category_N]


def _kind(text: str) -> str:
    core = text.strip()
    if not core:
        return "white space"
    if "\N{REPLACEMENT CHARACTER}" in core:
        return "other"
    if core.isdigit():
        return "digits"
    if not any(character.isalnum() for character in core):
        return "punctuation"
    if core[0].isupper():
        return "capitalised"
    if core[0].islower():
        return "lower case"
    return "other letters" if core[0].isalpha() else "other"


def _place_in_word(text: Text, texts_V: list[str], type_N: np.ndarray) -> np.ndarray:
    """By the token itself and the one before it in its document."""
    is_word_V = np.array([bool(t.strip()) and t.strip()[0].isalnum() for t in texts_V])
    opens_V = np.array([t[:1].isspace() for t in texts_V])
    lets_open_V = np.array([not t or not t[-1].isalnum() for t in texts_V])  # a word may start after it
    begins_N = np.ones(len(type_N), dtype=bool)
    follows = text.document_N[1:] == text.document_N[:-1]
    begins_N[1:] = ~follows | lets_open_V[type_N[:-1]]
    return np.where(is_word_V[type_N], np.where(opens_V[type_N] | begins_N, 0, 1), 2)


def _position(text: Text) -> np.ndarray:
    bounds = [bound for bound, _ in _POSITIONS if bound is not None]
    return np.searchsorted(bounds, text.position_N, side="right")


def _frequency(count_V: np.ndarray) -> np.ndarray:
    """Which quarter of the text a token of the vocabulary belongs to, the most frequent ones first."""
    order = np.argsort(-count_V, kind="stable")
    before = np.cumsum(count_V[order]) - count_V[order]
    quarter_V = np.empty(len(count_V), dtype=np.int64)
    quarter_V[order] = np.minimum(4 * before // count_V.sum(), 3)
    return quarter_V

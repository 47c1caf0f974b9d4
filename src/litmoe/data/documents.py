"""A document as a stream of pieces: found, cleaned and cut in bounded memory, whatever its length.

A piece is a document, or a part of one too long to hold. Pieces are cut where byte-level BPE has a word
boundary in any case, so that encoding piece after piece gives the ids of the whole.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

END_OF_TEXT = "<|endoftext|>"
"""Ends a document in plain text files. In a record (JSON, Parquet) it is text like any other."""

PIECE_CHARACTERS = 1 << 18
"""Documents of up to twice this length stay whole. Long enough that the place of a cut hardly ever has to
be second best, short enough that a batch of pieces keeps every core busy."""

HASHED_CHARACTERS = 1 << 16
"""So much of a document's start decides whether it is training or validation text, so that it is known from
the first piece. Must not exceed PIECE_CHARACTERS."""

Boundaries = Literal["auto", "file", "blank-line"]

_BLANK_LINE = re.compile(r"\n\s*\n|" + re.escape(END_OF_TEXT))
_SPACE_AND_MARKS = re.compile(r"[\s\ufeff]*")
_SPACE_AFTER_WORD = re.compile(r"(?<=\S)\s")
_NEVER_EMITTED_TAIL = len(END_OF_TEXT)


class Piece(NamedTuple):
    """Part of a document, in order. Only the last of several may be empty."""

    text: str
    ends_document: bool
    quotes_marker: bool = False
    """Whether the document has ``<|endoftext|>`` as text, so that it cannot stand in a plain text file."""


def documents_in(
    chunks: Iterable[str], boundaries: Boundaries = "auto", piece_characters: int = PIECE_CHARACTERS
) -> Iterator[Piece]:
    """Turn the text of a file, in chunks, into the pieces of its documents.

    Documents are stripped, and empty ones dropped. ``auto`` ends them at ``<|endoftext|>``, ``blank-line`` at
    blank lines too. ``file`` makes one document of everything; a ``<|endoftext|>`` in it becomes a line break.
    The result does not depend on the size of the chunks, except for where a document of more than
    ``2 * piece_characters`` is cut.
    """
    rest = ""
    inside = False  # whether pieces of the document now in ``rest`` went out already
    for chunk in chunks:
        rest += chunk
        *finished, rest = _split(rest, boundaries)
        for text in finished:
            yield from _last_pieces(text, inside, piece_characters)
            inside = False
        if not inside:
            rest = _lstrip(rest)
        while len(rest) > 2 * piece_characters + _NEVER_EMITTED_TAIL:
            at = _cut(rest, piece_characters)
            yield Piece(rest[:at], False)
            rest, inside = rest[at:], True
    yield from _last_pieces(rest, inside, piece_characters)


def document_of(text: str) -> Iterator[Piece]:
    """The pieces of a document that comes whole, as the text of a record; none if there is nothing in it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    quotes_marker = END_OF_TEXT in text
    for piece in _last_pieces(text, False, PIECE_CHARACTERS):
        yield piece._replace(quotes_marker=quotes_marker) if quotes_marker else piece


def document_key(first_piece: str) -> int:
    """64 bits that depend on nothing but the document: equal documents have equal keys."""
    start = first_piece[:HASHED_CHARACTERS].rstrip().encode()
    return int.from_bytes(hashlib.blake2b(start, digest_size=8).digest(), "little")


def validation_limit(keys: Iterable[int], val_fraction: float) -> int | None:
    """The number below which a document's key sends it to validation, so that neither split is empty.

    Normally ``val_fraction * 2**64``, known after a few keys; the rest are not read. Where that would leave
    a split empty, the smallest key alone goes to validation, or the largest alone to training.
    None if there are fewer than two different documents.
    """
    limit = int(val_fraction * 2**64)
    lowest, highest = 2**64, -1
    for key in keys:
        lowest, highest = min(lowest, key), max(highest, key)
        if lowest < limit <= highest:
            return limit
    if highest <= lowest:
        return None
    return lowest + 1 if lowest >= limit else highest


def _split(text: str, boundaries: Boundaries) -> list[str]:
    if boundaries == "auto":
        return text.split(END_OF_TEXT)
    if boundaries == "blank-line":
        return _BLANK_LINE.split(text)
    return [text.replace(END_OF_TEXT, "\n")]


def _last_pieces(text: str, inside: bool, piece_characters: int) -> Iterator[Piece]:
    """The pieces of a document of which ``text`` is all that is left."""
    text = text.rstrip() if inside else _lstrip(text).rstrip()
    start = 0  # an index: to cut the rest again and again would copy a long text as often as it has pieces
    while len(text) - start > 2 * piece_characters:
        end = start + _cut(text[start : start + piece_characters + 1], piece_characters)
        yield Piece(text[start:end], False)
        start = end
    if start < len(text) or inside or start:
        yield Piece(text[start:], True)


def _lstrip(text: str) -> str:
    """Strip white space and byte order marks from the left."""
    text = text.lstrip()
    if text.startswith("\ufeff"):
        start = _SPACE_AND_MARKS.match(text)
        text = text[start.end() :] if start else text
    return text


def _cut(text: str, near: int) -> int:
    """Where to cut a text longer than ``2 * near``: at most ``near`` characters from its start.

    The pre-tokenizers of GPT-2, Llama 3 and their kin begin a word at (1) a single space between two
    letters, and at (2) a letter after a single line break, whatever lies around. Text without either
    (long runs of digits, Chinese without line breaks) is cut (3) before white space or (4) anywhere:
    there, at most one word in ``near`` characters is encoded as two.
    """
    half = near // 2
    at = text.rfind(" ", half, near)
    while at > 0:
        if text[at - 1].isalpha() and text[at + 1].isalpha():
            return at
        at = text.rfind(" ", half, at)
    at = text.rfind("\n", half, near)
    while at > 0:
        if not text[at - 1].isspace() and text[at + 1].isalpha():
            return at + 1
        at = text.rfind("\n", half, at)
    at = max(near, 1)
    for match in _SPACE_AFTER_WORD.finditer(text, half + 1, near + 1):
        at = match.start()
    return at

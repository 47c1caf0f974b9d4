"""Token ids in, text out, piece by piece: each piece as soon as no later token can change it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litgpt import Tokenizer

    from litmoe.data.tokenizer_folder import TextTokenizer

_WINDOW = 8
"""Tokens decoded along with a new one: a word piece may look different alone."""

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNFINISHED = 3
"""Tokens at the end that may still begin a character: it has up to four bytes, at worst a token each."""


class TextStream:
    """The text that follows a prompt.

    Text is decoded together with the few tokens before it, so the space between prompt and text comes out right
    for tokenizers that write it into the word (SentencePiece). The time per token does not depend on what came
    before.
    """

    def __init__(self, tokenizer: "Tokenizer | TextTokenizer", prompt_ids: Sequence[int] = ()) -> None:
        self._decode = tokenizer.processor.decode
        self._window: list[int] = []
        self._text = ""  # of the window
        self._shown = ""  # as much of it as was handed out
        self._whole = 0  # tokens of the window whose text was handed out whole
        self._begin_later(list(prompt_ids))
        self._shown, self._whole = self._text, len(self._window)

    def add(self, token: int) -> str:
        """What is certain of the text now and was not before; often empty."""
        self._window.append(token)
        self._text = self._decode(self._window)
        if not self._text.startswith(self._shown):
            # Tokenizers with single bytes among their tokens (byte fallback) decode a row of them, if it is no
            # UTF-8, into replacement characters for the whole row: after a few tokens, what was whole stays
            # apart.
            if len(self._window) - self._whole <= _UNFINISHED:
                return ""
            self._window, self._whole, self._shown = self._window[self._whole :], 0, ""
            self._text = self._decode(self._window)
        piece = self._text[len(self._shown) : self._certain()]
        self._shown += piece
        if self._shown == self._text:
            self._whole = len(self._window)
        if len(self._window) > (2 if self._shown == self._text else 4) * _WINDOW:
            self._begin_later(self._window)
        return piece

    def end(self) -> str:
        """The rest."""
        if not self._text.startswith(self._shown):
            self._text, self._shown = self._decode(self._window[self._whole :]), ""
        piece = self._text[len(self._shown) :]
        self._shown = self._text
        return piece

    def _certain(self) -> int:
        """Characters of the window's text that no later token changes."""
        unfinished = len(self._text) - len(self._text.rstrip(_REPLACEMENT))
        return len(self._text) - min(unfinished, _UNFINISHED)

    def _begin_later(self, ids: list[int]) -> None:
        """Let the window begin later, but not within a character; what is held back stays so."""
        held = len(self._text) - len(self._shown)
        for more in range(_UNFINISHED + 1):
            self._window = ids[-_WINDOW - more :]
            self._text = self._decode(self._window)
            if not self._text.startswith(_REPLACEMENT):
                break
        self._shown = self._text[: max(0, len(self._text) - held)]
        self._whole = len(self._window) if not held else 0


def stream_text(
    tokenizer: "Tokenizer | TextTokenizer", ids: Iterable[int], prompt_ids: Sequence[int] = ()
) -> Iterator[str]:
    """Token ids as pieces of text, none of them empty; together they are what follows the prompt."""
    stream = TextStream(tokenizer, prompt_ids)
    for token in ids:
        if piece := stream.add(token):
            yield piece
    if piece := stream.end():
        yield piece


class StopStrings:
    """Ends a text before the first of some strings, and holds back what may be the beginning of one.

    The first string is the one that is complete first, character by character, so the result does not depend on
    how the text is cut into pieces. Of two that are complete at once the longer one counts.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        assert all(strings), "an empty string would end every text at once"
        self._strings = strings
        self._held = ""
        self.found = False

    def add(self, piece: str) -> str:
        """What is certain to stand before any stop string."""
        if self.found:
            return ""
        text = self._held + piece
        starts = [(text.find(string), len(string)) for string in self._strings]
        hits = [(start + length, start) for start, length in starts if start >= 0]
        if hits:
            self.found, self._held = True, ""
            return text[: min(hits)[1]]
        held = self._beginning_at_end(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        """What was held back: the text has ended, and it was no stop string."""
        rest, self._held = self._held, ""
        return rest

    def _beginning_at_end(self, text: str) -> int:
        """The length of the longest end of the text that begins a stop string."""
        longest = min(len(text), max((len(string) for string in self._strings), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(text.endswith(string[:length]) for string in self._strings if length < len(string)):
                return length
        return 0

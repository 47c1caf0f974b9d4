"""Text from bytes: UTF-8, read strictly, or the UTF-16 and UTF-32 that Windows programs write."""

import codecs
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from litmoe.errors import DataError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FEWEST_CHARACTERS = 8  # less text than this is not told apart from UTF-8 with NUL characters
_CONTROL = bytes(byte for byte in range(0x20) if byte not in b"\t\n\v\f\r") + b"\x7f"


def encoding_of(head: bytes) -> str:
    """The encoding of a text that begins with ``head``: by its byte order mark, or by where its zeros are.

    Text in UTF-16 and UTF-32 has a space, line break or digit now and then, whose other bytes are zero: always at
    the same places. Everything else is taken for UTF-8.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
            if _looks_like(head, encoding):
                return encoding
    return "utf-8"


def decoded(chunks: Iterable[bytes], encoding: str, where: str, name_line: bool = False) -> Iterator[str]:
    """Text from its bytes, strictly, with ``\\r\\n`` and ``\\r`` as ``\\n``. A byte order mark stays.

    Args:
        chunks: The bytes.
        encoding: One that :func:`encoding_of` knows.
        where: The file, for the message.
        name_line: Name the line of a bad byte too.

    Raises:
        DataError: A byte that the encoding does not allow, with its offset in the decompressed file.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)("strict"), translate=True)
    fed, lines = 0, 1
    try:
        for raw in chunks:
            fed += len(raw)
            text = decoder.decode(raw)
            lines += text.count("\n") if name_line else 0
            yield text
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        offset = fed - len(error.object) + error.start
        lines += error.object[: error.start].count(b"\n")
        line = f" (line {lines})" if name_line else ""
        raise DataError(
            f"{where} is not {encoding.upper()}: byte 0x{error.object[error.start]:02x} at offset {offset}{line}; "
            "save it as UTF-8, or remove the damaged part"
        ) from error


def control_characters(raw: bytes) -> int:
    """How many control characters UTF-8 text holds, NUL among them; white space is none."""
    return len(raw) - len(raw.translate(None, _CONTROL))


def _looks_like(head: bytes, encoding: str) -> bool:
    """Whether ``head`` is text in this encoding, which has no mark to say so."""
    text = _decode(head, encoding)
    if text is None or len(text) < _FEWEST_CHARACTERS or not all(map(_is_of_text, text)):
        return False
    if encoding.startswith("utf-32"):
        return True
    # The high bytes are those of a few scripts, zero among them.
    low, high = (head[0::2], head[1::2]) if encoding.endswith("le") else (head[1::2], head[0::2])
    if 0 not in high or len(set(high)) > len(set(low)):
        return False
    if sum(count for _, count in Counter(high).most_common(2)) >= 0.9 * len(high):
        return True
    # Chinese has many high bytes, as random bytes have, which rarely are text over so many characters.
    return len(text) >= 64 and (" " in text or "\n" in text) and _decode(head, "utf-8") is None


def _is_of_text(character: str) -> bool:
    return character in "\t\n\f\r" or unicodedata.category(character) not in ("Cc", "Cn", "Co")


def _decode(head: bytes, encoding: str) -> str | None:
    """``head`` as text, but for a last character that is cut; None if it is no such text."""
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(head)
    except UnicodeDecodeError:
        return None

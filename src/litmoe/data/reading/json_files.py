"""JSON in, the texts of its records out: a record per line, one array, or one record.

Of a file with a record per line one line is held at a time; an array is held whole.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from litmoe.data.reading.notes import Notes
from litmoe.data.reading.record_text import Label, text_of
from litmoe.errors import DataError
from litmoe.files import reason_of

MAX_JSON_CHARACTERS = 1 << 30
"""The longest JSON text that is held, be it a line or an array. Python's objects take a few times as much."""

_BETWEEN_VALUES = re.compile("[ \t\n\r\ufeff]*")


def json_lines(
    chunks: Iterable[str], field: str, where: str, notes: Notes, label: Label | None = None
) -> Iterator[str]:
    """The texts of a file with a record per line, or with one array of records, whatever its name says.

    Args:
        chunks: The file's text.
        field: Where a record has its text.
        where: The file, for messages.
        notes: Counts what has no text.
        label: Sees each record before its text.

    Raises:
        DataError: A line that is not JSON, or a record without the field.
    """
    lines = _lines(chunks, where)
    first = next(lines, None)
    if first is not None and first.text.startswith("[") and not _is_json(first.text):
        yield from _array(first, lines, field, where, notes, label)
    elif first is not None:
        yield from _per_line(itertools.chain([first], lines), field, where, notes, label)


def json_file(
    chunks: Iterable[str], field: str, where: str, notes: Notes, label: Label | None = None
) -> Iterator[str]:
    """The texts of a file with one array of records, one record, or a record per line; as :func:`json_lines`."""
    lines = _lines(chunks, where)
    first = next(lines, None)
    if first is not None and not first.text.startswith("[") and _is_json(first.text):
        yield from _per_line(itertools.chain([first], lines), field, where, notes, label)
    elif first is not None:
        yield from _array(first, lines, field, where, notes, label)


class _Line(NamedTuple):
    number: int
    text: str


def _lines(chunks: Iterable[str], where: str) -> Iterator[_Line]:
    """The lines that are not blank, without byte order marks (``copy a+b`` leaves them inside)."""
    parts: list[str] = []
    length, number = 0, 1
    for chunk in itertools.chain(chunks, ["\n"]):
        first, *others = chunk.split("\n")
        parts.append(first)
        length += len(first)
        if length > MAX_JSON_CHARACTERS:
            raise _too_long(f"{where}, line {number}")
        for other in others:
            line = "".join(parts).strip(" \t\ufeff")
            if line and not line.isspace():
                yield _Line(number, line)
            number += 1
            parts, length = [other], len(other)


def _per_line(
    lines: Iterable[_Line], field: str, where: str, notes: Notes, label: Label | None
) -> Iterator[str]:
    """The texts of lines with a record each, or an array of them."""
    for number, line in lines:
        for record in _values(line, where, number):
            place = f"{where}, line {number}"
            if isinstance(record, list) and record and all(isinstance(entry, dict) for entry in record):
                for index, entry in enumerate(record, 1):
                    yield from text_of(entry, field, f"{place}, entry {index}", notes, label)
            else:
                yield from text_of(record, field, place, notes, label)


def _array(
    first: _Line, lines: Iterable[_Line], field: str, where: str, notes: Notes, label: Label | None
) -> Iterator[str]:
    """The texts of one JSON array or object over several lines."""
    parts, length, last = [first.text], len(first.text), first.number
    for number, line in lines:
        parts += ["\n" * (number - last), line]
        last = number
        length += len(line)
        if length > MAX_JSON_CHARACTERS:
            raise _too_long(where)
    text = "".join(parts)
    del parts
    values = list(_values(text, where, first.number))
    entries = (entry for value in values for entry in (value if isinstance(value, list) else [value]))
    for index, entry in enumerate(entries, 1):
        yield from text_of(entry, field, f"{where}, entry {index}", notes, label)


def _is_json(line: str) -> bool:
    """Whether a line is JSON by itself."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _values(text: str, where: str, first_line: int) -> Iterator[Any]:
    """The JSON values of a text: one, or several in a row (``cat a b``, where a has no last line end)."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            line, reason = first_line + error.lineno - 1, f"{error.msg}, column {error.colno}"
        except (ValueError, RecursionError) as error:
            # A number of thousands of digits; brackets a thousand deep.
            line, reason = first_line, reason_of(error)
        else:
            yield value
            between = _BETWEEN_VALUES.match(text, at)
            at = between.end() if between else at
            continue
        raise DataError(f"{where}, line {line} is not JSON ({reason}); repair or remove it")


def _too_long(where: str) -> DataError:
    return DataError(
        f"{where} is longer than {MAX_JSON_CHARACTERS:,} characters, too large to hold in memory; write it as "
        ".jsonl, one object per line"
    )

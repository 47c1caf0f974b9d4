"""Records in, their texts out: JSON and Parquet, at most a few records in memory at a time.

The text of a record is a string in one field. A dotted name (``meta.text``) goes into nested objects, unless
a field bears the whole name. A field that holds a conversation (a list of turns, each ``{"role", "content"}``
or ``{"from", "value"}``) gives one text: ``role: content`` for every turn, with blank lines between. What is
null has no text, and is counted.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from litmoe.data.notes import Notes
from litmoe.errors import DataError
from litmoe.files import reason_of

MAX_JSON_CHARACTERS = 1 << 30
"""The longest JSON text that is held, be it a line or an array. Python's objects take a few times as much."""

_PARQUET_ROWS = 256
_CONVERSATIONS = ("messages", "conversations", "conversation")
_SPEAKER_AND_WORDS = (("role", "content"), ("from", "value"))
_BETWEEN_VALUES = re.compile("[ \t\n\r\ufeff]*")
_MOST_NAMES, _LONGEST_NAME = 8, 40  # of fields, in a message


class Label:
    """The value of one of some fields in the record whose text was read last, such as where it is from."""

    def __init__(self, *fields: str) -> None:
        """``fields``: names, the preferred one first."""
        self.fields = fields
        self.value: str | None = None
        """None: that record has none of the fields, or no text in them."""

    def see(self, record: dict[str, Any]) -> None:
        """Take the label of a record."""
        found = (record.get(name) for name in self.fields)
        self.value = next((value for value in found if isinstance(value, str) and value), None)


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


def parquet(file: Any, field: str, where: str, notes: Notes, label: Label | None = None) -> Iterator[str]:
    """The texts of a Parquet file, as :func:`json_lines`. ``file``: its path, or an open file that can seek."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, pre_buffer=False) as table:
            _check_column(table.schema_arrow, field, where)
            row = 0
            also = [name for name in (label.fields if label else ()) if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[field, *also]):
                for record in batch.to_pylist():
                    row += 1
                    yield from _texts(record, field, f"{where}, row {row}", notes, label)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{where} is damaged or no Parquet file ({reason_of(error)}); get it again"
        ) from error


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
                    yield from _texts(entry, field, f"{place}, entry {index}", notes, label)
            else:
                yield from _texts(record, field, place, notes, label)


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
        yield from _texts(entry, field, f"{where}, entry {index}", notes, label)


def _is_json(line: str) -> bool:
    """Whether a line is JSON by itself."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _values(text: str, where: str, first_line: int) -> Iterator[Any]:
    """The JSON values of a text: one, or several that follow each other (``cat a b``, where a has no last
    line end)."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            line, reason = first_line + error.lineno - 1, f"{error.msg}, column {error.colno}"
        except (
            ValueError,
            RecursionError,
        ) as error:  # a number of thousands of digits; brackets a thousand deep
            line, reason = first_line, reason_of(error)
        else:
            yield value
            between = _BETWEEN_VALUES.match(text, at)
            at = between.end() if between else at
            continue
        raise DataError(f"{where}, line {line} is not JSON ({reason}); repair or remove it")


def _texts(record: Any, field: str, where: str, notes: Notes, label: Label | None) -> Iterator[str]:
    """The text of a record; nothing if there is none."""
    if record is None:
        notes.add("records that are null, left out", where)
        return
    if not isinstance(record, dict):
        raise DataError(f"{where} is not an object with a field {field!r}; make every entry an object")
    if label is not None:
        label.see(record)
    value = _find(record, field, where)
    if value is None:
        notes.add("records whose text is null, left out", where)
        return
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        value = _conversation(value, f"{where}, field {field!r}", notes)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: field {field!r} is not a string but {type(value).__name__}; name another --text-field"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start} of the text is half a surrogate pair; repair or remove it"
        ) from error
    yield value


def _find(record: dict[str, Any], field: str, where: str) -> Any:
    """The value of a field, which may be a dotted name."""
    if field in record:
        return record[field]
    value: Any = record
    for name in field.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            raise _no_field(where, field, list(record), "fields")
        value = value[name]
    return value


def _conversation(turns: list[dict[str, Any]], where: str, notes: Notes) -> str:
    """The text of a conversation, as the module's docstring says."""
    texts = []
    for number, turn in enumerate(turns, 1):
        names = next((names for names in _SPEAKER_AND_WORDS if names[1] in turn), None)
        if names is None:
            raise DataError(
                f"{where}: turn {number} has neither 'content' nor 'value', only {_listed(list(turn))}; name "
                "another --text-field"
            )
        speaker, words = turn.get(names[0]), turn[names[1]]
        if isinstance(words, list):  # parts of text among images and the like
            spoken = [
                part["text"] for part in words if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
            notes.add("parts of conversations that are not text, left out", where, len(words) - len(spoken))
            words = "\n".join(spoken) if spoken else None
        if words is None:
            notes.add("turns of conversations without text, left out", where)
        elif not isinstance(words, str):
            raise DataError(
                f"{where}: turn {number} is not text but {type(words).__name__}; repair or remove it"
            )
        else:
            texts.append(f"{speaker}: {words}" if isinstance(speaker, str) and speaker else words)
    return "\n\n".join(texts)


def _check_column(schema: Any, field: str, where: str) -> None:
    """Refuse a Parquet file without a column of text of this name.

    Raises:
        DataError: No such column, two of them, or one that holds something else.
    """
    import pyarrow as pa

    name, _, inner = (field, "", "") if field in schema.names else field.partition(".")
    if schema.names.count(name) > 1:
        raise DataError(f"{where} has {schema.names.count(name)} columns {name!r}; rename all but one")
    if name not in schema.names:
        raise _no_field(where, field, schema.names, "columns")
    kind = schema.field(name).type
    for part in inner.split(".") if inner else ():
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            raise _no_field(where, field, schema.names, "columns")
        kind = kind.field(part).type
    if not _holds_text(kind):
        raise DataError(f"{where}: column {field!r} holds {kind}, not strings; name another --text-field")


def _holds_text(kind: Any) -> bool:
    """Whether an Arrow type is text, null, or a conversation."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    item = getattr(kind, "value_type", None)
    if item is not None and pa.types.is_struct(item):
        return any(item.get_field_index(words) >= 0 for _, words in _SPEAKER_AND_WORDS)
    strings = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
    return kind in strings


def _no_field(where: str, field: str, found: list[str], kind: str) -> DataError:
    conversation = next((name for name in _CONVERSATIONS if name in found), None)
    if conversation is not None and field == "text":
        return DataError(
            f"{where} has no 'text' but a conversation; --text-field {conversation} reads its turns as one text "
            "(litmoe prepare --source, litmoe evaluate --data)"
        )
    return DataError(
        f"{where} has no {field!r}, only the {kind} {_listed(found)}; name one with --text-field (litmoe prepare "
        "--source, litmoe evaluate --data)"
    )


def _listed(names: list[str]) -> str:
    short = [" ".join(name.split())[:_LONGEST_NAME] for name in names[:_MOST_NAMES]]
    return (", ".join(short) + (", ..." if len(names) > _MOST_NAMES else "")) or "(none)"


def _too_long(where: str) -> DataError:
    return DataError(
        f"{where} is longer than {MAX_JSON_CHARACTERS:,} characters, too large to hold in memory; write it as "
        ".jsonl, one object per line"
    )

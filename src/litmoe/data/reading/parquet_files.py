"""Parquet in, the texts of its rows out, a few rows at a time."""

from collections.abc import Iterator
from typing import Any

from litmoe.data.reading.notes import Notes
from litmoe.data.reading.record_text import SPEAKER_AND_WORDS, Label, no_field, text_of
from litmoe.errors import DataError
from litmoe.files import reason_of

_ROWS = 256


def parquet(file: Any, field: str, where: str, notes: Notes, label: Label | None = None) -> Iterator[str]:
    """The texts of a Parquet file.

    Args:
        file: Its path, or an open file that can seek.
        field: The column with the text; a dotted name for a field of a struct.
        where: The file, for messages.
        notes: Counts rows without text.
        label: Sees each row before its text.

    Raises:
        DataError: The file is damaged, or has no column of text of this name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, pre_buffer=False) as table:
            _check_column(table.schema_arrow, field, where)
            row = 0
            also = [name for name in (label.fields if label else ()) if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=_ROWS, columns=[field, *also]):
                for record in batch.to_pylist():
                    row += 1
                    yield from text_of(record, field, f"{where}, row {row}", notes, label)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{where} is damaged or no Parquet file ({reason_of(error)}); get it again"
        ) from error


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
        raise no_field(where, field, schema.names, "columns")
    kind = schema.field(name).type
    for part in inner.split(".") if inner else ():
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            raise no_field(where, field, schema.names, "columns")
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
        return any(item.get_field_index(words) >= 0 for _, words in SPEAKER_AND_WORDS)
    strings = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
    return kind in strings

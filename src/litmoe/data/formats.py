"""The documents of one file: .txt, .jsonl, .json or .parquet.

Text and Parquet files may have any size: they are read in chunks. Of a .jsonl file one line is held at a
time; a .json file that holds one array is held whole, up to ``MAX_JSON_BYTES``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litmoe.data.documents import Piece, SplitMode, read_text, split_documents
from litmoe.errors import LitMoEError

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")

MAX_JSON_BYTES = 1 << 30
"""Python's objects take a few times this much memory."""

_PARQUET_ROWS = 256


def read_documents(path: Path, split: SplitMode = "auto", text_field: str = "text") -> Iterator[Piece]:
    """Read a file's documents, as pieces, in order.

    Args:
        path: A file with one of ``SUFFIXES``.
        split: Where documents end in a .txt file. In the other formats an entry is a document.
        text_field: Where an entry has its text. A null is an empty document, which is dropped.

    Raises:
        LitMoEError: The file cannot be read, is damaged, or an entry lacks the field.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        yield from split_documents(read_text(path), split)
        return
    if suffix == ".parquet":
        texts = _parquet(path, text_field)
    elif suffix == ".jsonl":
        texts = _json_lines(path, text_field)
    elif suffix == ".json":
        texts = _json(path, text_field)
    else:
        raise LitMoEError(f"cannot read {path}: litmoe reads {', '.join(SUFFIXES)} files")
    for text in texts:
        yield from text_documents(text)


def text_documents(text: str) -> Iterator[Piece]:
    """The pieces of a text that comes as one string. It ends, as in a file, at each ``<|endoftext|>``."""
    yield from split_documents([text.replace("\r\n", "\n").replace("\r", "\n")])


def _json_lines(path: Path, field: str) -> Iterator[str]:
    offset = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = _decode(
                    raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw, path, number, offset
                )
                offset += len(raw)
                if line.strip():
                    where = f"{path}, line {number}"
                    yield _text_of(_parse(line, path, number), field, where)
    except OSError as error:
        raise _unreadable(path, error) from error


def _json(path: Path, field: str) -> Iterator[str]:
    """One array of objects, one object, or an object per line."""
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
            size = path.stat().st_size
            if not start.startswith(b"[") and _is_json(start.partition(b"\n")[0], file):
                yield from _json_lines(path, field)
                return
            if size > MAX_JSON_BYTES:
                raise LitMoEError(
                    f"{path} is {size / 1e9:.1f} GB, too large to hold in memory; write it as .jsonl, "
                    "one object per line"
                )
            file.seek(0)
            raw = file.read().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise _unreadable(path, error) from error
    content = _parse(_decode(raw, path, 1, 0), path, 1)
    del raw
    entries = content if isinstance(content, list) else [content]
    for number, entry in enumerate(entries, 1):
        yield _text_of(entry, field, f"{path}, entry {number}")


def _is_json(line: bytes, file: Any) -> bool:
    """Whether the first line is JSON by itself; read to its end first where it is longer than was read."""
    if len(line) >= 4000:
        file.seek(0)
        line = file.readline(MAX_JSON_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = {column.name: column.type for column in file.schema_arrow}
            if field not in columns:
                raise LitMoEError(_no_field(str(path), field, list(columns), "columns"))
            if not (pa.types.is_string(columns[field]) or pa.types.is_large_string(columns[field])):
                raise LitMoEError(
                    f"{path}: column {field!r} holds {columns[field]}, not strings; name another --text-field"
                )
            row = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=[field]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if text:
                        yield text
    except OSError as error:
        raise _unreadable(path, error) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise LitMoEError(f"{path} is damaged or no Parquet file ({reason}); get it again") from error


def _decode(raw: bytes, path: Path, number: int, offset: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise LitMoEError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start} (line "
            f"{number + raw.count(10, 0, error.start)}); save it as UTF-8, or remove the damaged part"
        ) from error


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        reason = f"{error.msg}, column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets a thousand deep
        line, reason = first_line, str(error).splitlines()[0]
    raise LitMoEError(f"{path}, line {line} is not JSON ({reason}); repair or remove it")


def _text_of(entry: Any, field: str, where: str) -> str:
    if not isinstance(entry, dict):
        raise LitMoEError(f"{where} is not an object with a field {field!r}; make every entry an object")
    if field not in entry:
        raise LitMoEError(_no_field(where, field, list(entry), "fields"))
    text = entry[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise LitMoEError(
            f"{where}: field {field!r} is not a string but {type(text).__name__}; name another --text-field"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LitMoEError(
            f"{where}: character {error.start} of the text is half a surrogate pair; repair or remove it"
        ) from error
    return text


def _no_field(where: str, field: str, found: list[str], kind: str) -> str:
    names = ", ".join(" ".join(name.split()) for name in found[:8]) + (", ..." if len(found) > 8 else "")
    return f"{where} has no {field!r}, only the {kind} {names or '(none)'}; name one with --text-field"


def _unreadable(path: Path, error: OSError) -> LitMoEError:
    reason = (error.strerror or str(error)).splitlines()[0]
    return LitMoEError(f"cannot read {path}: {reason}; check its name and permissions, or get it again")

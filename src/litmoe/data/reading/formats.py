"""The documents of one file: .txt, .jsonl, .json or .parquet, compressed or not, or a .zip of such files.

Text and Parquet files may have any size: they are read in chunks. Of a .jsonl file one line is held at a
time; a .json file that holds one array is held whole (``json_files.MAX_JSON_CHARACTERS``). A Parquet file inside
something compressed is unpacked into a temporary file, because it is not read from its start to its end.

A record is a document, whatever is in it. A .txt file may hold many: :func:`litmoe.data.documents.documents_in`.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from litmoe.data.documents import Boundaries, Piece, document_of, documents_in
from litmoe.data.reading import kinds
from litmoe.data.reading.decoding import decoded, encoding_of
from litmoe.data.reading.json_files import json_file, json_lines
from litmoe.data.reading.notes import Notes
from litmoe.data.reading.parquet_files import parquet
from litmoe.data.reading.record_text import Label
from litmoe.data.reading.streams import Place, See, byte_chunks, look_at, open_zip, opened, reading
from litmoe.errors import DataError


def read_documents(
    path: Path | Place,
    boundaries: Boundaries = "auto",
    text_field: str = "text",
    *,
    see: See | None = None,
    notes: Notes | None = None,
    label: Label | None = None,
) -> Iterator[Piece]:
    """Read a file's documents, as pieces, in order.

    Args:
        path: A file, or a member of a .zip.
        boundaries: Where documents end in a .txt file.
        text_field: Where a record has its text; records without text are left out and counted.
        see: Gets the bytes of the file as they are on the disk, each once.
        notes: Counts what a person should know, such as files that are not what their names say.
        label: Sees the records; has the label of the one whose pieces come.

    Raises:
        DataError: The file cannot be read, is damaged, or holds something else than text.
    """
    place = Place(path) if isinstance(path, Path) else path
    notes = Notes() if notes is None else notes
    form = kinds.form_of(place.name)
    if form is None:
        raise DataError(f"cannot read {place}: litmoe reads {kinds.READS}, {kinds.ALSO_COMPRESSED}")
    codecs, head = look_at(place)
    if kinds.is_zip(head):
        if place.member is not None or codecs:
            raise DataError(f"{place} is a .zip inside something compressed; unpack it")
        _show(place, see)
        yield from read_places(members(place.path, notes), boundaries, text_field, notes=notes, label=label)
        return
    if head:
        _note_wrong_name(place, bool(codecs), notes)
    if kinds.is_parquet(head):
        if form != "parquet":
            notes.add("Parquet files under another name, read as what they are", place)
        _show(place, see)
        texts = _parquet(place, codecs, text_field, notes, label)
    elif form == "parquet":
        raise DataError(f"{place} is damaged or no Parquet file (it does not begin as one); get it again")
    else:
        if (foreign := kinds.foreign_content(head)) is not None:
            raise DataError(f"{place} is {foreign}, not text; convert it or move it away")
        if (encoding := encoding_of(head)) != "utf-8":
            notes.add(f"files in {encoding.upper()}, read as such", place)
        chunks = decoded(byte_chunks(place, codecs, see), encoding, str(place), name_line=form != "text")
        if form == "text":
            yield from documents_in(chunks, boundaries)
            return
        reader = json_lines if form == "json lines" else json_file
        texts = reader(chunks, text_field, str(place), notes, label)
    for text in texts:
        yield from document_of(text)


def read_places(
    places: Iterable[Place],
    boundaries: Boundaries = "auto",
    text_field: str = "text",
    *,
    notes: Notes | None = None,
    label: Label | None = None,
) -> Iterator[Piece]:
    """Read the documents of several files and members of .zip archives; else as :func:`read_documents`."""
    for path, here in itertools.groupby(places, key=lambda place: place.path):
        with ExitStack() as stack:
            archive = None
            for place in here:
                if place.member is not None and archive is None:
                    with reading(place):
                        archive = stack.enter_context(open_zip(path))
                place = place._replace(archive=archive)
                yield from read_documents(place, boundaries, text_field, notes=notes, label=label)


def read_text(path: Path, see: See | None = None) -> Iterator[str]:
    """The text of a plain text file, in chunks, as :func:`read_documents` decompresses and decodes it.

    Raises:
        DataError: The file cannot be read, or is damaged.
    """
    place = Place(path)
    codecs, head = look_at(place)
    return decoded(byte_chunks(place, codecs, see), encoding_of(head), str(place))


def is_plain_text(head: bytes) -> bool:
    """Whether :func:`read_documents` takes a .txt file that begins with ``head`` for what its name says."""
    other = (
        kinds.codec_of(head) or kinds.is_zip(head) or kinds.is_parquet(head) or kinds.foreign_content(head)
    )
    return not other and encoding_of(head) == "utf-8"


def members(path: Path, notes: Notes) -> list[Place]:
    """The files in a .zip that are read, in the order of their names.

    Raises:
        DataError: The archive is damaged, or holds no text.
    """
    place = Place(path)
    with reading(place), open_zip(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    entries.sort(key=lambda entry: PurePosixPath(entry.filename).parts)
    found = []
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
            notes.add("hidden files in .zip archives, left out", place, n_bytes=entry.file_size)
        elif name.suffix.lower() != ".zip" and kinds.has_text_name(name.name):
            found.append(Place(path, entry.filename))
        else:
            notes.add(
                "files of other kinds in .zip archives, left out",
                f"{place}, member {name}",
                n_bytes=entry.file_size,
            )
    if not found:
        names = ", ".join(entry.filename for entry in entries[:3]) or "nothing"
        raise DataError(f"{path} is a .zip that holds no {kinds.READS} (but {names}); unpack or convert it")
    return found


def _parquet(
    place: Place, codecs: list[kinds.Codec], text_field: str, notes: Notes, label: Label | None
) -> Iterator[str]:
    with reading(place), ExitStack() as stack:
        if place.member is None and not codecs:
            yield from parquet(place.path, text_field, str(place), notes, label)
            return
        import shutil
        import tempfile

        unpacked = stack.enter_context(tempfile.TemporaryFile(prefix="litmoe-"))
        with opened(place, codecs) as stream:
            shutil.copyfileobj(stream, unpacked, 1 << 20)
        unpacked.seek(0)
        yield from parquet(unpacked, text_field, str(place), notes, label)


def _show(place: Place, see: See | None) -> None:
    """Show the bytes of a file that is not read in order."""
    if see is not None:
        for _ in byte_chunks(place, see=see):
            pass


def _note_wrong_name(place: Place, compressed: bool, notes: Notes) -> None:
    named = PurePosixPath(place.name.lower()).suffix in kinds.COMPRESSED
    if compressed and not named:
        notes.add("files that are compressed though their names do not say so, read as what they are", place)
    elif named and not compressed:
        notes.add("files that are not compressed though their names say so, read as what they are", place)

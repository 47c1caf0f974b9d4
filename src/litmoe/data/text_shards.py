"""Documents out: text files of about 64 MB each.

The files are plain text with a line ``<|endoftext|>`` after every document, which any tool can read. A record
that has ``<|endoftext|>`` in its text cannot stand there, so it opens a file of JSON lines,
``shard-00001.jsonl``, which is filled like the others. Documents keep their order over both kinds.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from litmoe.data.documents import END_OF_TEXT, Piece, documents_in
from litmoe.data.reading.decoding import control_characters, decoded
from litmoe.data.reading.formats import is_plain_text
from litmoe.data.reading.kinds import HEAD_BYTES
from litmoe.data.reading.streams import Place, byte_chunks

SHARD_BYTES = 64 << 20


class ShardWriter:
    """Writes documents to ``folder/shard-00000.txt`` and on; a new file starts between documents."""

    def __init__(self, folder: Path) -> None:
        self.files: list[dict[str, Any]] = []
        """Name, size and sha256 of each finished file."""
        self.documents = 0
        self.n_bytes = 0
        """UTF-8 bytes of the documents, without separators."""
        self.control_characters = 0
        self.folder = folder
        self._file: Any = None
        self._suffix = ""
        self._size, self._head = 0, b""
        self._inside = False  # a document has begun and not ended
        folder.mkdir(parents=True)

    def add(self, piece: Piece) -> None:
        """Append a piece of a document."""
        if piece.quotes_marker and self._suffix == ".txt" and not self._inside:
            self.close()
        if self._file is None:
            self._open(".jsonl" if piece.quotes_marker else ".txt")
        text = piece.text.encode()
        self.n_bytes += len(text)
        self.control_characters += control_characters(text)
        self._write(self._as_line(piece) if self._suffix == ".jsonl" else self._as_text(piece, text))
        self._inside = not piece.ends_document
        if piece.ends_document:
            self.documents += 1
            if self._size >= SHARD_BYTES:
                self.close()

    def close(self) -> None:
        """Finish the file, down to the disk."""
        if self._file is not None:
            if self._suffix == ".txt" and not is_plain_text(self._head):
                self._rewrite_as_lines()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            name = f"{self.folder.name}/{Path(self._file.name).name}"
            self.files.append({"name": name, "size": self._size, "sha256": self._hash.hexdigest()})
            self._file, self._suffix = None, ""

    def move(self, folder: Path) -> None:
        """Rename the folder of the finished files."""
        self.folder = self.folder.rename(folder)
        for entry in self.files:
            entry["name"] = f"{folder.name}/{Path(entry['name']).name}"

    def _open(self, suffix: str) -> None:
        self._suffix = suffix
        self._file = (self.folder / f"shard-{len(self.files):05d}{suffix}").open("wb")
        self._hash, self._size, self._head = hashlib.sha256(), 0, b""

    def _write(self, raw: bytes) -> None:
        self._file.write(raw)
        self._hash.update(raw)
        self._size += len(raw)
        if len(self._head) < HEAD_BYTES:
            self._head += raw[: HEAD_BYTES - len(self._head)]

    def _rewrite_as_lines(self) -> None:
        """Make JSON lines of a text file that would be taken for something else, as its first document is about
        files: the text of a PDF, say, which begins with ``%PDF-``."""
        self._file.close()
        written = Path(self._file.name)
        self._open(".jsonl")
        for piece in documents_in(decoded(byte_chunks(Place(written)), "utf-8", str(written))):
            self._write(self._as_line(piece))
            self._inside = not piece.ends_document
        written.unlink()

    def _as_text(self, piece: Piece, text: bytes) -> bytes:
        return text + f"\n{END_OF_TEXT}\n".encode() if piece.ends_document else text

    def _as_line(self, piece: Piece) -> bytes:
        """The piece's part of ``{"text": "..."}``, of which a string may be written part by part."""
        line = json.dumps(piece.text, ensure_ascii=False)[1:-1]
        before = "" if self._inside else '{"text": "'
        return (before + line + ('"}\n' if piece.ends_document else "")).encode()

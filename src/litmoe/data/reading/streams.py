"""The bytes of a file or of a member of a .zip, decompressed while they are read, in bounded memory."""

import io
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from litmoe.data.reading.kinds import HEAD_BYTES, Codec, codec_of
from litmoe.errors import DataError
from litmoe.files import reason_of

if TYPE_CHECKING:
    from zipfile import ZipFile

See = Callable[[bytes], object]
"""Called with the bytes of a file as they are on the disk, in order: a hash's ``update``, a progress bar."""

READ_BYTES = 1 << 18
_MOST_XZ_MEMORY = 1 << 30  # `xz -9` needs 65 MB
_MOST_CODECS = 3  # a .gz in a .gz happens; more is an attack


class Place(NamedTuple):
    """Where bytes are: a file, or a member of a .zip."""

    path: Path
    member: str | None = None
    archive: "ZipFile | None" = None
    """The .zip, if it is open: to open it for each of its members would read its directory as often."""

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}, member {self.member}"

    @property
    def name(self) -> str:
        """The name that tells the form."""
        return self.path.name if self.member is None else self.member


def look_at(place: Place) -> tuple[list[Codec], bytes]:
    """How a file is compressed, outermost first, and the start of what is in it.

    Raises:
        DataError: The file cannot be read, or is damaged.
    """
    codecs: list[Codec] = []
    while True:
        with closing(byte_chunks(place, codecs, size=HEAD_BYTES)) as chunks:
            head = next(chunks, b"")
        codec = codec_of(head)
        if codec is None:
            return codecs, head
        if len(codecs) == _MOST_CODECS:
            raise DataError(f"{place} is compressed more than {_MOST_CODECS} times; unpack it")
        codecs.append(codec)


def byte_chunks(
    place: Place, codecs: Sequence[Codec] = (), see: See | None = None, size: int = READ_BYTES
) -> Generator[bytes]:
    """The decompressed bytes in chunks; none is empty.

    Args:
        place: What to read.
        codecs: How it is compressed, outermost first.
        see: Gets the whole file as it is on the disk (not for a member).
        size: The length of a chunk; only the last is shorter.

    Raises:
        DataError: The file cannot be read, or is damaged.
    """
    with reading(place), opened(place, codecs, see) as stream:
        while chunk := _read(stream, size):
            yield chunk


@contextmanager
def opened(place: Place, codecs: Sequence[Codec] = (), see: See | None = None) -> Iterator[Any]:
    """Open a file or member for reading from its start. Wrap the use in :func:`reading`."""
    with ExitStack() as stack:
        if place.member is None:
            file: IO[bytes] = stack.enter_context(place.path.open("rb"))
            stream: Any = _Seen(file, see) if see is not None else file
        else:
            archive = place.archive or stack.enter_context(open_zip(place.path))
            file = stream = stack.enter_context(archive.open(place.member))
        for codec in codecs:
            stream = stack.enter_context(_decompressed(stream, codec))
        yield stream
        if see is not None:  # what a decompressor has left unread at the end
            while raw := file.read(READ_BYTES):
                see(raw)


def open_zip(path: Path) -> "ZipFile":
    """Open a .zip to read from it. Wrap the use in :func:`reading`."""
    from zipfile import ZipFile

    return ZipFile(path)


@contextmanager
def reading(place: Place) -> Iterator[None]:
    """Turn everything that reading a file can raise into one line.

    Raises:
        DataError: The file cannot be read, is cut off or damaged.
    """
    try:
        yield
    except EOFError as error:
        raise DataError(f"{place} is cut off: its compressed data end early; get it again") from error
    except OSError as error:
        reason = reason_of(error)
        if error.errno is None:  # the decompressors' own
            cut = "Truncated" in reason
            state = "is cut off: its compressed data end early" if cut else f"is damaged ({reason})"
            raise DataError(f"{place} {state}; get it again") from error
        raise DataError(
            f"cannot read {place}: {reason}; check its name and permissions, or get it again"
        ) from error
    except (zlib.error, RuntimeError, NotImplementedError) as error:
        # zipfile: RuntimeError for an encrypted member, NotImplementedError for a rare compression
        raise DataError(f"cannot read {place}: {reason_of(error)}; unpack it, or get it again") from error
    except Exception as error:
        if type(error).__name__ not in ("LZMAError", "BadZipFile"):  # their modules are slow to import
            raise
        raise DataError(f"{place} is damaged ({reason_of(error)}); get it again") from error


class _Seen(io.RawIOBase):
    """A file that shows what is read from it."""

    def __init__(self, file: IO[bytes], see: See) -> None:
        self._file, self._see = file, see

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raw = self._file.read(len(buffer))
        self._see(raw)
        buffer[: len(raw)] = raw
        return len(raw)


class _Streams(io.RawIOBase):
    """Compressed streams one after another; Python's own files skip whatever follows that is no such stream."""

    def __init__(self, stream: Any, new: Callable[[], Any]) -> None:
        self._stream, self._new = stream, new
        self._decompressor = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            raw = b""
            if self._decompressor.eof:
                raw = self._decompressor.unused_data or self._stream.read(READ_BYTES)
                raw = raw.lstrip(b"\0")  # padding
                if not raw:
                    return 0
                self._decompressor = self._new()
            elif self._decompressor.needs_input:
                raw = self._stream.read(READ_BYTES)
                if not raw:
                    raise EOFError
            data = self._decompressor.decompress(raw, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


def _decompressed(stream: Any, codec: Codec) -> Any:
    """A stream over a stream; it ends with an error where the compressed data end early."""
    # Pythons may be built without bz2 and lzma: only who needs them imports them.
    if codec == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=stream, mode="rb")
    if codec == "bz2":
        import bz2

        return _Streams(stream, bz2.BZ2Decompressor)
    if codec == "xz":
        import lzma

        return _Streams(stream, lambda: lzma.LZMADecompressor(memlimit=_MOST_XZ_MEMORY))
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")


def _read(stream: Any, size: int) -> bytes:
    """``size`` bytes, or less at the end: what is read at once does not depend on the compression."""
    chunk: bytes = stream.read(size)
    if len(chunk) in (0, size):
        return chunk
    parts, length = [chunk], len(chunk)
    while length < size and (chunk := stream.read(size - length)):
        parts.append(chunk)
        length += len(chunk)
    return b"".join(parts)

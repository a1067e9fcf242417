"""Export: a log's whole history as files, in a folder or a zip: checkpoint, tiles, bundles of entries, and records.

The files lie as the log serves them (C2SP tlog-tiles); `events.ndjson` beside them has each leaf's record, one a line.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from ..errors import LogMalformed
from .note import NOTE_BYTES_MAX
from .tiles import ENTRY_BUNDLE_BYTES_MAX, TILE_BYTES, TILE_HASHES, TileId

CHECKPOINT_FILE: Final = "checkpoint"
EVENTS_FILE: Final = "events.ndjson"
RECORD_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: where it begins in bytes, and its bytes without LF, or None where they are too many."""

    offset: int
    content: bytes | None


class Export:
    """The files of an export. Files that are not there are None; what else goes wrong raises OSError.

    Raises LogMalformed when it is neither a folder nor a zip, or the zip is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path
        self._zip: zipfile.ZipFile | None = None
        if not path.is_dir():
            with whole_zip():
                self._zip = zipfile.ZipFile(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._zip is not None:
            self._zip.close()

    def checkpoint(self) -> bytes | None:
        """The signed checkpoint, or one byte more than it may have."""
        return self._read(CHECKPOINT_FILE, NOTE_BYTES_MAX)

    def tile(self, tile: TileId) -> tuple[str, bytes | None]:
        """A tile's or a bundle's path and content; of a partial one that is gone, those of the complete one."""
        bytes_max = ENTRY_BUNDLE_BYTES_MAX if tile.level is None else TILE_BYTES
        content = self._read(tile.path, bytes_max)
        if content is None and tile.width < TILE_HASHES:
            complete = TileId(tile.level, tile.index)
            content = self._read(complete.path, bytes_max)
            if content is not None:
                return complete.path, content
        return tile.path, content

    def records(self) -> Iterator[Line] | None:
        """The lines of `events.ndjson`, or None where there is no such file."""
        try:
            stream = self._open(EVENTS_FILE)
        except (FileNotFoundError, KeyError):
            return None
        return lines_of(stream)

    def _read(self, name: str, bytes_max: int) -> bytes | None:
        """Read a file, or one byte more than is allowed of it, which its reader then refuses."""
        try:
            with self._open(name) as file, whole_zip():
                return file.read(bytes_max + 1)
        except (FileNotFoundError, NotADirectoryError, KeyError):
            return None

    def _open(self, name: str) -> BinaryIO:
        if self._zip is None:
            return (self._folder / name).open("rb")
        with whole_zip():
            return io.BufferedReader(self._zip.open(name))  # type: ignore[type-var] # it is a RawIOBase in all but name


def lines_of(stream: BinaryIO) -> Iterator[Line]:
    """The lines of a file, which is closed behind the last one. Raises LogMalformed when its zip is damaged."""
    offset = 0
    with stream, whole_zip():
        while line := stream.readline(RECORD_BYTES_MAX + 1):
            start, content = offset, line.removesuffix(b"\n")
            offset += len(line)
            fits = len(content) <= RECORD_BYTES_MAX
            while not line.endswith(b"\n") and (line := stream.readline(RECORD_BYTES_MAX)):
                offset += len(line)
            yield Line(start, content if fits else None)


@contextmanager
def whole_zip() -> Iterator[None]:
    """Have what a damaged or a locked zip raises be LogMalformed."""
    try:
        yield
    except (OSError, KeyError):
        raise
    # Damage shows as whatever each way of compressing raises (BadZipFile, zlib.error, EOFError, struct.error, …), and a
    # locked zip as RuntimeError.
    except Exception as error:
        raise LogMalformed(f"the zip is damaged, locked or of an unknown kind: {type(error).__name__}") from None

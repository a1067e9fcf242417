"""Documents that wait to be captured, as files of this machine: each is there whole and on the disk, or not at all."""

import contextlib
import mmap
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from kit.files import PRIVATE_MODE, flush_folder, make_folder, replacing
from scan_api.provenance import event_json, event_xml
from scan_api.provenance.documents import Document

FORGOTTEN_AFTER_S: Final = 24 * 3_600
"""An upload that was cut off leaves half a file behind, a server that was killed after it a whole one."""
_JSON, _XML, _PART = ".json", ".xml", ".part"


class Upload:
    """A document that is being received."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._part = folder / f"{uuid.uuid4()}{_PART}"
        self._file: BinaryIO = os.fdopen(os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_MODE), "w+b")

    def write(self, content: bytes) -> None:
        self._file.write(content)

    def mapped(self) -> mmap.mmap:
        """What has been written, as memory that the system takes back when it likes."""
        self._file.flush()
        return _mapped(self._file)

    def keep(self, capture_id: uuid.UUID, *, is_xml: bool) -> None:
        """Have the document on the disk, as that of a capture."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self._folder / f"{capture_id}{_XML if is_xml else _JSON}")
        flush_folder(self._folder)

    def discard(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def folder_of(home: Path) -> Path:
    """Where documents wait, in a server's data folder."""
    return home / "captures"


def waiting(folder: Path) -> list[uuid.UUID]:
    """The captures whose documents are here, each once, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted({uuid.UUID(file.stem) for file in folder.iterdir() if file.suffix in (_JSON, _XML)})


def opened(folder: Path, capture_id: uuid.UUID) -> Document:
    """The document of a capture; one in XML is made one in JSON first. Raises EpcisDocumentInvalid."""
    json_file, xml_file = folder / f"{capture_id}{_JSON}", folder / f"{capture_id}{_XML}"
    if not json_file.exists():
        with xml_file.open("rb") as source, replacing(json_file, PRIVATE_MODE) as target:
            event_xml.convert(_chunks(source), target.write)
    with json_file.open("rb") as file:
        return event_json.read(_mapped(file))


def discard(folder: Path, capture_id: uuid.UUID) -> None:
    """Forget a capture's document."""
    for suffix in (_XML, _JSON):
        (folder / f"{capture_id}{suffix}").unlink(missing_ok=True)


def discard_forgotten(folder: Path, capture_id: uuid.UUID) -> None:
    """Forget a document that nobody knows, when it has been here for long."""
    for suffix in (_XML, _JSON):
        _unlink_if_old(folder / f"{capture_id}{suffix}")


def sweep(folder: Path) -> None:
    """Forget uploads that nobody goes on with."""
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if file.suffix == _PART:
            _unlink_if_old(file)


def _unlink_if_old(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if file.stat().st_mtime < time.time() - FORGOTTEN_AFTER_S:
            file.unlink()


def _mapped(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(event_xml.CHUNK_BYTES):
        yield chunk

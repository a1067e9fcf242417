"""Archives: pictures of single codes in a zip file, and out of it into a folder."""

import os
import re
import zlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from kit.errors import Invalid
from kit.files import PRIVATE_MODE
from offline_sdk.code_text import SERIAL_DIGITS

PICTURE_BYTES_MAX = 4 * 2**20
ENTRY_BYTES_MAX = 150
"""What a picture needs in a zip file beside its own bytes: two headers and its name, twice."""
FILE_BYTES_MAX = 22  # the end of the central directory
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can tell; the same pictures give the same bytes
_UNIX = 3
_NAME = re.compile(f"[0-9]{{{SERIAL_DIGITS}}}\\.(png|svg)")


class ArchiveInvalid(Invalid):
    code = "ArchiveInvalid"


def pack(pictures: Iterable[tuple[str, bytes]], *, deflate: bool) -> bytes:
    """A zip file of named pictures. `deflate`: compress them; PNG pictures already are."""
    sink = BytesIO()
    with ZipFile(sink, "w") as archive:
        for name, content in pictures:
            entry = ZipInfo(name, _MOMENT)
            entry.create_system = _UNIX
            entry.external_attr = PRIVATE_MODE << 16
            archive.writestr(entry, content, ZIP_DEFLATED if deflate else ZIP_STORED, compresslevel=3)
    return sink.getvalue()


def unpack(path: Path, folder: Path) -> list[Path]:
    """Write the pictures of a zip file into a folder, readable by their owner alone; those of that name are replaced.

    Raises ArchiveInvalid, before anything is written, when the file holds anything that `pack` does not put there.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
            _check(entries)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            written = []
            for entry in entries:
                target = folder / entry.filename
                # A link of that name must not lead the picture elsewhere.
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE_MODE)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(archive.read(entry))
                written.append(target)
            return written
    except (BadZipFile, zlib.error, EOFError, RuntimeError):  # the last: encrypted, or packed in another way
        raise ArchiveInvalid("this is no zip file, or it was damaged", hint="Export the order again.") from None


def _check(entries: list[ZipInfo]) -> None:
    names = {entry.filename for entry in entries}
    odd = any(_NAME.fullmatch(name) is None for name in names) or len(names) != len(entries)
    if odd or any(entry.file_size > PICTURE_BYTES_MAX for entry in entries):
        raise ArchiveInvalid(
            "the zip file holds something else than pictures named by their serials",
            hint="It was not made by this program, or was changed. Export the order again.",
        )

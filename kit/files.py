"""Files that appear whole or not at all, and secrets that only their owner can read."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kit.errors import Unavailable

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


class DiskFull(Unavailable):
    code = "DiskFull"


def require_free(folder: Path, bytes_needed: int) -> None:
    """Raises DiskFull when the disk under `folder`, which need not exist yet, has fewer bytes free than are needed."""
    bytes_free = free_bytes(folder)
    if bytes_free < bytes_needed:
        raise DiskFull(
            f"{folder} needs {bytes_needed:,} bytes, and {bytes_free:,} are free",
            hint="Make room on that disk, or name a folder on another one.",
        )


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk under `folder`, which need not exist yet."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def replacing(path: Path, mode: int = PUBLIC_MODE) -> Iterator[BinaryIO]:
    """Write beside `path`, flush to the disk, then take its place: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        flush_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_secret(path: Path, content: bytes) -> None:
    """Create a new file readable by its owner alone. Raises FileExistsError rather than overwrite a secret."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)  # half a secret would stand in the way of the next try
        raise
    flush_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Have a folder, with its name and those of its missing parents on the disk; new ones are their owner's alone."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    # Without it a power cut can lose the name of a file whose content is safe: a key, say, whose row is committed.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

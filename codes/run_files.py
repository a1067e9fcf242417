"""The files of a run in the making: appended to, checked when it is taken up again, published when it is whole."""

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from codes.rendering import RenderedPart
from codes.runs import Part
from kit.errors import Conflict
from kit.files import PRIVATE_MODE, DiskFull, flush_folder, make_folder

_READ_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunBusy(Conflict):
    code = "RunBusy"


class ExportDamaged(Conflict):
    code = "ExportDamaged"


class RunFiles:
    """The files of one run, beside each other in a hidden folder until all of them are complete.

    They are their owner's alone: whoever reads an inner code can claim its reward.
    """

    def __init__(self, folder: Path, run_id: uuid.UUID) -> None:
        self._folder = folder
        self._run_id = run_id
        self._work = folder / f".run-{run_id}"
        self._digests: dict[str, hashlib._Hash] = {}
        self._bytes: dict[str, int] = {}
        self._open: dict[str, int] = {}  # file descriptors

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process away from these files. Raises RunBusy when one is at work."""
        make_folder(self._work)
        lock = os.open(self._work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunBusy(
                    f"another process is working on run {self._run_id}", hint="Let it finish, or stop it first."
                ) from None
            yield
        finally:
            for file in self._open.values():
                os.close(file)
            self._open.clear()
            os.close(lock)

    def require_idle(self) -> None:
        """Raises RunBusy when another process of this machine is at work on these files."""
        if self._work.exists():
            with self.held():
                pass

    def lie_idle(self) -> bool:
        """Whether there are files of the run on this machine that no process works on."""
        try:
            self.require_idle()
        except RunBusy:
            return False
        return self._work.exists()

    def check(self, parts: Sequence[Part], *, whole: bool) -> None:
        """Check the next section that was recorded as written. `whole`: so were all the others of the run.

        Raises ExportDamaged when a file no longer holds what was written to it.
        """
        for part in parts:
            self._check(part, self._where(part.path, whole=whole))

    def cut_off(self) -> None:
        """Remove what is beyond the sections that were checked. Raises ExportDamaged when it is published already."""
        for path, length in self._bytes.items():
            if not (self._work / path).exists() and (self._folder / path).stat().st_size != length:
                raise self._damaged(path)
        for path in self._files_at_work():
            if path not in self._bytes:
                (self._work / path).unlink()
            elif (self._work / path).stat().st_size > self._bytes[path]:
                os.truncate(self._work / path, self._bytes[path])

    def _files_at_work(self) -> list[str]:
        return [path.relative_to(self._work).as_posix() for path in self._work.rglob("*") if path.is_file()]

    def _check(self, part: Part, place: Path) -> None:
        digest, missing = hashlib.sha256(), part.bytes
        whole = self._digests.setdefault(part.path, hashlib.sha256())
        try:
            with place.open("rb") as file:
                file.seek(self._bytes.get(part.path, 0))
                while missing and (block := file.read(min(missing, _READ_BYTES))):
                    digest.update(block)
                    whole.update(block)
                    missing -= len(block)
        except FileNotFoundError:
            pass
        if missing or digest.hexdigest() != part.sha256:
            raise self._damaged(part.path)
        self._bytes[part.path] = self._bytes.get(part.path, 0) + part.bytes

    def _damaged(self, path: str) -> ExportDamaged:
        return ExportDamaged(
            f"{path} of run {self._run_id} is not what was written to it",
            hint="`fanxing order export` makes the order's codes anew.",
        )

    def _where(self, path: str, *, whole: bool) -> Path:
        # A run that was killed while it was published has some of its files at their places already. One that is not
        # whole has none there: what stands there is another run's, however alike, and not to be gone on from.
        return self._folder / path if whole and not (self._work / path).exists() else self._work / path

    def append(self, parts: Sequence[RenderedPart]) -> list[Part]:
        """Add a section's bytes to its files, and have them on the disk. Raises DiskFull."""
        for part in parts:
            try:
                self._append(part)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise DiskFull(
                    f"no room left for {part.path}: {os.strerror(error.errno)}",
                    hint="What was written is kept. Make room, then go on with "
                    f"`fanxing order resume --run {self._run_id}`.",
                ) from None
        return [Part(part.path, len(part.content), part.sha256) for part in parts]

    def _append(self, part: RenderedPart) -> None:
        file = self._open.get(part.path)
        if file is None:
            self._close_siblings(part.path)
            file = self._open[part.path] = self._opened(self._work / part.path)
        offset, rest = self._bytes.get(part.path, 0), memoryview(part.content)
        while rest:
            count = os.pwrite(file, rest, offset)
            offset, rest = offset + count, rest[count:]
        os.fdatasync(file)
        self._digests.setdefault(part.path, hashlib.sha256()).update(part.content)
        self._bytes[part.path] = self._bytes.get(part.path, 0) + len(part.content)

    def _close_siblings(self, path: str) -> None:
        # A kind that writes a file a section, or has come to the other face, is done with the last one.
        for other in [other for other in self._open if _kin(other) == _kin(path)]:
            os.close(self._open.pop(other))

    @staticmethod
    def _opened(path: Path) -> int:
        make_folder(path.parent)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE_MODE)
        flush_folder(path.parent)  # a row must never speak of a file whose name a power cut took
        return file

    def summary(self) -> list[Part]:
        """Every file: its path, length and SHA-256."""
        return [Part(path, length, self._digests[path].hexdigest()) for path, length in self._bytes.items()]

    def publish(self) -> None:
        """Put the complete files at their places; a file that was there gives way."""
        for path in self._bytes:
            source, target = self._work / path, self._folder / path
            if source.exists():
                make_folder(target.parent)
                source.replace(target)
        for parent in {(self._folder / path).parent for path in self._bytes}:
            flush_folder(parent)

    def clear(self) -> None:
        """Remove the folder of work."""
        shutil.rmtree(self._work, ignore_errors=True)


def _kin(path: str) -> tuple[Path, list[str]]:
    return Path(path).parent, Path(path).suffixes

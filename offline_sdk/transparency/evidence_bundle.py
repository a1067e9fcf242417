"""Evidence bundle: some records of a log in one zip, with all that proves them; opened within limits, not believed.

docs/transparency-log.md, "Evidence bundles". Files are read where they lie and never unpacked.
"""

import errno
import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from ..errors import EvidenceRefused, LogMalformed
from .evidence import FILE_SUFFIX
from .evidence_readme import README
from .export import CHECKPOINT_FILE, EVENTS_FILE, Line, lines_of, whole_zip
from .tree import TREE_SIZE_MAX

FORMAT: Final = "fanxing-evidence@1"
MANIFEST_FILE: Final = "manifest.json"
KEY_FILE: Final = "key"
WITNESSES_FILE: Final = "witnesses"
README_FILE: Final = "README.txt"
CODE_FILE: Final = "code.json"
REQUIRED_FILES: Final = (MANIFEST_FILE, CHECKPOINT_FILE, EVENTS_FILE)

RECORDS_MAX: Final = 5_000
OTHER_FILES_MAX: Final = 32
FILES_MAX: Final = RECORDS_MAX + OTHER_FILES_MAX
CONTENT_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of all files together, unpacked."""
DIRECTORY_BYTES_MAX: Final = 1024 * 1024
FILE_BYTES_MAX: Final = CONTENT_BYTES_MAX + 2 * DIRECTORY_BYTES_MAX
"""Of the zip itself."""
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024
NAME_CHARS_MAX: Final = 100
KIND_CHARS_MAX: Final = 40

_PROOFS: Final = "proofs/"
_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_ZIP64: Final = b"PK\x06\x07"
_ZIP64_BYTES: Final = 20
_BLOCK_BYTES: Final = 1024 * 1024
_ENCRYPTED: Final = 0x1
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
# Names that no system takes for another folder or another file.
_NAME: Final = re.compile(rf"(?=.{{1,{NAME_CHARS_MAX}}}\Z)(?:{_PROOFS})?[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_ENTRY: Final = re.compile("salted-sha-256:[0-9a-f]{64}")
_KIND: Final = re.compile(rf"[a-z][a-z_]{{0,{KIND_CHARS_MAX - 1}}}")
_ID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One record of a bundle: its place in the tree from 0, its kind, what it is about, and its entry."""

    index: int
    kind: str
    subject: str
    entry: str

    @classmethod
    def of_json(cls, told: Any) -> Self:
        """Raises EvidenceRefused."""
        _require(isinstance(told, dict), "a leaf is not an object")
        index, texts = told.get("index"), [told.get(name) for name in ("kind", "subject", "entry")]
        _require(type(index) is int and 0 <= index < TREE_SIZE_MAX, "a leaf's index is no whole number of a tree")
        for text, form in zip(texts, (_KIND, _ID, _ENTRY), strict=True):
            _require(isinstance(text, str) and form.fullmatch(text) is not None, "a leaf is not of its form")
        return cls(index, *texts)

    def as_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"index": self.index, "kind": self.kind, "subject": self.subject, "entry": self.entry}

    @property
    def proof_file(self) -> str:
        """Where its evidence lies."""
        return proof_file(self.index)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says that it holds, signed by nobody: leaves ascending by index, and each file's SHA-256 in hex.

    `leaves` are in the order of the lines of `events.ndjson`, up to 5,000. `pending` and `unlogged` are the ids of what
    was asked for and is not there: not under a signed checkpoint yet, or older than the log.
    """

    thing: str
    leaves: tuple[Leaf, ...]
    files: Mapping[str, str]
    pending: tuple[str, ...] = ()
    unlogged: tuple[str, ...] = ()
    is_cut: bool = False

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The manifest of these bytes; members that are not known are passed over. Raises EvidenceRefused."""
        _require(len(content) <= MANIFEST_BYTES_MAX, f"a manifest has at most {MANIFEST_BYTES_MAX:,} bytes")
        try:
            told = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError):
            raise EvidenceRefused(f"{MANIFEST_FILE} is not JSON") from None
        _require(isinstance(told, dict) and told.get("format") == FORMAT, f"{MANIFEST_FILE} is not of {FORMAT}")
        thing, leaves, files, is_cut = (told.get(name) for name in ("thing", "leaves", "files", "is_cut"))
        _require(isinstance(thing, str) and isinstance(is_cut, bool), f"{MANIFEST_FILE} does not say what it is of")
        _require(isinstance(leaves, list) and len(leaves) <= RECORDS_MAX, f"a bundle has at most {RECORDS_MAX} records")
        _require(isinstance(files, dict) and len(files) <= FILES_MAX, f"a bundle has at most {FILES_MAX} files")
        for name, digest in files.items():
            sound = _NAME.fullmatch(name) and isinstance(digest, str) and _SHA256.fullmatch(digest)
            _require(bool(sound), f"{MANIFEST_FILE} lists what is no file and its SHA-256")
        read = tuple(map(Leaf.of_json, leaves))
        ascending = all(one.index < other.index for one, other in pairwise(read))
        _require(ascending, "the leaves are not in the order of the tree")
        return cls(thing, read, files, _ids(told.get("pending")), _ids(told.get("unlogged")), is_cut)

    def __bytes__(self) -> bytes:
        """The manifest as it is stored: JSON, sorted by key."""
        told = {
            "format": FORMAT,
            "thing": self.thing,
            "is_cut": self.is_cut,
            "leaves": [leaf.as_json() for leaf in self.leaves],
            "pending": list(self.pending),
            "unlogged": list(self.unlogged),
            "files": dict(self.files),
        }
        return json.dumps(told, ensure_ascii=False, sort_keys=True, indent=1).encode() + b"\n"


class EvidenceBundle:
    """The files of a bundle, opened. Raises EvidenceRefused when it is no zip of such files, or beyond a limit.

    No zip64, comment or file twice, no other folder than `proofs`, stored or deflated only. OSError is the system's.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            _check_end(self._file)
            with _sound_zip():
                self._zip = zipfile.ZipFile(self._file)
            self._files = {info.filename: info for info in _checked(self._zip.infolist())}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> frozenset[str]:
        """The names of its files."""
        return frozenset(self._files)

    def manifest(self) -> Manifest:
        """What it says that it holds. Raises EvidenceRefused."""
        if MANIFEST_FILE not in self._files:
            raise EvidenceRefused(f"the zip has no {MANIFEST_FILE}: it is no evidence bundle")
        return Manifest.read(self.read(MANIFEST_FILE, MANIFEST_BYTES_MAX))

    def read(self, name: str, bytes_max: int) -> bytes:
        """A file that is there, or one byte more than is allowed of it, which its reader then refuses."""
        with self._open(name) as file, _sound_zip():
            return file.read(bytes_max + 1)

    def lines(self, name: str) -> Iterator[Line]:
        """The lines of a file that is there."""
        with _sound_zip():
            yield from lines_of(self._open(name))

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file that is there, in hex."""
        digest = hashlib.sha256()
        with self._open(name) as file, _sound_zip():
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def _open(self, name: str) -> BinaryIO:
        with _sound_zip():
            return io.BufferedReader(self._zip.open(self._files[name]))  # type: ignore[type-var] # as in `export`


class BundleWriter:
    """Packs a bundle into a file that can be sought in: the same contents, in the same order, give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=False)
        self._files: dict[str, str] = {}
        self.add(README_FILE, README.encode())

    def add(self, name: str, content: bytes) -> None:
        """Put a file in, each once."""
        self._files[name] = hashlib.sha256(content).hexdigest()
        self._zip.writestr(_row(name), content)

    def copy(self, name: str, source: BinaryIO) -> None:
        """Put in what is left to read of another file."""
        digest = hashlib.sha256()
        with self._zip.open(_row(name), "w") as file:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                file.write(block)
        self._files[name] = digest.hexdigest()

    def end(self, manifest: Manifest) -> None:
        """Put in the manifest, which names the files that were put in; nothing may come behind it."""
        self._zip.writestr(_row(MANIFEST_FILE), bytes(replace(manifest, files=self._files)))
        self._zip.close()


def proof_file(index: int) -> str:
    """Where the evidence of a leaf lies."""
    return f"{_PROOFS}{index}{FILE_SUFFIX}"


@contextmanager
def _sound_zip() -> Iterator[None]:
    """Have what a damaged zip raises be EvidenceRefused."""
    try:
        with whole_zip():
            yield
    except LogMalformed as error:
        raise EvidenceRefused(error.message) from None
    except OSError as error:
        # A directory that says that it lies before the file's beginning shows as a seek that the system refuses.
        if error.errno != errno.EINVAL:
            raise
        raise EvidenceRefused("the zip's directory is damaged") from None


def _check_end(file: BinaryIO) -> None:
    """Require a small directory before the zip is opened: `zipfile` reads all of it, whatever it holds.

    The end record must be the last 22 bytes, so that it is the one that `zipfile` finds (PKWARE APPNOTE, 4.3.16).
    """
    found = os.fstat(file.fileno())
    _require(
        stat.S_ISREG(found.st_mode) and _END_BYTES <= found.st_size <= FILE_BYTES_MAX, "this is no evidence bundle"
    )
    before = min(_ZIP64_BYTES, found.st_size - _END_BYTES)
    file.seek(-_END_BYTES - before, os.SEEK_END)
    tail = file.read(before + _END_BYTES)
    end, locator = tail[before:], tail[:before]
    _require(end.startswith(_END) and end.endswith(b"\x00\x00"), "this is no zip, or one with a comment")
    _require(not locator.startswith(_ZIP64), "a bundle is no zip64")
    count, size = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    _require(count <= FILES_MAX + 1 and size <= DIRECTORY_BYTES_MAX, f"a bundle has at most {FILES_MAX:,} files")
    file.seek(0)


def _checked(infos: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The files of a zip, whose names and sizes a bundle may have. Raises EvidenceRefused."""
    # Who packs a folder anew gets a row for the folder.
    files = [info for info in infos if info.filename != _PROOFS or info.file_size]
    _require(len(files) <= FILES_MAX, f"a bundle has at most {FILES_MAX:,} files")
    _require(len({info.filename.lower() for info in files}) == len(files), "a file is there twice")
    for info in files:
        # `zipfile` cuts names at a NUL, and other programs may not.
        sound = _NAME.fullmatch(info.filename) and info.orig_filename == info.filename
        _require(bool(sound), "the zip has a file that no bundle has")
        stored = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & _ENCRYPTED
        _require(stored, "a file is encrypted, or packed in another way than deflate")
    size = sum(info.file_size for info in files)
    _require(size <= CONTENT_BYTES_MAX, f"the files of a bundle have at most {CONTENT_BYTES_MAX:,} bytes together")
    return files


def _ids(told: Any) -> tuple[str, ...]:
    _require(isinstance(told, list) and len(told) <= RECORDS_MAX, f"{MANIFEST_FILE} does not say what is left out")
    _require(all(isinstance(one, str) and _ID.fullmatch(one) for one in told), "what is left out is not ids")
    return tuple(told)


def _row(name: str) -> zipfile.ZipInfo:
    # Stored and of one moment, so that bundles can be compared, whatever compresses them and when.
    info = zipfile.ZipInfo(name, _MOMENT)
    info.create_system, info.external_attr = _UNIX, (stat.S_IFREG | 0o644) << 16
    return info


def _require(sound: bool, why: str) -> None:
    if not sound:
        raise EvidenceRefused(why)

"""Sealing: a finished export becomes one file that only the print house can open, and back.

What is sealed is what the export's manifest speaks of, and nothing else. The file is a tar archive (POSIX.1-2001, pax)
inside an age file (age-encryption.org/v1, X25519 recipients), so that a print house needs no program of ours. Both
ways stream: memory does not grow with the export.
"""

import errno
import hashlib
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import pyrage

from codes import manifest
from codes.manifest import MANIFEST_BYTES_MAX, MANIFEST_NAME, SIGNATURE_NAME, FileAltered, Manifest
from kit.errors import Conflict, Invalid
from kit.files import PRIVATE_MODE, DiskFull, replacing, require_free
from offline_sdk.cose import Signer

RECIPIENTS_MAX = 20
FILES_MAX = 100_000
NAME_BYTES_MAX = 255  # what every file system takes
_READ_BYTES = 1 << 20
_IDENTITY_BYTES_MAX = 64 * 1024
_AGE_CHUNK_BYTES, _AGE_TAG_BYTES = 64 * 1024, 16  # age-encryption.org/v1, "Payload"
_AGE_HEADER_BYTES_MAX = 1024  # a recipient, with what age adds of its own accord
_BYTES_MAX = {MANIFEST_NAME: MANIFEST_BYTES_MAX, SIGNATURE_NAME: 1024}
_TAR_HEADER_BYTES_MAX = 8 * tarfile.BLOCKSIZE  # a pax header for a long name or a large file, and the plain one


class RecipientInvalid(Invalid):
    code = "RecipientInvalid"


class IdentityInvalid(Invalid):
    code = "IdentityInvalid"


class IdentityRefused(Invalid):
    code = "IdentityRefused"


class PackageTooManyFiles(Invalid):
    code = "PackageTooManyFiles"


class PackageDamaged(Invalid):
    code = "PackageDamaged"


class PackageUnsafe(Invalid):
    code = "PackageUnsafe"


class PackageFolderTaken(Conflict):
    code = "PackageFolderTaken"


Progress = Callable[[int], None]
"""Told how many more bytes of the files were worked through."""
PublicKeys = Mapping[int, Signer]
"""32-byte public keys by key number."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A package file: its SHA-256, its size in bytes, and how many files lie in it."""

    sha256: bytes
    bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    name: str
    bytes: int
    sha256: str | None
    """What the manifest says of it, in hexadecimal; the manifest says nothing of itself."""


def recipients_of(texts: Sequence[str]) -> list[str]:
    """X25519 recipients (`age1…`) in canonical form. Raises RecipientInvalid unless there are 1 to 20, each once."""
    if not 1 <= len(texts) <= RECIPIENTS_MAX:
        raise RecipientInvalid(f"a package is sealed for 1 to {RECIPIENTS_MAX} recipients, not {len(texts)}")
    return list(map(str, _parsed(texts)))


def _parsed(texts: Sequence[str]) -> list[pyrage.x25519.Recipient]:
    try:
        parsed = [pyrage.x25519.Recipient.from_str(text.strip()) for text in texts]
    except pyrage.RecipientError:
        # What was given is not repeated: it may be a private key that was pasted by mistake.
        raise RecipientInvalid(
            "a recipient is a public X25519 key of age, age1 and 58 more characters",
            hint="The print house runs `age-keygen -o key.txt` and tells you the line that begins with age1.",
        ) from None
    if len(set(map(str, parsed))) != len(parsed):
        raise RecipientInvalid("a recipient is named twice")
    return parsed


def sealed_bytes_max(folder: Path, contents: Manifest, recipients: int = RECIPIENTS_MAX) -> int:
    """Most bytes that a package of this export takes. Raises PackageTooManyFiles, FileAltered."""
    return _bytes_max(_entries(folder, contents), recipients)


def _bytes_max(entries: Sequence[_Entry], recipients: int) -> int:
    archive = sum(_TAR_HEADER_BYTES_MAX + _padded(entry.bytes) for entry in entries) + tarfile.RECORDSIZE
    chunks = archive // _AGE_CHUNK_BYTES + 1
    return archive + chunks * _AGE_TAG_BYTES + (1 + recipients) * _AGE_HEADER_BYTES_MAX


def seal(folder: Path, contents: Manifest, recipients: Sequence[str], out: Path, progress: Progress) -> Sealed:
    """Seal a finished export for its recipients. `out` appears whole or not at all, readable by its owner alone.

    `contents` is the folder's manifest as `manifest.read` found it; the files are compared with it while they are read.
    Raises RecipientInvalid, FileAltered, PackageTooManyFiles, and DiskFull before anything is written.
    """
    recipients_of(recipients)
    entries = _entries(folder, contents)
    require_free(out.parent, _bytes_max(entries, len(recipients)))
    reader = _Archive(entries, progress)
    with replacing(out, PRIVATE_MODE) as file:
        writer = _Hashing(file)
        try:
            pyrage.encrypt_io(reader, writer, _parsed(recipients))
        except (pyrage.EncryptError, OSError):
            # The library gives only the text of what its reader or writer raised.
            if isinstance(writer.failed, OSError) and writer.failed.errno == errno.ENOSPC:
                raise DiskFull(f"the disk under {out.parent} is full", hint="Nothing was kept. Make room.") from None
            raise (reader.failed or writer.failed) or RuntimeError("age could not encrypt") from None
    return Sealed(writer.sha256.digest(), writer.bytes, len(entries))


def _entries(folder: Path, contents: Manifest) -> list[_Entry]:
    """The files of an export, in the order in which they are archived: the manifest first, then by name."""
    files = sorted(contents.files, key=lambda file: file.path)
    if len(files) > FILES_MAX:
        raise PackageTooManyFiles(
            f"a package holds at most {FILES_MAX:,} files, not {len(files):,}",
            hint="Export pictures as archives, not as folders.",
        )
    own = [
        _Entry(folder / name, name, (folder / name).stat().st_size, None) for name in (MANIFEST_NAME, SIGNATURE_NAME)
    ]
    return own + [_Entry(folder / file.path, file.path, file.bytes, file.sha256) for file in files]


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _header(name: str, size: int) -> bytes:
    """A file's header: it tells the name and the size alone, so that the same export gives the same archive."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, PRIVATE_MODE
    # Pax, because the older headers end at 8 GiB.
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _archived(entries: Sequence[_Entry], progress: Progress) -> Iterator[bytes]:
    total = 0
    for entry in entries:
        header = _header(entry.name, entry.bytes)
        yield header
        yield from _content(entry, progress)
        yield bytes(_padded(entry.bytes) - entry.bytes)
        total += len(header) + _padded(entry.bytes)
    total += 2 * tarfile.BLOCKSIZE
    yield bytes(2 * tarfile.BLOCKSIZE + -total % tarfile.RECORDSIZE)


def _content(entry: _Entry, progress: Progress) -> Iterator[bytes]:
    """A file's bytes, exactly as many as its header says. Raises FileAltered, at the latest at their end."""
    digest, rest = hashlib.sha256(), entry.bytes
    altered = FileAltered(f"{entry.name} is not the file that the manifest speaks of")
    try:
        with entry.path.open("rb") as file:
            while block := file.read(min(_READ_BYTES, rest + 1)):
                rest -= len(block)
                if rest < 0:
                    raise altered
                digest.update(block)
                yield block
                progress(len(block))
    except FileNotFoundError:
        raise FileAltered(f"{entry.name} is missing") from None
    if rest or entry.sha256 not in (None, digest.hexdigest()):
        raise altered


class _Archive:
    """The tar archive as a stream that the encryption reads from."""

    def __init__(self, entries: Sequence[_Entry], progress: Progress) -> None:
        self._blocks = _archived(entries, progress)
        self._rest = memoryview(b"")
        self.failed: BaseException | None = None

    def read(self, bytes_max: int) -> bytes:
        try:
            while not self._rest:
                self._rest = memoryview(next(self._blocks))
        except StopIteration:
            return b""
        except BaseException as error:
            self.failed = error
            raise
        block, self._rest = self._rest[:bytes_max], self._rest[bytes_max:]
        return bytes(block)


class _Hashing:
    """A file that is hashed and counted while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.failed: BaseException | None = None

    def write(self, block: bytes) -> int:
        try:
            self._file.write(block)
        except BaseException as error:
            self.failed = error
            raise
        self.sha256.update(block)
        self.bytes += len(block)
        return len(block)

    def flush(self) -> None:
        pass  # whoever opened the file flushes it once, at its end


def open_package(
    path: Path,
    identity_file: Path,
    folder: Path,
    public_keys: PublicKeys,
    progress: Progress,
    require: Callable[[Manifest], None] = lambda contents: None,
) -> Manifest:
    """Open a package into a new folder, which appears whole and checked, or not at all. Returns its manifest.

    Age proves that nobody altered the file, not who made it: anyone can encrypt to a public key. Who made it is what
    the manifest's signature proves, under one of `public_keys`; `require` may raise over what it says.
    Raises IdentityInvalid, IdentityRefused (sealed for somebody else), PackageDamaged, PackageUnsafe (it holds what
    no manifest speaks of, or reaches out of its folder), ManifestMissing, ManifestInvalid, FileAltered,
    PackageFolderTaken, DiskFull.
    """
    identities = _identities(identity_file)
    if folder.exists():
        raise PackageFolderTaken(f"{folder} exists already", hint="Name a new folder; it is made here.")
    require_free(folder.parent, path.stat().st_size)
    beside = folder.with_name(f".{folder.name}.fanxing-part")  # a name that nobody gives to a folder of his own
    shutil.rmtree(beside, ignore_errors=True)  # what a crash left
    beside.mkdir(parents=True, mode=0o700)
    try:
        names = _opened(path, identities, beside)
        contents = manifest.read(beside, public_keys)
        require(contents)
        manifest.check_files(beside, contents, progress)
        if names != {MANIFEST_NAME, SIGNATURE_NAME} | {file.path for file in contents.files}:
            raise _unsafe()
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return contents


def _identities(path: Path) -> list[pyrage.x25519.Identity]:
    """The private keys in a file as age-keygen writes it."""
    with path.open("rb") as file:
        content = file.read(_IDENTITY_BYTES_MAX + 1)
    refused = IdentityInvalid(
        f"{path} is no identity file of age",
        hint="Name the file that `age-keygen -o` wrote: it holds AGE-SECRET-KEY-1….",
    )
    if len(content) > _IDENTITY_BYTES_MAX:
        raise refused
    try:
        lines = [line.strip() for line in content.decode("ascii").splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (UnicodeDecodeError, pyrage.IdentityError):
        raise refused from None
    if not found:
        raise refused
    return found


def _opened(path: Path, identities: Sequence[pyrage.x25519.Identity], folder: Path) -> set[str]:
    """Decrypt in a thread, and unpack what comes out of it as it comes."""
    read_end, write_end = os.pipe()
    writer = _Pipe(write_end)
    failed: list[BaseException] = []

    def decrypt() -> None:
        try:
            with path.open("rb") as source, writer:
                pyrage.decrypt_io(source, writer, identities)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=decrypt, name="decrypt", daemon=True)
    thread.start()
    try:
        with open(read_end, "rb", buffering=_READ_BYTES) as archive:
            names = _unpack(archive, folder)
            while archive.read(_READ_BYTES):  # the end of the file is authenticated too
                pass
    except (tarfile.TarError, ValueError):  # the second for names and numbers that are none
        thread.join()
        # An archive that breaks off is what a failed decryption looks like from here: the cause comes first.
        raise _refusal(path, failed[0] if failed and not writer.broken else None) from None
    thread.join()
    if failed:
        raise _refusal(path, failed[0]) from None
    return names


class _Pipe:
    """The writing end of a pipe; `broken` when nobody reads any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.broken = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)

    def write(self, block: bytes) -> int:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BrokenPipeError:
            self.broken = True
            raise
        return len(block)

    def flush(self) -> None:
        pass


def _refusal(path: Path, error: BaseException | None) -> BaseException:
    if isinstance(error, pyrage.DecryptError) and str(error) == "No matching keys found":
        return IdentityRefused(
            f"{path} was not sealed for this identity", hint="Ask the brand for whose public key it was sealed."
        )
    if error is None or isinstance(error, pyrage.DecryptError | OSError):
        return PackageDamaged(f"{path} is damaged or was altered", hint="Nothing was kept. Fetch the package again.")
    return error


def _unpack(archive: BinaryIO, folder: Path) -> set[str]:
    names: set[str] = set()
    with tarfile.open(fileobj=archive, mode="r|", encoding="utf-8", errors="strict") as opened:
        while (member := opened.next()) is not None:
            _require_plain(member, names)
            names.add(member.name)
            source = opened.extractfile(member)
            assert source is not None  # it is a plain file
            _write(folder.joinpath(member.name), source)
            opened.members.clear()  # type: ignore[attr-defined]  # it would grow with every file, typeshed or not
    return names


def _write(target: Path, source: IO[bytes]) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, _READ_BYTES)
    except (FileExistsError, NotADirectoryError):  # one name lies inside another
        raise _unsafe() from None


def _require_plain(member: tarfile.TarInfo, names: set[str]) -> None:
    """Raises PackageUnsafe for everything but a plain file, under a relative name that no file before it had."""
    parts = PurePosixPath(member.name).parts
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    inside = bool(parts) and not member.name.startswith("/") and ".." not in parts and member.name.isprintable()
    # Whoever encrypted this is not known yet: no name that the disk refuses, and no manifest that fills the memory.
    fits = len(member.name.encode()) <= NAME_BYTES_MAX and member.size <= _BYTES_MAX.get(member.name, member.size)
    own = len(parts) < 2 or parts[0] not in _BYTES_MAX
    known = member.name in names or len(names) >= FILES_MAX + len(_BYTES_MAX)
    if not (plain and inside and fits and own and member.name == "/".join(parts)) or known:
        raise _unsafe()


def _unsafe() -> PackageUnsafe:
    return PackageUnsafe(
        "the package holds something that its manifest does not speak of: it was not made with `fanxing package seal`",
        hint="Nothing was kept. Ask the brand whether it sent this package.",
    )

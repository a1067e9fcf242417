"""Sealing: what goes in comes out, only for whom it was sealed, and never in half."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyrage
import pytest

from codes.manifest import FileAltered, ManifestInvalid, ManifestMissing
from codes.packages import sealing
from codes.packages.sealing import (
    RECIPIENTS_MAX,
    IdentityInvalid,
    IdentityRefused,
    PackageDamaged,
    PackageFolderTaken,
    PackageTooManyFiles,
    PackageUnsafe,
    RecipientInvalid,
    Sealed,
)
from kit.files import DiskFull
from offline_sdk import Signer
from tests.codes.packages.conftest import KID, Export, MakeExport, PrintHouse, mode, new_print_house

PublicKeys = dict[int, Signer]
NO_BYTES = bytes(1024)


def ignore(_bytes: int) -> None:
    pass


def seal(export: Export, out: Path, *recipients: str) -> Sealed:
    return sealing.seal(export.folder, export.contents, recipients, out, ignore)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: apt-get install {name}"
    return found


@pytest.fixture
def package(export: Export, print_house: PrintHouse, tmp_path: Path) -> Path:
    path = tmp_path / "package.tar.age"
    seal(export, path, print_house.recipient)
    return path


def test_what_was_sealed_comes_out_again(
    export: Export, print_house: PrintHouse, public_keys: PublicKeys, tmp_path: Path
) -> None:
    path, told = tmp_path / "shelf" / "package.tar.age", []
    sealed = sealing.seal(export.folder, export.contents, [print_house.recipient], path, told.append)
    content = path.read_bytes()
    assert sealed == Sealed(hashlib.sha256(content).digest(), len(content), 5)
    assert mode(path) == 0o600
    assert sum(told) == sum(map(len, tree(export.folder).values()))
    assert len(content) <= sealing.sealed_bytes_max(export.folder, export.contents, 1)
    opened = sealing.open_package(path, print_house.identity_file, tmp_path / "opened", public_keys, ignore)
    assert opened == export.contents
    assert tree(tmp_path / "opened") == tree(export.folder)
    assert mode(tmp_path / "opened") == 0o700


def test_each_recipient_opens_it(export: Export, public_keys: PublicKeys, tmp_path: Path) -> None:
    houses = [new_print_house(tmp_path / f"{number}.txt") for number in range(3)]
    seal(export, tmp_path / "package", *(house.recipient for house in houses))
    for number, house in enumerate(houses):
        folder = tmp_path / f"opened-{number}"
        sealing.open_package(tmp_path / "package", house.identity_file, folder, public_keys, ignore)
        assert tree(folder) == tree(export.folder)


def test_the_archive_is_the_same_every_time(package: Path, export: Export, print_house: PrintHouse) -> None:
    first = archive_of(package, print_house)
    for path in export.folder.rglob("*"):
        os.utime(path, (1, 1))
    again = package.with_name("again")
    seal(export, again, print_house.recipient)
    assert archive_of(again, print_house) == first
    assert again.read_bytes() != package.read_bytes()  # its key is another
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert archive.getnames() == ["manifest.json", "manifest.sig", "empty 空.txt", "outer.csv", "sheets/00001.pdf"]
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in archive} == {(0, 0, "", 0o600)}


def archive_of(package: Path, print_house: PrintHouse) -> bytes:
    line = print_house.identity_file.read_text().splitlines()[-1]
    archive: bytes = pyrage.decrypt(package.read_bytes(), [pyrage.x25519.Identity.from_str(line)])
    return archive


def test_stock_age_and_tar_open_a_package(
    package: Path, export: Export, print_house: PrintHouse, tmp_path: Path
) -> None:
    archive, folder = tmp_path / "package.tar", tmp_path / "by hand"
    folder.mkdir()
    subprocess.run(
        [tool("age"), "--decrypt", "--identity", print_house.identity_file, "--output", archive, package], check=True
    )
    subprocess.run([tool("tar"), "--extract", "--file", archive, "--directory", folder], check=True)
    assert tree(folder) == tree(export.folder)


def test_what_stock_tools_seal_opens_here(
    export: Export, print_house: PrintHouse, public_keys: PublicKeys, tmp_path: Path
) -> None:
    archive, package = tmp_path / "made.tar", tmp_path / "made.tar.age"
    names = sorted(tree(export.folder))
    subprocess.run([tool("tar"), "--create", "--file", archive, "--directory", export.folder, *names], check=True)
    subprocess.run([tool("age"), "-r", print_house.recipient, "-o", package, archive], check=True)
    sealing.open_package(package, print_house.identity_file, tmp_path / "opened", public_keys, ignore)
    assert tree(tmp_path / "opened") == tree(export.folder)


def test_keys_of_stock_age_keygen_are_taken(export: Export, public_keys: PublicKeys, tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    made = subprocess.run([tool("age-keygen"), "-o", path], check=True, capture_output=True, text=True)
    seal(export, tmp_path / "package", made.stderr.split()[-1])
    sealing.open_package(tmp_path / "package", path, tmp_path / "opened", public_keys, ignore)


def test_a_name_or_size_beyond_old_tar_is_kept() -> None:
    for name, size in (("sheets/" + "长" * 80 + ".pdf", 20_000_000_000), ("a" * 300, 1), ("a", 8**11)):
        with tarfile.open(fileobj=io.BytesIO(sealing._header(name, size)), mode="r|") as archive:
            member = archive.next()
            assert member is not None
            assert (member.name, member.size) == (name, size)
        assert len(sealing._header(name, size)) <= sealing._TAR_HEADER_BYTES_MAX


@pytest.mark.parametrize(
    "recipients",
    [
        [],
        [""],
        ["age1"],
        ["print-house@example.cn"],
        ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN"],
        ["age1qcdqj7fkdle7yu676ttpahc05ecx7248vvjt3jds2y03y9uhe39srx83t4"],
        ["age1qcdqj7fkdle7yu676ttpahc05ecx7248vvjt3jds2y03y9uhe39srx83t3"] * 2,
    ],
)
def test_what_is_no_recipient_is_refused(export: Export, recipients: list[str], tmp_path: Path) -> None:
    with pytest.raises(RecipientInvalid):
        seal(export, tmp_path / "package", *recipients)
    assert not (tmp_path / "package").exists()


def test_recipients_are_one_to_twenty() -> None:
    many = [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(RECIPIENTS_MAX + 1)]
    assert sealing.recipients_of(many[:RECIPIENTS_MAX]) == many[:RECIPIENTS_MAX]
    assert sealing.recipients_of([f" {many[0]}\n"]) == many[:1]
    with pytest.raises(RecipientInvalid):
        sealing.recipients_of(many)


def test_a_private_key_given_as_recipient_is_not_repeated(export: Export, tmp_path: Path) -> None:
    secret = str(pyrage.x25519.Identity.generate())
    with pytest.raises(RecipientInvalid) as refused:
        seal(export, tmp_path / "package", secret)
    assert secret[20:] not in f"{refused.value.message} {refused.value.hint}"


def test_a_file_count_above_the_limit_is_refused(
    export: Export, print_house: PrintHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "FILES_MAX", 3)
    seal(export, tmp_path / "package", print_house.recipient)
    monkeypatch.setattr(sealing, "FILES_MAX", 2)
    with pytest.raises(PackageTooManyFiles):
        seal(export, tmp_path / "another", print_house.recipient)
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "missing"])
def test_an_export_that_is_not_its_manifests_is_not_sealed(
    export: Export, print_house: PrintHouse, tmp_path: Path, change: str
) -> None:
    path = export.folder / "outer.csv"
    content = path.read_bytes()
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes({"longer": content + b"x", "shorter": content[:-1], "other": b"x" + content[1:]}[change])
    (tmp_path / "shelf").mkdir()
    with pytest.raises(FileAltered, match=r"outer\.csv"):
        seal(export, tmp_path / "shelf" / "package", print_house.recipient)
    assert list((tmp_path / "shelf").iterdir()) == []


def test_what_the_manifest_does_not_speak_of_stays_at_home(
    export: Export, print_house: PrintHouse, public_keys: PublicKeys, tmp_path: Path
) -> None:
    (export.folder / "notes.txt").write_text("call Li about the price")
    seal(export, tmp_path / "package", print_house.recipient)
    sealing.open_package(tmp_path / "package", print_house.identity_file, tmp_path / "opened", public_keys, ignore)
    assert tree(export.folder).keys() - tree(tmp_path / "opened").keys() == {"notes.txt"}


def test_a_full_disk_is_noticed_before_anything_is_written(
    export: Export,
    print_house: PrintHouse,
    public_keys: PublicKeys,
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = sealing.sealed_bytes_max(export.folder, export.contents, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed))
    seal(export, tmp_path / "fits", print_house.recipient)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed - 1))
    with pytest.raises(DiskFull):
        seal(export, tmp_path / "shelf" / "package", print_house.recipient)
    assert not (tmp_path / "shelf").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=package.stat().st_size - 1))
    with pytest.raises(DiskFull):
        sealing.open_package(package, print_house.identity_file, tmp_path / "opened", public_keys, ignore)
    assert not (tmp_path / "opened").exists()


def refuses(error: type[Exception], package: Path, identity_file: Path, public_keys: PublicKeys) -> None:
    folder = package.with_name("opened")
    with pytest.raises(error):
        sealing.open_package(package, identity_file, folder, public_keys, ignore)
    assert not folder.exists()
    assert not folder.with_name("opened.part").exists()


def test_another_identity_opens_nothing(package: Path, public_keys: PublicKeys, tmp_path: Path) -> None:
    refuses(IdentityRefused, package, new_print_house(tmp_path / "other.txt").identity_file, public_keys)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# only a comment\n",
        b"age1qcdqj7fkdle7yu676ttpahc05ecx7248vvjt3jds2y03y9uhe39srx83t3",
        b"\xff\xfe",
        b"#" * 70_000,
    ],
    ids=["empty", "comment", "public key", "binary", "endless"],
)
def test_what_is_no_identity_file_is_refused(
    package: Path, public_keys: PublicKeys, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "key.txt"
    path.write_bytes(content)
    refuses(IdentityInvalid, package, path, public_keys)


def test_every_altered_part_is_noticed(package: Path, print_house: PrintHouse, public_keys: PublicKeys) -> None:
    content = package.read_bytes()
    header_ends = content.index(b"\n--- ") + 50
    places = [0, 30, 60, header_ends - 20, header_ends + 5, header_ends + 40, len(content) // 2, len(content) - 1]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1
        package.write_bytes(altered)
        # In the line that names the key, a changed bit looks like a package for somebody else.
        kinds = (PackageDamaged, IdentityRefused) if place < header_ends - 45 else PackageDamaged
        refuses(kinds, package, print_house.identity_file, public_keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [0, 1, 100, 300, 70_000, 131_500, -1, -16, -17])
def test_a_package_that_breaks_off_is_noticed(
    package: Path, print_house: PrintHouse, public_keys: PublicKeys, kept: int
) -> None:
    package.write_bytes(package.read_bytes()[:kept])
    refuses(PackageDamaged, package, print_house.identity_file, public_keys)


def test_bytes_after_the_end_are_noticed(package: Path, print_house: PrintHouse, public_keys: PublicKeys) -> None:
    package.write_bytes(package.read_bytes() + b"x")
    refuses(PackageDamaged, package, print_house.identity_file, public_keys)


def forged(package: Path, print_house: PrintHouse, archive: bytes) -> None:
    """Anyone can encrypt to a public key."""
    recipient = pyrage.x25519.Recipient.from_str(print_house.recipient)
    package.write_bytes(pyrage.encrypt(archive, [recipient]))


def test_a_package_that_somebody_else_made_is_refused(
    package: Path, make_export: MakeExport, print_house: PrintHouse, public_keys: PublicKeys
) -> None:
    other = make_export({"outer.csv": b"forged"}, "forged")
    (other.folder / "manifest.sig").write_text("00" * 64)
    seal(other, package, print_house.recipient)
    refuses(ManifestInvalid, package, print_house.identity_file, public_keys)


def test_a_file_swapped_under_a_good_manifest_is_refused(
    package: Path, print_house: PrintHouse, public_keys: PublicKeys
) -> None:
    archive = archive_of(package, print_house)
    forged(package, print_house, archive.replace(b"%PDF", b"%PDQ"))
    refuses(FileAltered, package, print_house.identity_file, public_keys)


def test_a_file_more_than_the_manifest_speaks_of_is_refused(
    package: Path, print_house: PrintHouse, public_keys: PublicKeys
) -> None:
    archive = archive_of(package, print_house)
    more = sealing._header("readme.exe", 512) + bytes(512)
    forged(package, print_house, archive.rstrip(b"\0") + bytes(-len(archive.rstrip(b"\0")) % 512) + more + NO_BYTES)
    refuses(PackageUnsafe, package, print_house.identity_file, public_keys)


def test_a_package_without_manifest_is_refused(package: Path, print_house: PrintHouse, public_keys: PublicKeys) -> None:
    forged(package, print_house, sealing._header("outer.csv", 512) + bytes(512) + NO_BYTES)
    refuses(ManifestMissing, package, print_house.identity_file, public_keys)


@pytest.mark.parametrize("archive", [b"", b"no archive", b"x" * 10_240], ids=["empty", "short", "junk"])
def test_what_is_no_archive_is_refused(
    package: Path, print_house: PrintHouse, public_keys: PublicKeys, archive: bytes
) -> None:
    forged(package, print_house, archive)
    refuses(PackageDamaged, package, print_house.identity_file, public_keys)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(-(-size // 512) * 512)


@pytest.mark.parametrize(
    "archive",
    [
        entry("/tmp/out"),  # noqa: S108
        entry("../out"),
        entry("a/../../out"),
        entry("./out"),
        entry("a//out"),
        entry("out\nside"),
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", tarfile.LNKTYPE, "manifest.json"),
        entry("folder", tarfile.DIRTYPE),
        entry("pipe", tarfile.FIFOTYPE),
        entry("disk", tarfile.BLKTYPE),
        entry("sparse", tarfile.GNUTYPE_SPARSE),
        entry("twice") + entry("twice"),
        entry("n" * 256),
        entry("/".join("n" * 500)),
        entry("manifest.json/out"),
        entry("manifest.sig/out"),
        entry("manifest.sig", size=1025),
        entry("a") + entry("a/b"),
        entry("a/b") + entry("a"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(
    package: Path, print_house: PrintHouse, public_keys: PublicKeys, archive: bytes, tmp_path: Path
) -> None:
    forged(package, print_house, archive + NO_BYTES)
    before = set(tmp_path.rglob("*"))
    refuses(PackageUnsafe, package, print_house.identity_file, public_keys)
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_that_exists_is_left_alone(
    package: Path, print_house: PrintHouse, public_keys: PublicKeys, tmp_path: Path
) -> None:
    folder = tmp_path / "opened"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(PackageFolderTaken):
        sealing.open_package(package, print_house.identity_file, folder, public_keys, ignore)
    assert [path.name for path in folder.iterdir()] == ["mine"]
    beside = tmp_path / "other.part"
    folder.rename(beside)
    sealing.open_package(package, print_house.identity_file, tmp_path / "other", public_keys, ignore)
    assert [path.name for path in beside.iterdir()] == ["mine"]


_SEAL = """
import resource, sys, time
from pathlib import Path
from codes import manifest
from codes.packages import sealing
from offline_sdk import Algorithm, Signer

pause_s, public, out, identity, *folders = sys.argv[1:]
known = {7: Signer(Algorithm.ED25519, bytes.fromhex(public))}
for folder in map(Path, folders):
    contents = manifest.read(folder, known)
    recipient = Path(identity).read_text().split("public key: ")[1].split()[0]
    sealing.seal(folder, contents, [recipient], Path(out), lambda _bytes: time.sleep(float(pause_s)))
    opened = Path(out).with_name(folder.name + "-opened")
    sealing.open_package(Path(out), Path(identity), opened, known, lambda _bytes: None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


def sealer(
    pause_s: float, public_keys: PublicKeys, out: Path, house: PrintHouse, *exports: Export
) -> "subprocess.Popen[str]":
    folders = [export.folder for export in exports]
    public = public_keys[KID].public.hex()
    arguments = [sys.executable, "-c", _SEAL, str(pause_s), public, out, house.identity_file, *folders]
    return subprocess.Popen(arguments, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)


def test_killed_while_sealing_leaves_no_half_package(
    make_export: MakeExport, print_house: PrintHouse, public_keys: PublicKeys, tmp_path: Path
) -> None:
    export = make_export({"outer.csv": os.urandom(8 << 20)})
    out = tmp_path / "shelf" / "package"
    process = sealer(0.2, public_keys, out, print_house, export)
    deadline = time.monotonic() + 60
    while not (out.parent.exists() and any(path.stat().st_size for path in out.parent.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    seal(export, out, print_house.recipient)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_export(
    make_export: MakeExport, print_house: PrintHouse, public_keys: PublicKeys, tmp_path: Path
) -> None:
    small = make_export({"outer.csv": os.urandom(1 << 20)}, "small")
    large = make_export({"outer.csv": os.urandom(300 << 20)}, "large")
    process = sealer(0, public_keys, tmp_path / "package", print_house, small, large)
    answer, _ = process.communicate()
    assert process.returncode == 0
    before_kib, after_kib = map(int, answer.split())
    assert after_kib - before_kib < 24 * 1024

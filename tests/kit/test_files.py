"""Files: whole or not at all; secrets for their owner alone."""

import shutil
import stat
from pathlib import Path

import pytest

from kit import files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "codes.csv"
    with files.replacing(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_bytes(b"old")

    def fail() -> None:
        with files.replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "codes.csv.part").write_bytes(b"half of yesterday's")
    with files.replacing(tmp_path / "codes.csv") as file:
        file.write(b"new")
    assert (tmp_path / "codes.csv").read_bytes() == b"new"


def test_a_private_file_is_private_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    with files.replacing(path, files.PRIVATE_MODE) as file:
        assert mode(path.with_name("package.zip.part")) == 0o600
        file.write(b"codes")
    assert mode(path) == 0o600


def test_a_secret_is_its_owners_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "vault.key"
    files.write_secret(path, b"secret")
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    with pytest.raises(FileExistsError):
        files.write_secret(path, b"other")
    assert path.read_bytes() == b"secret"


def test_a_disk_with_room_to_the_byte_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000))
    for needed in (0, 999, 1_000):
        files.require_free(tmp_path, needed)
    with pytest.raises(files.DiskFull, match="1,001 bytes"):
        files.require_free(tmp_path, 1_001)


def test_room_is_asked_of_the_disk_that_a_new_folder_will_be_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    files.require_free(tmp_path / "not" / "yet", 1)
    monkeypatch.chdir(tmp_path)
    files.require_free(Path("not/yet"), 1)
    assert [path.resolve() for path in asked] == [tmp_path] * 2
    assert not (tmp_path / "not").exists()

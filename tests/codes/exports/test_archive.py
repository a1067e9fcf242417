"""Archives: what was packed comes out, and nothing else does."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from codes.exports.archive import PICTURE_BYTES_MAX, ArchiveInvalid, pack, unpack

SERIALS = [f"00001{item:09d}" for item in range(3)]
PICTURES = {f"{serial}.png": serial.encode() for serial in SERIALS}


def archive_of(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("deflate", [True, False])
def test_pictures_come_out_as_they_went_in_for_their_owner_alone(tmp_path: Path, deflate: bool) -> None:
    (tmp_path / "a.zip").write_bytes(pack(PICTURES.items(), deflate=deflate))
    written = unpack(tmp_path / "a.zip", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in written} == PICTURES
    assert {path.parent for path in written} == {tmp_path / "out"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


def test_an_archive_tells_no_time_and_keeps_pictures_private(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pack(PICTURES.items(), deflate=True))) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o600}


def test_pictures_of_a_former_export_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(pack(PICTURES.items(), deflate=False))
    (tmp_path / "00001000000000.png").write_bytes(b"a former and longer picture")
    assert unpack(tmp_path / "a.zip", tmp_path)[0].read_bytes() == b"00001000000000"


@pytest.mark.parametrize(
    "name",
    [
        "../00001000000000.png",
        "/00001000000000.png",
        "folder/00001000000000.png",
        "00001000000000.png/",
        "0000100000000.png",
        "000010000000000.png",
        "00001000000000.exe",
        "00001000000000.png\n",
        "٠٠٠٠١٠٠٠٠٠٠٠٠٠.png",
        "..\\00001000000000.png",
    ],
)
def test_an_archive_with_an_odd_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    path = archive_of(tmp_path / "a.zip", ("00001000000001.png", b"good"), (name, b"bad"))
    with pytest.raises(ArchiveInvalid):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("size", "fits"), [(PICTURE_BYTES_MAX, True), (PICTURE_BYTES_MAX + 1, False)])
def test_a_picture_is_no_larger_than_any_that_is_made(tmp_path: Path, size: int, fits: bool) -> None:
    path = archive_of(tmp_path / "a.zip", ("00001000000001.svg", bytes(size)))
    if fits:
        assert unpack(path, tmp_path / "out")[0].stat().st_size == size
    else:
        with pytest.raises(ArchiveInvalid):
            unpack(path, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_names_a_picture_twice_is_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", ("00001000000001.png", b"one"), ("00001000000001.png", b"two"))
    with pytest.raises(ArchiveInvalid):
        unpack(path, tmp_path / "out")


def test_a_link_in_the_folder_leads_no_picture_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(pack(PICTURES.items(), deflate=False))
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "out" / "00001000000000.png").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_an_archive_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.zip").write_bytes(pack(PICTURES.items(), deflate=False)[:-cut])
    with pytest.raises(ArchiveInvalid):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("deflate", [True, False])
@pytest.mark.parametrize("at", range(49, 58))
def test_an_archive_with_a_damaged_picture_is_refused(tmp_path: Path, deflate: bool, at: int) -> None:
    content = bytearray(pack(PICTURES.items(), deflate=deflate))
    content[at] ^= 0xFF  # in the first picture: 30 bytes of header and 18 of name stand before it
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArchiveInvalid):
        unpack(tmp_path / "a.zip", tmp_path / "out")

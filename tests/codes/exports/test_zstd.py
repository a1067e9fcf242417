"""Zstandard exports: frames in a row, which decoders read as one file."""

import io
import subprocess
from pathlib import Path

import pytest
import zstandard

from codes.exports import ExportKind
from tests.codes.conftest import MakeRecipe
from tests.codes.exports.conftest import Write

KINDS = [(ExportKind.CSV_ZST, ExportKind.CSV), (ExportKind.NDJSON_ZST, ExportKind.NDJSON)]
ITEMS, ITEMS_MAX, SECTIONS = 100, 30, 4


def unpacked(content: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as reader:
        return reader.read()


@pytest.mark.parametrize(("packed", "plain"), KINDS)
def test_the_frames_together_are_the_plain_file(
    write: Write, make_recipe: MakeRecipe, packed: ExportKind, plain: ExportKind
) -> None:
    recipe = make_recipe(ITEMS)
    files = write(packed, recipe, items_max=ITEMS_MAX)
    assert {path: unpacked(content) for path, content in files.items()} == {
        f"{path}.zst": content for path, content in write(plain, recipe).items()
    }


@pytest.mark.parametrize(("packed", "plain"), KINDS)
def test_zstds_own_program_reads_the_file_and_finds_its_checksums(
    tmp_path: Path, write: Write, make_recipe: MakeRecipe, packed: ExportKind, plain: ExportKind
) -> None:
    recipe = make_recipe(ITEMS)
    ((name, content),) = write(packed, recipe, items_max=ITEMS_MAX).items()
    (tmp_path / name).write_bytes(content)
    run = ["zstd", "--no-progress", "-q"]
    done = subprocess.run([*run, "-dc", tmp_path / name], check=True, capture_output=True)
    assert [done.stdout] == list(write(plain, recipe).values())
    damaged = bytearray(content)
    damaged[-1] ^= 1  # the last frame's checksum
    (tmp_path / name).write_bytes(damaged)
    assert subprocess.run([*run, "-t", tmp_path / name], check=False, capture_output=True).returncode != 0


def test_every_frame_tells_its_size(write: Write, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(ITEMS)
    (content,) = write(ExportKind.CSV_ZST, recipe, items_max=ITEMS_MAX).values()
    sizes, rest = [], content
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        sizes.append(zstandard.get_frame_parameters(rest).content_size)
        assert zstandard.get_frame_parameters(rest).has_checksum
        assert len(frame.decompress(rest)) == sizes[-1]
        rest = frame.unused_data
    assert len(sizes) == SECTIONS
    assert sum(sizes) == len(unpacked(content))

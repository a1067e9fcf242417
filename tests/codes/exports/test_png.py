"""PNG exports: one picture a code, which a decoder reads, in folders that are there whole or not at all."""

import os
from pathlib import Path

import pytest
from PIL import Image

from codes.exports.png import MODULE_PX, PngExport
from offline_sdk import Profile
from tests.codes.conftest import Chunks, MakeOrder, decoded

BOTH = (Profile.OUTER, Profile.INNER)


def test_every_picture_is_one_bit_a_pixel_and_holds_its_code(
    tmp_path: Path, make_order: MakeOrder, chunks: Chunks
) -> None:
    made = list(chunks(make_order(5, BOTH)))
    with PngExport(make_order(5, BOTH), tmp_path) as writing:
        for chunk in made:
            writing.add(chunk)
    assert writing.paths == [tmp_path / "png" / "outer", tmp_path / "png" / "inner"]
    for chunk, folder in zip(made, writing.paths, strict=True):
        assert sorted(os.listdir(folder)) == sorted(f"{serial}.png" for serial in chunk.serials)
        for serial, text in zip(chunk.serials, chunk.texts, strict=True):
            with Image.open(folder / f"{serial}.png") as picture:
                assert (picture.format, picture.mode) == ("PNG", "1")
                assert picture.size == ((45 + 8) * MODULE_PX,) * 2
                assert [symbol.text for symbol in decoded(picture)] == [text]
            # IHDR, the bit depth (PNG specification, 11.2.2): printers' programs read it.
            assert (folder / f"{serial}.png").read_bytes()[24] == 1


def test_an_export_made_again_replaces_the_former_one(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    def export(quantity: int, order_number: int) -> dict[str, bytes]:
        order = make_order(quantity, order_number=order_number)
        with PngExport(order, tmp_path) as writing:
            for chunk in chunks(order):
                writing.add(chunk)
        return {path.name: path.read_bytes() for path in writing.paths[0].iterdir()}

    first = export(3, 1)
    assert export(3, 1) == first
    assert len(export(2, 2)) == 2, "pictures of another order were left among these"


def test_a_failure_midway_leaves_no_picture(tmp_path: Path, make_order: MakeOrder, chunks: Chunks) -> None:
    with pytest.raises(RuntimeError), PngExport(make_order(2, BOTH), tmp_path) as writing:
        fail_after_one(writing, chunks, make_order)
    assert os.listdir(tmp_path) == []


def fail_after_one(writing: PngExport, chunks: Chunks, make_order: MakeOrder) -> None:
    for chunk in chunks(make_order(2, BOTH)):
        writing.add(chunk)
        raise RuntimeError

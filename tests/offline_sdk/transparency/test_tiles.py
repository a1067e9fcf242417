from contextlib import suppress
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sdk.errors import LogMalformed, TileMissing
from offline_sdk.transparency import tiles, tree
from offline_sdk.transparency.frontier import APPEND_HASHES_MAX, Frontier
from offline_sdk.transparency.tiles import ENTRY_BYTES_MAX, LEVEL_MAX, TileId
from offline_sdk.transparency.tree import TREE_SIZE_MAX

# Paths are addresses that others keep: never change them.
PATHS = {
    "tile/0/x001/x234/067": TileId(0, 1_234_067),
    "tile/0/000": TileId(0, 0),
    "tile/1/x001/000.p/1": TileId(1, 1_000, 1),
    "tile/6/000.p/31": TileId(6, 0, 31),
    "tile/entries/x273/000": TileId(None, 273_000),
    "tile/entries/999.p/255": TileId(None, 999, 255),
    "tile/0/x035/x184/x372/x088/831": TileId(0, TREE_SIZE_MAX >> 8),
}


@pytest.mark.parametrize(("path", "tile"), PATHS.items(), ids=str)
def test_paths_are_those_of_the_specification(path: str, tile: TileId) -> None:
    assert tile.path == path
    assert TileId.of_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/",
        "tile/00/000",
        "tile/7/000",
        "tile/64/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/entries/x001/x234/067.p/8/",
        "/tile/0/000",
        "tile/0/٠٠٠",
        "tile/1/x035/x184/x372/x088/831",
        "tile/0/" + "x001/" * 30 + "001",
        "tile/0/000\n",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(LogMalformed):
        TileId.of_path(path)


@settings(max_examples=40)
@given(
    st.text(max_size=80)
    | st.lists(
        st.sampled_from(["tile/", "0/", "6/", "entries/", "x001/", "x000/", "000", "12", ".p/", "255", "\n"])
    ).map("".join)
)
def test_any_text_is_one_tile_in_its_one_form_or_refused(path: str) -> None:
    with suppress(LogMalformed):
        assert TileId.of_path(path).path == path


def test_the_examples_of_the_specification() -> None:
    # tlog-tiles, partial tiles: a tree of 70,000, and one of 256.
    assert [len(list(tiles.tiles_of(70_000, level))) for level in (0, 1, 2, 3)] == [274, 2, 1, 0]
    assert tiles.partial_tiles(70_000) == (TileId(0, 273, 112), TileId(1, 1, 17), TileId(2, 0, 1))
    assert tiles.partial_tiles(256) == (TileId(1, 0, 1),)
    assert list(tiles.tiles_of(256, None)) == [TileId(None, 0)]
    assert tiles.partial_tiles(0) == ()


def test_the_greatest_tree_has_a_tile_for_each_level() -> None:
    partial = tiles.partial_tiles(TREE_SIZE_MAX)
    assert [tile.level for tile in partial] == list(range(LEVEL_MAX + 1))
    with pytest.raises(LogMalformed):
        tiles.partial_tiles(TREE_SIZE_MAX + 1)


def test_a_bundle_of_entries_has_these_bytes() -> None:
    # Never change them: tlog-tiles, log entries.
    assert tiles.encode_entries([b"", b"ab", b"c" * 256]) == b"\x00\x00" + b"\x00\x02ab" + b"\x01\x00" + b"c" * 256


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_entries_are_read_back(entries: list[bytes]) -> None:
    assert tiles.decode_entries(tiles.encode_entries(entries)) == entries


@settings(max_examples=40)
@given(st.binary(max_size=2_000))
def test_any_bytes_are_entries_or_refused(bundle: bytes) -> None:
    with suppress(LogMalformed):
        assert tiles.encode_entries(tiles.decode_entries(bundle)) == bundle


@pytest.mark.parametrize(("number", "right"), [(0, False), (1, True), (256, True), (257, False)])
def test_a_bundle_has_1_to_256_entries(number: int, right: bool) -> None:
    bundle = b"\x00\x01x" * number
    if right:
        assert (
            tiles.decode_entries(bundle)
            == [b"x"] * number
            == tiles.decode_entries(tiles.encode_entries([b"x"] * number))
        )
        return
    with pytest.raises(LogMalformed):
        tiles.decode_entries(bundle)
    with pytest.raises(LogMalformed):
        tiles.encode_entries([b"x"] * number)


@pytest.mark.parametrize(("length", "right"), [(65_534, True), (65_535, True), (65_536, False)])
def test_an_entry_has_at_most_65_535_bytes(length: int, right: bool) -> None:
    entry = b"e" * length
    if right:
        assert tiles.decode_entries(tiles.encode_entries([entry])) == [entry]
        assert tiles.entry_of(entry) == entry
    else:
        with pytest.raises(LogMalformed):
            tiles.encode_entries([entry])
        assert tiles.entry_of(entry).startswith(b"sha-256:")


def test_the_entry_of_a_long_record_is_its_digest() -> None:
    # Never change it: the entries of old logs have it.
    assert tiles.entry_of(b"{" * (ENTRY_BYTES_MAX + 1)) == (
        b"sha-256:f4b7ab03ca2a956dda958b18eebb61b890566681f04a911b014201c79f493740"
    )
    with pytest.raises(LogMalformed):
        tiles.entry_of(b"sha-256:00")


@pytest.mark.parametrize(("length", "right"), [(64, True), (8_192, True), (63, False), (96, False), (0, False)])
def test_a_tile_is_as_wide_as_it_says_or_complete(length: int, right: bool) -> None:
    tile = TileId(0, 0, 2)
    if right:
        assert tiles.check_tile(bytes(length), tile) == bytes(64)
    else:
        with pytest.raises(LogMalformed):
            tiles.check_tile(bytes(length), tile)


HASHES = [tree.leaf_hash(b"%d" % at) for at in range(70_000)]


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 1, 2, 255, 256, 257, 600]), max_size=6))
def test_appending_in_batches_is_appending_at_once(batches: list[int]) -> None:
    frontier, made, size = Frontier(), {}, 0
    for batch in batches:
        grown = frontier.append(HASHES[size : size + batch])
        frontier, size = grown.frontier, size + batch
        made |= {tile.id: tile.hashes for tile in grown.tiles}
    at_once = Frontier().append(HASHES[:size])
    assert frontier == at_once.frontier
    assert frontier.root == tree.root_of(HASHES[:size])
    assert made == {tile.id: tile.hashes for tile in at_once.tiles}
    assert Frontier.of_tiles(size, [content for _tile, content in frontier.partial]) == frontier


def test_a_large_tree_has_the_tiles_that_it_must() -> None:
    first = Frontier().append(HASHES[:60_000])
    grown = first.frontier.append(HASHES[60_000:])
    made = [tile.id for tile in (*first.tiles, *grown.tiles)]
    assert set(made) == {*tiles.tiles_of(69_888, 0), TileId(1, 0)}
    assert tuple(tile for tile, _content in grown.frontier.partial) == tiles.partial_tiles(70_000)
    assert grown.frontier.root == tree.root_of(HASHES)


def test_a_frontier_needs_the_tiles_of_its_size() -> None:
    partial = [content for _tile, content in Frontier().append(HASHES[:300]).frontier.partial]
    with pytest.raises(TileMissing):
        Frontier.of_tiles(300, partial[:1])
    with pytest.raises(LogMalformed):
        Frontier.of_tiles(301, partial)


def test_limits_of_appending() -> None:
    full = Frontier(TREE_SIZE_MAX - 1, tuple(bytes(((TREE_SIZE_MAX - 1 >> 8 * at) % 256) * 32) for at in range(7)))
    assert full.append(HASHES[:1]).frontier.size == TREE_SIZE_MAX
    with pytest.raises(LogMalformed):
        full.append(HASHES[:2])
    with pytest.raises(LogMalformed):
        Frontier().append([b"short"])
    one = HASHES[0]
    assert Frontier().append([one] * APPEND_HASHES_MAX).frontier.size == APPEND_HASHES_MAX
    with pytest.raises(LogMalformed):
        Frontier().append([one] * (APPEND_HASHES_MAX + 1))


def test_reading_a_tile_never_reads_past_it() -> None:
    for height, at in zip(range(8), count()):
        with pytest.raises(TileMissing):
            tiles.Tiles({(0, 0): bytes(32 * ((1 << height) * (at + 1) - 1))}).read(tree.Subtree(height, at))

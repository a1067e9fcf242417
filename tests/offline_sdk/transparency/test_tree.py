from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_sdk.errors import LogMalformed, ProofWrong, TileMissing
from offline_sdk.transparency import tree
from offline_sdk.transparency.tiles import Tiles, tiles_holding
from offline_sdk.transparency.tree import EMPTY_ROOT, TREE_SIZE_MAX, Subtree
from tests.offline_sdk.transparency.log_maker import CT_LEAVES, CT_ROOTS, Log

SIZE = 700
LOG = Log.of(SIZE)
HASHES = tree.leaf_hashes(LOG.entries)
CT = Log()
CT.append(CT_LEAVES)

# Of the same reference implementation: inclusion by (index, size), consistency by (old size, size).
CT_INCLUSION: dict[tuple[int, int], list[str]] = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CT_CONSISTENCY: dict[tuple[int, int], list[str]] = {
    (1, 1): [],
    (1, 8): CT_INCLUSION[0, 8],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (3, 7): [
        "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
        "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "837dbb152e9b079010717e84e865da4ebc0fa198a806d59d31bf15accef22d0e",
    ],
    (4, 7): ["837dbb152e9b079010717e84e865da4ebc0fa198a806d59d31bf15accef22d0e"],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def hexes(hashes: tuple[bytes, ...]) -> list[str]:
    return [one.hex() for one in hashes]


def moved(at: int) -> int:
    return at + 1


@pytest.mark.parametrize("size", range(len(CT_ROOTS)))
def test_roots_are_those_of_the_reference_implementation(size: int) -> None:
    assert tree.root_of(tree.leaf_hashes(CT_LEAVES[:size])).hex() == CT_ROOTS[size]
    assert tree.root(size, CT.reader).hex() == CT_ROOTS[size]


@pytest.mark.parametrize(("case", "proof"), CT_INCLUSION.items(), ids=str)
def test_inclusion_proofs_are_those_of_the_reference_implementation(case: tuple[int, int], proof: list[str]) -> None:
    index, size = case
    made = tree.prove_inclusion(index, size, CT.reader)
    assert hexes(made) == proof
    tree.verify_inclusion(tree.leaf_hash(CT_LEAVES[index]), index, size, bytes.fromhex(CT_ROOTS[size]), made)


@pytest.mark.parametrize(("case", "proof"), CT_CONSISTENCY.items(), ids=str)
def test_consistency_proofs_are_those_of_the_reference_implementation(case: tuple[int, int], proof: list[str]) -> None:
    old, size = case
    made = tree.prove_consistency(old, size, CT.reader)
    assert hexes(made) == proof
    tree.verify_consistency(old, size, bytes.fromhex(CT_ROOTS[old]), bytes.fromhex(CT_ROOTS[size]), made)


def test_every_proof_of_every_small_tree_is_right() -> None:
    roots = [tree.root_of(HASHES[:size]) for size in range(34)]
    for size in range(1, 34):
        for at in range(size):
            tree.verify_inclusion(HASHES[at], at, size, roots[size], tree.prove_inclusion(at, size, LOG.reader))
        for old in range(size + 1):
            tree.verify_consistency(old, size, roots[old], roots[size], LOG.consistency(old, size))


@settings(max_examples=40)
@given(st.data())
def test_proofs_lead_to_the_root_and_nothing_else_does(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, SIZE), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    root = tree.root(size, LOG.reader)
    assert root == tree.root_of(HASHES[:size])
    proof = list(tree.prove_inclusion(index, size, LOG.reader))
    tree.verify_inclusion(HASHES[index], index, size, root, proof)
    refused(tree.verify_inclusion, HASHES[moved(index)], index, size, root, proof)
    refused(tree.verify_inclusion, HASHES[index], index, size, HASHES[0][::-1], proof)
    for other in mutated(proof, data):
        refused(tree.verify_inclusion, HASHES[index], index, size, root, other)
    if size > 1:
        refused(tree.verify_inclusion, HASHES[index], (index + 1) % size, size, root, proof)


@settings(max_examples=40)
@given(st.data())
def test_consistency_proofs_lead_to_both_roots_and_nothing_else_does(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, SIZE), "size")
    old = data.draw(st.integers(1, size - 1), "old size")
    before, after = tree.root(old, LOG.reader), tree.root(size, LOG.reader)
    proof = list(LOG.consistency(old, size))
    tree.verify_consistency(old, size, before, after, proof)
    refused(tree.verify_consistency, old, size, after, after, proof)
    refused(tree.verify_consistency, old, size, before, before, proof)
    for other in mutated(proof, data):
        refused(tree.verify_consistency, old, size, before, after, other)


def mutated(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    made = [[*proof, bytes(32)], [bytes(32), *proof]]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1), "changed hash")
        made += [proof[:-1], proof[1:], [*proof[:at], bytes(32), *proof[at + 1 :]]]
    return made


def refused(verify: Any, *arguments: Any) -> None:
    with pytest.raises(ProofWrong):
        verify(*arguments)


def test_nothing_is_proved_about_no_leaves_but_that_there_were_none() -> None:
    root = tree.root(5, LOG.reader)
    tree.verify_consistency(0, 5, EMPTY_ROOT, root, [])
    tree.verify_consistency(5, 5, root, root, [])
    refused(tree.verify_consistency, 0, 5, root, root, [])
    refused(tree.verify_consistency, 0, 5, EMPTY_ROOT, root, [root])
    refused(tree.verify_consistency, 5, 5, root, EMPTY_ROOT, [])
    refused(tree.verify_consistency, 5, 5, root, root, [root])
    refused(tree.verify_consistency, 3, 5, root, root, [])


WHOLE = st.one_of(st.integers(-2, 5), st.sampled_from([TREE_SIZE_MAX, TREE_SIZE_MAX + 1, 2**64, True, None, 1.0, "1"]))
HASH = st.one_of(st.binary(min_size=32, max_size=32), st.binary(max_size=40), st.none(), st.just("x" * 32))


@settings(max_examples=40)
@given(HASH, WHOLE, WHOLE, HASH, st.lists(HASH, max_size=70))
def test_whatever_is_verified_is_right_or_refused_by_name(
    leaf: Any, index: Any, size: Any, root: Any, proof: list[Any]
) -> None:
    for verify in (
        lambda: tree.verify_inclusion(leaf, index, size, root, proof),
        lambda: tree.verify_consistency(index, size, leaf, root, proof),
    ):
        with suppress(LogMalformed, ProofWrong):
            verify()


@pytest.mark.parametrize(
    ("index", "size", "right"),
    [
        (0, 1, True),
        (0, 0, False),
        (-1, 1, False),
        (1, 1, False),
        (TREE_SIZE_MAX - 1, TREE_SIZE_MAX, True),
        (TREE_SIZE_MAX, TREE_SIZE_MAX, False),
        (0, TREE_SIZE_MAX + 1, False),
        (True, 2, False),
    ],
)
def test_limits_of_index_and_size(index: int, size: int, right: bool) -> None:
    if right:
        assert len(tree.inclusion_path(index, size)) <= 53
    else:
        with pytest.raises(LogMalformed):
            tree.inclusion_path(index, size)


@pytest.mark.parametrize(
    ("old", "size", "right"),
    [(0, 0, True), (TREE_SIZE_MAX, TREE_SIZE_MAX, True), (1, 0, False), (-1, 1, False), (0, TREE_SIZE_MAX + 1, False)],
)
def test_limits_of_old_size_and_size(old: int, size: int, right: bool) -> None:
    if right:
        assert tree.consistency_path(old, size) == ()
    else:
        with pytest.raises(LogMalformed):
            tree.consistency_path(old, size)


@settings(max_examples=30)
@given(st.data())
def test_a_proof_in_the_greatest_tree_reads_few_tiles(data: st.DataObject) -> None:
    size = data.draw(st.integers(2**40, TREE_SIZE_MAX))
    path = tree.inclusion_path(data.draw(st.integers(0, size - 1)), size)
    assert len(path) <= 54
    wanted = tree.subtrees_of(path)
    assert len(tiles_holding(wanted, size)) <= 14
    covered = sorted((one.index << one.height, (one.index + 1) << one.height) for one in wanted)
    assert all(before[1] <= after[0] for before, after in pairwise(covered))
    assert sum(end - start for start, end in covered) == size - 1


def test_a_missing_or_narrow_tile_is_named() -> None:
    gone = {key: tile for key, tile in LOG.tiles.items() if key != (0, 1)}
    with pytest.raises(TileMissing, match="tile 1 of level 0"):
        tree.prove_inclusion(300, 700, Tiles(gone))
    narrow = LOG.tiles | {(0, 2): LOG.tiles[0, 2][:-32]}
    with pytest.raises(TileMissing, match="tile 2 of level 0"):
        tree.root(700, Tiles(narrow))


def test_a_subtree_is_read_from_the_tile_that_holds_it() -> None:
    assert LOG.reader.read(Subtree(8, 1)) == tree.root_of(HASHES[256:512])
    assert LOG.reader.read(Subtree(3, 40)) == tree.root_of(HASHES[320:328])

"""The tree against pymerkle, an implementation of RFC 9162 that shares nothing with this one."""

from random import Random

import pytest
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

from offline_sdk.transparency import tree
from tests.offline_sdk.transparency.log_maker import Log

SIZE = 1_100


@pytest.fixture(scope="module")
def ours() -> Log:
    return Log.of(SIZE)


@pytest.fixture(scope="module")
def theirs(ours: Log) -> InmemoryTree:
    made = InmemoryTree(algorithm="sha256")
    made.append_entries(ours.entries)
    return made


def test_all_roots_are_alike(ours: Log, theirs: InmemoryTree) -> None:
    assert [tree.root(size, ours.reader) for size in range(0, SIZE + 1, 7)] == [
        theirs.get_root(size) for size in range(0, SIZE + 1, 7)
    ]


def test_inclusion_proofs_are_alike_and_verify_both_ways(ours: Log, theirs: InmemoryTree) -> None:
    random = Random(6)
    for _ in range(200):
        size = random.randint(1, SIZE)
        index = random.randrange(size)
        root, leaf = theirs.get_root(size), tree.leaf_hash(ours.entries[index])
        proof = theirs.prove_inclusion(index + 1, size)
        # Their path begins with the leaf itself and they count from 1.
        assert tuple(proof.path[1:]) == tree.prove_inclusion(index, size, ours.reader)
        tree.verify_inclusion(leaf, index, size, root, proof.path[1:])
        verify_inclusion(leaf, tree.root(size, ours.reader), proof, index=index + 1, size=size)


def test_consistency_is_proved_alike(ours: Log, theirs: InmemoryTree) -> None:
    random = Random(9162)
    for _ in range(200):
        size = random.randint(1, SIZE)
        old = random.randint(1, size)
        # Their proofs have another form, so each side is held against the other's roots.
        tree.verify_consistency(
            old, size, theirs.get_root(old), theirs.get_root(size), tree.prove_consistency(old, size, ours.reader)
        )
        verify_consistency(
            tree.root(old, ours.reader), tree.root(size, ours.reader), theirs.prove_consistency(old, size),
            prior_size=old, later_size=size,
        )  # fmt: skip

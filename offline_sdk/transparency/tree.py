"""Tree: the Merkle tree of a transparency log, its roots, and its proofs of inclusion and consistency.

RFC 9162, 2.1, which is RFC 6962, 2.1, with SHA-256. Nothing here stores a hash: who proves says where hashes are kept.
Every size, index and hash is checked; bad ones raise LogMalformed.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol

from ..errors import LogMalformed, ProofWrong

HASH_BYTES: Final = 32
TREE_SIZE_MAX: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact (RFC 8259, 6)."""
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of no leaves (RFC 9162, 2.1.1)."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class Subtree:
    """A complete subtree: the leaves from `index * 2**height` up to `(index + 1) * 2**height`, not included."""

    height: int
    index: int


class HashReader(Protocol):
    """Where the hashes of complete subtrees are kept, as tiles or otherwise."""

    def read(self, subtree: Subtree) -> bytes:
        """The root of this subtree, 32 bytes. Raises TileMissing."""
        ...


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf with this content (RFC 9162, 2.1.1)."""
    return hashlib.sha256(_LEAF + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """The hashes of many leaves."""
    sha256 = hashlib.sha256
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node above these two (RFC 9162, 2.1.1)."""
    return hashlib.sha256(_NODE + left + right).digest()


def row_above(row: bytes) -> bytes:
    """The hashes one height up, of a row of hashes one after another; an odd last one is left out."""
    sha256 = hashlib.sha256
    return b"".join([sha256(b"\x01" + row[at : at + 64]).digest() for at in range(0, len(row) // 64 * 64, 64)])


def row_root(row: bytes) -> bytes:
    """The root over a row of 1, 2, 4, 8, … hashes one after another."""
    while len(row) > HASH_BYTES:
        row = row_above(row)
    return row


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root of the tree of these leaf hashes (RFC 9162, 2.1.1): for small trees, and to check the others against."""
    check_hashes(hashes, "the leaf hashes")
    return fold([_row_of(hashes, at, count) for at, count in _powers(0, len(hashes))])


def fold(roots: Sequence[bytes]) -> bytes:
    """The root above complete subtrees that lie side by side, each less high than the one before it; of none, too."""
    if not roots:
        return EMPTY_ROOT
    found = roots[-1]
    for left in reversed(roots[:-1]):
        found = node_hash(left, found)
    return found


def subtrees(start: int, end: int) -> tuple[Subtree, ...]:
    """The complete subtrees that leaves `start` up to `end`, not included, are made of, from the left.

    `start` is where a node of the tree begins: a multiple of the greatest power of two that is at most `end - start`.
    """
    return tuple(
        Subtree(count.bit_length() - 1, at >> (count.bit_length() - 1)) for at, count in _powers(start, end - start)
    )


def inclusion_path(index: int, size: int) -> tuple[tuple[int, int], ...]:
    """The ranges of leaves, end not included, whose roots prove that a leaf is in the tree; the leaf's sibling first.

    RFC 9162, 2.1.3.1. `size` 1 to TREE_SIZE_MAX, `index` below it.
    """
    check_whole(size, "the tree size", 1, TREE_SIZE_MAX)
    check_whole(index, "the leaf's index", 0, size - 1)
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(old_size: int, size: int) -> tuple[tuple[int, int], ...]:
    """The ranges of leaves, end not included, whose roots prove that the tree of `old_size` begins that of `size`.

    RFC 9162, 2.1.4.1; none where `old_size` is 0 or `size`. `size` up to TREE_SIZE_MAX, `old_size` at most `size`.
    """
    check_whole(size, "the tree size", 0, TREE_SIZE_MAX)
    check_whole(old_size, "the old tree size", 0, size)
    if old_size in (0, size):
        return ()
    start, end, path = 0, size, []
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    # The verifier knows the old root, so the subtree that the old tree ends with is left out where it is all of it.
    return tuple(reversed([*path, (start, end)] if start else path))


def subtrees_of(ranges: Iterable[tuple[int, int]]) -> tuple[Subtree, ...]:
    """All complete subtrees that the roots of these ranges are made of: what to fetch before proving."""
    return tuple(chain.from_iterable(subtrees(start, end) for start, end in ranges))


def root(size: int, reader: HashReader) -> bytes:
    """The root of the tree of the first `size` leaves, `size` 0 to TREE_SIZE_MAX. Raises TileMissing."""
    check_whole(size, "the tree size", 0, TREE_SIZE_MAX)
    return _range_root(0, size, reader)


def prove_inclusion(index: int, size: int, reader: HashReader) -> tuple[bytes, ...]:
    """The inclusion proof of a leaf in the tree of `size` leaves (RFC 9162, 2.1.3.1). Raises TileMissing."""
    return tuple(_range_root(start, end, reader) for start, end in inclusion_path(index, size))


def prove_consistency(old_size: int, size: int, reader: HashReader) -> tuple[bytes, ...]:
    """The consistency proof between two sizes (RFC 9162, 2.1.4.1). Raises TileMissing."""
    return tuple(_range_root(start, end, reader) for start, end in consistency_path(old_size, size))


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Require that a proof leads from a leaf's hash to the root (RFC 9162, 2.1.3.2). Raises ProofWrong."""
    check_whole(size, "the tree size", 1, TREE_SIZE_MAX)
    check_whole(index, "the leaf's index", 0, size - 1)
    check_hashes([leaf, root, *proof], "the inclusion proof")
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofWrong(f"the inclusion proof of leaf {index} has too many hashes")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise ProofWrong(f"the inclusion proof of leaf {index} does not lead to the root of {size} leaves")


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Require that a proof shows the tree of `old_size` to begin that of `size` (RFC 9162, 2.1.4.2).

    With `old_size` 0 or `size` the proof is empty and the root is known. Raises ProofWrong.
    """
    check_whole(size, "the tree size", 0, TREE_SIZE_MAX)
    check_whole(old_size, "the old tree size", 0, size)
    check_hashes([old_root, root, *proof], "the consistency proof")
    wrong = ProofWrong(f"the consistency proof does not lead from {old_size} leaves to {size}")
    if old_size in (0, size):
        if proof or old_root != (root if old_size else EMPTY_ROOT):
            raise wrong
        return
    if not proof:
        raise wrong
    hashes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    place, last = old_size - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    found_old = found = hashes[0]
    for other in hashes[1:]:
        if last == 0:
            raise wrong
        if place & 1 or place == last:
            found_old, found = node_hash(other, found_old), node_hash(other, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, other)
        place, last = place >> 1, last >> 1
    if last or found_old != old_root or found != root:
        raise wrong


def check_whole(value: object, name: str, low: int, high: int) -> None:
    """Require an int, not a bool, from `low` to `high`, both included."""
    if type(value) is not int or not low <= value <= high:
        raise LogMalformed(f"{name} is not a whole number from {low} to {high}")


def check_hashes(hashes: Sequence[bytes], name: str) -> None:
    """Require 32 bytes each."""
    if not all(type(one) is bytes and len(one) == HASH_BYTES for one in hashes):
        raise LogMalformed(f"{name} holds something else than hashes of {HASH_BYTES} bytes")


def _split(count: int) -> int:
    """How many of `count` leaves, 2 or more, are on the left: the greatest power of two below it (RFC 9162, 2.1.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _powers(start: int, count: int) -> Iterable[tuple[int, int]]:
    """Where the complete subtrees of `count` leaves begin, and how many leaves each has, the greatest first."""
    while count:
        power = 1 << (count.bit_length() - 1)
        yield start, power
        start, count = start + power, count - power


def _row_of(hashes: Sequence[bytes], at: int, count: int) -> bytes:
    return row_root(b"".join(hashes[at : at + count]))


def _range_root(start: int, end: int, reader: HashReader) -> bytes:
    return fold([reader.read(subtree) for subtree in subtrees(start, end)])

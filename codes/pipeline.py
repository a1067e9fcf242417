"""The pipeline: serials, signatures and code texts of an order, made chunk by chunk in constant memory.

Chunks are deterministic: the same order gives the same bytes on every run and on every machine (Ed25519 signatures are
deterministic, RFC 8032, 5.1.6; P-256 ones from key files too, RFC 6979), so a chunk that was lost is simply made again.
P-256 in a token or at a KMS is the exception: other bytes, as good as the first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from offline_sdk.code_text import Profile, encode_texts

CHUNK_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an order's codes are made from, apart from the two secret keys: it may travel to any worker."""

    gtin: str
    order_number: int
    quantity: int
    faces: tuple[Profile, ...]
    base_url: str
    kid: int


@dataclass(frozen=True, slots=True)
class Signed:
    """Serials (14 digits) of consecutive issue indexes, and their 64-byte signatures."""

    serials: list[str]
    signatures: list[bytes]


Sign = Callable[[Profile, int, int], Signed]
"""Serials and signatures of one face of an order: (face, first issue index, count)."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of an order that is made at once: items of one face, named by ranges of issue indexes (first and last).

    `number` counts the sections of a face from 0, in the order in which they are printed.
    """

    face: Profile
    number: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many items there are, 1 or more."""
        return sum(last - first + 1 for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The codes of a section: `serials` and `texts` have `section.count` members, in issue order."""

    section: Section
    serials: list[str]
    texts: list[str]


def sections(
    faces: Sequence[Profile], ranges: Sequence[tuple[int, int]], items_max: int = CHUNK_ITEMS
) -> Iterator[Section]:
    """Cut ranges of issue indexes (first and last, both included, ascending) into sections, face after face.

    Every section but the last of a face has `items_max` items, however scattered the ranges are.
    """
    for face in faces:
        for number, part in enumerate(_cut(ranges, items_max)):
            yield Section(face, number, part)


def _cut(ranges: Sequence[tuple[int, int]], items_max: int) -> Iterator[tuple[tuple[int, int], ...]]:
    part: list[tuple[int, int]] = []
    room = items_max
    for first, last in ranges:
        start = first
        while start <= last:
            end = min(last, start + room - 1)
            part.append((start, end))
            room -= end - start + 1
            start = end + 1
            if room == 0:
                yield tuple(part)
                part, room = [], items_max
    if part:
        yield tuple(part)


def make(recipe: Recipe, sign: Sign, section: Section) -> Chunk:
    """Make the codes of a section."""
    serials: list[str] = []
    texts: list[str] = []
    for first, last in section.ranges:
        signed = sign(section.face, first, last - first + 1)
        face = int(section.face)
        texts += encode_texts(recipe.base_url, face, recipe.kid, recipe.gtin, signed.serials, signed.signatures)
        serials += signed.serials
    return Chunk(section, serials, texts)

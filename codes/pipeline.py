"""The pipeline: serials, signatures and code texts of an order, streamed in chunks of constant memory.

Chunks are deterministic: the same order gives the same bytes on every run (Ed25519 signatures are deterministic,
RFC 8032, 5.1.6), so a lost export is simply made again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from codes.orders import CodeOrder
from codes.serials import SerialScheme
from offline_sdk.code_text import Profile, encode_message, encode_text

CHUNK_ITEMS = 10_000

Sign = Callable[[Sequence[bytes]], list[bytes]]
"""Signs messages, in order, with the order's key."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive items of one face: `serials` and `texts` have the same length, at most CHUNK_ITEMS."""

    face: Profile
    start: int
    serials: list[str]
    texts: list[str]


def generate(order: CodeOrder, scheme: SerialScheme, sign: Sign) -> Iterator[Chunk]:
    """Every code of an order: all of the first face in issue order, then all of the second."""
    for face in order.faces:
        for start in range(0, order.quantity, CHUNK_ITEMS):
            yield _chunk(order, scheme, sign, face, start)


def _chunk(order: CodeOrder, scheme: SerialScheme, sign: Sign, face: Profile, start: int) -> Chunk:
    count = min(CHUNK_ITEMS, order.quantity - start)
    numbers = scheme.item_numbers(order.gtin, order.order_number, start, count).tolist()
    serials = [order.serial(number) for number in numbers]
    kid, gtin, base_url, profile = order.kid, order.gtin, order.base_url, int(face)
    signatures = sign([encode_message(profile, kid, gtin, serial) for serial in serials])
    texts = [
        encode_text(base_url, profile, kid, signature, gtin, serial)
        for serial, signature in zip(serials, signatures, strict=True)
    ]
    return Chunk(face, start, serials, texts)

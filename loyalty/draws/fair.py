"""The arithmetic of a fair draw: a committed seed, an endless stream of numbers from it, and what they decide.

Pure, and small enough to be written again by a stranger in another language: docs/loyalty/draws.md is its
specification. Whatever is here may never change: a change would make every draw that was ever published look forged.
"""

import hashlib
import hmac
import json
import struct
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, count, pairwise
from typing import Any

from kit.errors import Invalid

SEED_BYTES = 32
TICKET_BYTES_MAX = 256
WEIGHTS_MAX = 100
"""Most prizes of one draw."""
WEIGHT_TOTAL_MAX = 10**12
"""Most that the weights of a draw sum to; every JSON reader holds it exactly."""
DECK_TICKETS_MAX = 1_000_000
SHARES_MAX = 100
SPLIT_TOTAL_MAX = 10**9

_ODDS = b"fanxing/draw/odds/v1\x00"
_DECK = b"fanxing/draw/deck/v1\x00"
_SPLIT = b"fanxing/draw/split/v1\x00"
_SEED = b"fanxing/draw/seed/v1\x00"
_COMMITMENT = b"fanxing/draw/commitment/v1\x00"
_WORDS = struct.Struct(">4Q")
_WORD = 1 << 64


class DrawInvalid(Invalid):
    """A draw cannot be made like this; the message names the field."""

    code = "DrawInvalid"


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON document (RFC 8785): keys sorted, no blanks, UTF-8.

    Keys are ASCII and numbers whole, so that sorting needs no UTF-16 and no number has two spellings. Raises
    DrawInvalid for text that is not Unicode.
    """
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DrawInvalid("a text holds half of a surrogate pair") from None


def seed_hash(seed: bytes, draw_id: uuid.UUID) -> bytes:
    """What is published of the seed before the draw: SHA-256("fanxing/draw/seed/v1" 0x00 ‖ draw id ‖ seed)."""
    _check_seed(seed)
    return hashlib.sha256(_SEED + draw_id.bytes + seed).digest()


def commitment(terms: Mapping[str, Any]) -> bytes:
    """SHA-256("fanxing/draw/commitment/v1" 0x00 ‖ canonical JSON of the terms), which name the seed's hash."""
    return hashlib.sha256(_COMMITMENT + canonical(terms)).digest()


def outcome(seed: bytes, draw_id: uuid.UUID, ticket: bytes, weights: Sequence[int]) -> int:
    """The index of the weight that the ticket draws, each as likely as its share of the total.

    Weights are 0 or more and sum to 1..10^12. Raises DrawInvalid.
    """
    if not 1 <= len(ticket) <= TICKET_BYTES_MAX:
        raise DrawInvalid(f"ticket: 1 to {TICKET_BYTES_MAX} bytes")
    if not 1 <= len(weights) <= WEIGHTS_MAX or min(weights) < 0 or not 1 <= sum(weights) <= WEIGHT_TOTAL_MAX:
        raise DrawInvalid(f"weights: 1 to {WEIGHTS_MAX}, none below 0, 1 to {WEIGHT_TOTAL_MAX} in all")
    ends = list(accumulate(weights))
    return bisect_right(ends, below(stream(seed, _ODDS + draw_id.bytes + ticket), ends[-1]))


def deck(seed: bytes, draw_id: uuid.UUID, quantities: Sequence[int]) -> bytes:
    """Every ticket of a deck in the order of dealing: a byte each, the index of its prize.

    `quantities[i]` tickets of prize i, laid out in that order and shuffled (Fisher and Yates, from the last place
    down). A million tickets take over a second. Raises DrawInvalid.
    """
    if not 1 <= len(quantities) <= WEIGHTS_MAX or min(quantities) < 0 or not 1 <= sum(quantities) <= DECK_TICKETS_MAX:
        raise DrawInvalid(f"quantities: 1 to {WEIGHTS_MAX}, none below 0, 1 to {DECK_TICKETS_MAX} in all")
    tickets = bytearray()
    for prize, quantity in enumerate(quantities):
        tickets += bytes([prize]) * quantity
    words = stream(seed, _DECK + draw_id.bytes)
    for last in range(len(tickets) - 1, 0, -1):
        other = below(words, last + 1)
        tickets[last], tickets[other] = tickets[other], tickets[last]
    return bytes(tickets)


def split(seed: bytes, packet_id: uuid.UUID, total: int, shares: int, minimum: int) -> list[int]:
    """Cut a total into shares of at least `minimum`; every way of cutting it is equally likely.

    Raises DrawInvalid unless 1 <= shares <= 100, minimum >= 1 and shares * minimum <= total <= 10^9.
    """
    if not 1 <= shares <= SHARES_MAX or minimum < 1 or not shares * minimum <= total <= SPLIT_TOTAL_MAX:
        raise DrawInvalid(f"shares: 1 to {SHARES_MAX}, each at least `minimum`, together at most the total")
    words = stream(seed, _SPLIT + packet_id.bytes)
    # What is left over the minima is dealt out by bars among stars: `places` places, of which shares - 1 are bars.
    places = total - shares * minimum + shares - 1
    bars: set[int] = set()
    while len(bars) < shares - 1:
        bars.add(below(words, places))
    edges = [-1, *sorted(bars), places]
    return [right - left - 1 + minimum for left, right in pairwise(edges)]


def item_ticket(gtin: str, serial: str) -> bytes:
    """The ticket of an item in a draw of scans: "01" GTIN "21" serial, 32 ASCII digits for a serial of 14."""
    return f"01{gtin}21{serial}".encode("ascii")


def stream(seed: bytes, label: bytes) -> Iterator[int]:
    """Endless 64-bit numbers: block i = HMAC-SHA-256(seed, label ‖ i as u64) gives four, all big-endian."""
    _check_seed(seed)
    for number in count():
        yield from _WORDS.unpack(hmac.digest(seed, label + number.to_bytes(8, "big"), "sha256"))


def below(words: Iterator[int], bound: int) -> int:
    """A number of 0..bound-1, all equally likely: words of the incomplete last round are thrown away.

    1 <= bound <= 2^64.
    """
    whole = _WORD - _WORD % bound
    word = next(words)
    while word >= whole:  # a remainder of these would favour the small numbers
        word = next(words)
    return word % bound


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise DrawInvalid(f"seed: {SEED_BYTES} bytes")

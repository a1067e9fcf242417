"""The record of a campaign that draws: what every claimed item drew, in one file that anybody can check without us.

Line 1 is the head: terms, commitment and seed. Every other line is a claim, in the order of tickets.
docs/loyalty/draws.md is the specification. Nothing here knows a database or the time.
"""

import re
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kit.clock import iso
from loyalty.draws import fair
from loyalty.draws.fair import DrawInvalid
from loyalty.draws.record import DrawRecordWrong, document_of, line_of

FORMAT = "fanxing-item-draw-record/v1"
FORM = "item-odds"
_TICKET = re.compile(r"01([0-9]{14})21[0-9]{14}")


@dataclass(frozen=True)
class ClaimLine:
    """One claim: which prize the item drew, and which it was given: the drawn one, or the consolation for it."""

    ticket: str
    drawn: int
    prize: int
    at: datetime

    def document(self) -> dict[str, Any]:
        return {"ticket": self.ticket, "drawn": self.drawn, "prize": self.prize, "at": iso(self.at)}


@dataclass(frozen=True)
class ItemPrizeCount:
    """A prize's totals; `published` is its quantity, None for one that is nothing."""

    kind: str
    amount: int
    published: int | None
    drawn: int
    given: int


@dataclass(frozen=True)
class CheckedItems:
    """A record that holds."""

    draw_id: uuid.UUID
    commitment: bytes
    claims: int
    prizes: tuple[ItemPrizeCount, ...]


def head(terms: Mapping[str, Any], seed: bytes) -> bytes:
    """The first line of a record."""
    commitment = fair.commitment(terms).hex()
    return line_of({"format": FORMAT, "terms": terms, "commitment": commitment, "seed": seed.hex()})


def claim(line: ClaimLine) -> bytes:
    """A line of a record for one claim."""
    return line_of(line.document())


def check(
    lines: Iterable[bytes],
    *,
    commitment: bytes | None = None,
    tickets: Collection[str] = (),
    advance: Callable[[int], None] = lambda _lines: None,
) -> CheckedItems:
    """Recompute a whole record: commitment, every outcome, the totals; that who got the consolation had to.

    `commitment` is the digest as it was published before; `tickets` are of items that people know were claimed, each of
    which must be in the record. `advance` hears how many more lines are done. Raises DrawRecordWrong at the first line
    that is wrong.
    """
    reading = iter(lines)
    begun = _Head.read(document_of(1, next(reading, b"")))
    if commitment is not None and commitment != begun.commitment:
        raise DrawRecordWrong(1, "the commitment is not the one that was published")
    missing, before, number = set(tickets), "", 1
    prizes = len(begun.weights)
    drawn, given, withheld = [0] * prizes, [0] * prizes, [0] * prizes
    for number, raw in enumerate(reading, 2):
        line = begun.claim(number, document_of(number, raw))
        if line.ticket <= before:
            raise DrawRecordWrong(number, "this ticket is not after the one before it")
        before = line.ticket
        drawn[line.drawn] += 1
        given[line.prize] += 1
        withheld[line.drawn] += line.prize != line.drawn
        quantity = begun.quantities[line.prize]
        if quantity is not None and given[line.prize] > quantity:
            raise DrawRecordWrong(number, f"prize {line.prize} is given more than {quantity} times")
        missing.discard(line.ticket)
        advance(1)
    for prize, quantity in enumerate(begun.quantities):
        if withheld[prize] and (quantity is None or given[prize] < quantity):
            raise DrawRecordWrong(
                number, f"prize {prize} was given {given[prize]} times of {quantity}, yet {withheld[prize]} got another"
            )
    if missing:
        raise DrawRecordWrong(number, f"{len(missing)} of the tickets are not in the record")
    counts = tuple(
        ItemPrizeCount(prize["kind"], prize["amount"], prize["quantity"], drawn[position], given[position])
        for position, prize in enumerate(begun.prizes)
    )
    return CheckedItems(begun.draw_id, begun.commitment, number - 1, counts)


@dataclass(frozen=True)
class _Head:
    """The first line, as far as it can be trusted by itself."""

    draw_id: uuid.UUID
    commitment: bytes
    seed: bytes
    gtin: str | None
    starts_at: float
    ends_at: float
    prizes: Sequence[Mapping[str, Any]]
    weights: Sequence[int]
    quantities: Sequence[int | None]

    @classmethod
    def read(cls, document: dict[str, Any]) -> "_Head":
        try:
            terms, seed = document["terms"], bytes.fromhex(document["seed"])
            draw_id, prizes = uuid.UUID(terms["draw_id"]), terms["prizes"]
            weights = [prize["weight"] for prize in prizes]
            quantities = [prize["quantity"] for prize in prizes]
            gtin, starts_at, ends_at = terms["gtin"], terms["starts_at"], terms["ends_at"]
            described = [(prize["kind"], prize["amount"]) for prize in prizes]
            whole = all(type(value) is int for value in (*weights, starts_at, ends_at))
            counted = all(quantity is None or type(quantity) is int for quantity in quantities)
            ours = (document["format"], terms["form"], terms["consolation"]) == (FORMAT, FORM, len(prizes) - 1)
            right = fair.seed_hash(seed, draw_id).hex()
            fair.outcome(seed, draw_id, b"a ticket", weights)
        except DrawInvalid as error:
            raise DrawRecordWrong(1, error.message) from None
        except (LookupError, TypeError, ValueError, AttributeError):
            raise DrawRecordWrong(1, "a field of the head is missing or of the wrong kind") from None
        if not (whole and counted and ours and described):
            raise DrawRecordWrong(1, "this is no head of an item draw")
        if right != terms.get("seed_hash"):
            raise DrawRecordWrong(1, "the seed is not the one that was committed to")
        if head(terms, seed) != line_of(document):
            raise DrawRecordWrong(1, "the commitment is not that of the terms, or the head says something else")
        commitment = fair.commitment(terms)
        return cls(draw_id, commitment, seed, gtin, starts_at, ends_at, prizes, weights, quantities)

    def claim(self, number: int, document: dict[str, Any]) -> ClaimLine:
        try:
            line = ClaimLine(
                document["ticket"], document["drawn"], document["prize"], datetime.fromisoformat(document["at"])
            )
            found = _TICKET.fullmatch(line.ticket)
            known = type(line.drawn) is type(line.prize) is int and document == line.document()
        except (LookupError, TypeError, ValueError):
            found, known = None, False
        if found is None or not known:
            raise DrawRecordWrong(number, "this is no claim of this draw")
        if self.gtin not in (None, found[1]):
            raise DrawRecordWrong(number, "the item is of another product")
        if not self.starts_at <= line.at.timestamp() < self.ends_at + 1:  # the terms name whole seconds
            raise DrawRecordWrong(number, "the claim is not of the time that the terms name")
        right = fair.outcome(self.seed, self.draw_id, line.ticket.encode(), self.weights)
        if line.drawn != right:
            raise DrawRecordWrong(number, f"this item draws prize {right}, not {line.drawn}")
        if line.prize not in (right, len(self.weights) - 1):
            raise DrawRecordWrong(number, "the prize given is neither the drawn one nor the consolation")
        return line

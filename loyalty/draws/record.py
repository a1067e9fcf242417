"""The record of a draw: every play in order, chained, in one file that anybody can check without asking us.

Line 1 is the head: terms, commitment, closing and seed. Every other line is a play. docs/loyalty/draws.md is the
specification. Nothing here knows a database or the time.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kit.clock import iso
from kit.errors import Invalid
from loyalty.draws import fair
from loyalty.draws.fair import DrawInvalid
from loyalty.draws.terms import Form, Terms, Tickets, parse

FORMAT = "fanxing-draw-record/v1"
CLOSING_FORMAT = "fanxing-draw-closing/v1"
LINE_BYTES_MAX = 1 << 20
"""The head of a draw of 100 prizes and 64 stripes has 60 kB; a play has 500 bytes."""
PLAYER_BYTES = 16
TURN_BYTES = 4
ENTROPY_BYTES_MIN = 16
ENTROPY_BYTES_MAX = 64

_CHAIN = b"fanxing/draw/chain/v1\x00"
_STRIPE = b"fanxing/draw/stripe/v1\x00"
_CLOSING = b"fanxing/draw/closing/v1\x00"


class DrawRecordWrong(Invalid):
    """The record contradicts itself or what was published. `line` is the first line that does, from 1."""

    code = "DrawRecordWrong"

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@dataclass(frozen=True)
class PlayLine:
    """One play.

    `drawn` is the prize that came out, `prize` the one that was given: another only when the drawn one was used up.
    `ordinal`: the how manieth of a limited prize this is, counted over all stripes from 1; None for any other.
    """

    stripe: int
    position: int
    ticket: bytes
    drawn: int
    ordinal: int | None
    prize: int
    at: datetime

    def document(self) -> dict[str, Any]:
        return {
            "stripe": self.stripe,
            "position": self.position,
            "ticket": self.ticket.hex(),
            "drawn": self.drawn,
            "ordinal": self.ordinal,
            "prize": self.prize,
            "at": iso(self.at),
        }


@dataclass(frozen=True)
class StripeEnd:
    """What a chain came to: how many plays it has, and the last one's link."""

    plays: int
    head: bytes


@dataclass(frozen=True)
class PrizeCount:
    """A prize's totals. `published`: its quantity, None when unlimited; `left`: what was not given of it."""

    name_zh: str
    name_en: str
    published: int | None
    given: int
    left: int | None


@dataclass(frozen=True)
class Checked:
    """A record that holds. `notes` are true things that a reader should know and that are no fault."""

    terms: Terms
    commitment: bytes
    closing_digest: bytes
    plays: int
    prizes: tuple[PrizeCount, ...]
    notes: tuple[str, ...]

    @property
    def totals_match(self) -> bool:
        """Whether nothing was given that was not published: no prize more often than its quantity."""
        return all(count.left is None or count.left >= 0 for count in self.prizes)


def play_ticket(player: bytes, turn: int, entropy: bytes) -> bytes:
    """The ticket of a member's play. Raises DrawInvalid for entropy of other than 16..64 bytes."""
    if not ENTROPY_BYTES_MIN <= len(entropy) <= ENTROPY_BYTES_MAX:
        raise DrawInvalid(f"entropy: {ENTROPY_BYTES_MIN} to {ENTROPY_BYTES_MAX} bytes")
    return player + turn.to_bytes(TURN_BYTES, "big") + entropy


def home_stripe(ticket: bytes, stripes: int) -> int:
    """The stripe that a ticket belongs to; the next one with tickets left, cyclically, when that is dealt out."""
    return int.from_bytes(hashlib.sha256(_STRIPE + ticket).digest()[:8], "big") % stripes


def chain_start(terms: Terms, stripe: int) -> bytes:
    """What the first play of a stripe is linked to; it binds the chain to the commitment."""
    return hashlib.sha256(_CHAIN + terms.commitment + stripe.to_bytes(4, "big")).digest()


def link(before: bytes, line: PlayLine) -> bytes:
    """SHA-256(link before ‖ canonical JSON of the play)."""
    return hashlib.sha256(before + fair.canonical(line.document())).digest()


def closing(terms: Terms, ends: Sequence[StripeEnd], closed_at: datetime) -> dict[str, Any]:
    """What is published when a draw closes, before its seed is: from then on no play can be added or taken away."""
    return {
        "format": CLOSING_FORMAT,
        "draw_id": str(terms.draw_id),
        "commitment": terms.commitment.hex(),
        "closed_at": iso(closed_at),
        "stripes": [{"plays": end.plays, "head": end.head.hex()} for end in ends],
    }


def closing_digest(document: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(_CLOSING + fair.canonical(document)).digest()


def head(terms: Terms, closed: Mapping[str, Any], seed: bytes) -> bytes:
    """The first line of a record."""
    return line_of(
        {
            "format": FORMAT,
            "terms": terms.document(),
            "commitment": terms.commitment.hex(),
            "closing": closed,
            "closing_digest": closing_digest(closed).hex(),
            "seed": seed.hex(),
        }
    )


def play(line: PlayLine, linked: bytes) -> bytes:
    """A line of a record for one play; a player gets the same as his receipt."""
    return line_of({**line.document(), "link": linked.hex()})


def line_of(document: Mapping[str, Any]) -> bytes:
    """A document as a line of a record: canonical JSON, ended by a line feed."""
    return fair.canonical(document) + b"\n"


def check(
    lines: Iterable[bytes],
    *,
    commitment: bytes | None = None,
    closing: bytes | None = None,
    receipts: Collection[bytes] = (),
    advance: Callable[[int], None] = lambda _lines: None,
) -> Checked:
    """Recompute a whole record: commitment, deck or odds, every outcome, every link, the totals.

    `commitment` and `closing` are digests as they were published before, so that a record that was made anew as a whole
    is found as well; `receipts` are lines that players kept, each of which must be in the record. `advance` hears how
    many more lines are done. Raises DrawRecordWrong at the first line that is wrong.
    """
    reading = iter(lines)
    begun = _Head.read(document_of(1, next(reading, b"")))
    if commitment is not None and commitment != begun.terms.commitment:
        raise DrawRecordWrong(1, "the commitment is not the one that was published")
    if closing is not None and closing != closing_digest(begun.closing):
        raise DrawRecordWrong(1, "the closing is not the one that was published")
    missing = {receipt.strip() for receipt in receipts}
    plays = _Plays(begun)
    for number, raw in enumerate(reading, 2):
        plays.take(number, document_of(number, raw))
        missing.discard(raw.strip())
        advance(1)
    plays.end()
    if missing:
        raise DrawRecordWrong(1 + plays.count, f"{len(missing)} of the receipts are not in the record")
    return plays.checked()


def document_of(number: int, raw: bytes) -> dict[str, Any]:
    """The document of a line, which is its number from 1. Raises DrawRecordWrong for any other spelling of it."""
    try:
        document = json.loads(raw) if len(raw) <= LINE_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    # One spelling alone: a line that reads the same and has other bytes is no line of ours.
    if not isinstance(document, dict) or not _spelt(document, raw):
        raise DrawRecordWrong(number, "this is not canonical JSON of one object, ended by a line feed")
    return document


def _spelt(document: dict[str, Any], raw: bytes) -> bool:
    try:
        return line_of(document) == raw
    except DrawInvalid:
        return False


@dataclass(frozen=True)
class _Head:
    """The first line, as far as it can be trusted by itself."""

    terms: Terms
    closing: dict[str, Any]
    seed: bytes
    ends: tuple[StripeEnd, ...]

    @classmethod
    def read(cls, document: dict[str, Any]) -> "_Head":
        try:
            terms = parse(document["terms"])
            seed = bytes.fromhex(document["seed"])
            closed = document["closing"]
            ends = tuple(StripeEnd(end["plays"], bytes.fromhex(end["head"])) for end in closed["stripes"])
            again = closing(terms, ends, datetime.fromisoformat(closed["closed_at"]))
            right = fair.seed_hash(seed, terms.draw_id)
        except DrawInvalid as error:
            raise DrawRecordWrong(1, error.message) from None
        except (LookupError, TypeError, ValueError, OverflowError):
            raise DrawRecordWrong(1, "a field of the head is missing or of the wrong kind") from None
        if document["commitment"] != terms.commitment.hex():
            raise DrawRecordWrong(1, "the commitment is not that of the terms")
        if right != terms.seed_hash:
            raise DrawRecordWrong(1, "the seed is not the one that was committed to")
        if again != closed or len(ends) != terms.stripes:
            raise DrawRecordWrong(1, "the closing is not one of this draw")
        if head(terms, again, seed) != line_of(document):
            raise DrawRecordWrong(1, "the head says something else, or the closing's digest is wrong")
        return cls(terms, closed, seed, ends)


class _Plays:
    """What the lines so far came to."""

    def __init__(self, begun: _Head) -> None:
        self._head, self._terms = begun, begun.terms
        self._draw_id, self._weights = begun.terms.draw_id, begun.terms.weights
        self._sizes = begun.terms.stripe_sizes() if begun.terms.form is Form.DECK else None
        self._deck = fair.deck(begun.seed, self._draw_id, self._weights) if self._sizes else b""
        self._counter = _Counter(begun.terms)
        self._stripe, self._position = 0, 0
        self._link = chain_start(begun.terms, 0)
        self._number = 1

    @property
    def count(self) -> int:
        return self._number - 1

    def take(self, number: int, document: dict[str, Any]) -> None:
        self._number = number
        line = self._read(document)
        while line.stripe > self._stripe:
            self._end_stripe(number)
        if (line.stripe, line.position) != (self._stripe, self._position):
            self._fail(f"stripe {self._stripe} position {self._position} should come here")
        if self._position >= self._head.ends[self._stripe].plays:
            self._fail(f"stripe {self._stripe} has more plays than its closing says")
        self._check_outcome(line)
        self._check_place(line)
        self._link = link(self._link, line)
        if document != {**line.document(), "link": self._link.hex()}:
            self._fail("the link is not that of this play and those before it")
        self._position += 1

    def end(self) -> None:
        while self._stripe < self._terms.stripes:
            self._end_stripe(self._number + 1)
        self._counter.end(self._number)

    def checked(self) -> Checked:
        terms = self._terms
        closed_at = datetime.fromisoformat(self._head.closing["closed_at"])
        notes = ["The draw was closed before the time that its terms name."] if closed_at < terms.closes_at else []
        return Checked(
            terms=terms,
            commitment=terms.commitment,
            closing_digest=closing_digest(self._head.closing),
            plays=self.count,
            prizes=self._counter.totals(),
            notes=tuple(notes),
        )

    def _fail(self, reason: str) -> None:
        raise DrawRecordWrong(self._number, reason)

    def _read(self, document: dict[str, Any]) -> PlayLine:
        try:
            line = PlayLine(
                stripe=document["stripe"],
                position=document["position"],
                ticket=bytes.fromhex(document["ticket"]),
                drawn=document["drawn"],
                ordinal=document["ordinal"],
                prize=document["prize"],
                at=datetime.fromisoformat(document["at"]),
            )
            numbers = (line.stripe, line.position, line.drawn, line.prize, line.ordinal or 0)
            whole = all(type(value) is int for value in numbers) and line.at.tzinfo is not None
            known = 0 <= line.stripe < self._terms.stripes and 0 <= line.prize < len(self._terms.prizes)
        except (LookupError, TypeError, ValueError):
            whole = known = False
        if not (whole and known):
            raise DrawRecordWrong(self._number, "this is no play of this draw")
        return line

    def _end_stripe(self, number: int) -> None:
        end = self._head.ends[self._stripe]
        if self._position < end.plays:
            raise DrawRecordWrong(number, f"stripe {self._stripe} position {self._position} should come here")
        if self._link != end.head:
            raise DrawRecordWrong(number, f"stripe {self._stripe} does not end as its closing says")
        self._stripe, self._position = self._stripe + 1, 0
        if self._stripe < self._terms.stripes:
            self._link = chain_start(self._terms, self._stripe)

    def _check_outcome(self, line: PlayLine) -> None:
        if self._sizes is None:
            try:
                drawn = fair.outcome(self._head.seed, self._draw_id, line.ticket, self._weights)
            except DrawInvalid as error:
                raise DrawRecordWrong(self._number, error.message) from None
        else:
            place = sum(self._sizes[: line.stripe]) + line.position
            if line.position >= self._sizes[line.stripe]:
                self._fail(f"stripe {line.stripe} has no position {line.position}")
            drawn = self._deck[place]
        if line.drawn != drawn:
            self._fail(f"prize {drawn} comes out here, not {line.drawn}")
        for reason in self._counter.count(self._number, line):
            self._fail(reason)

    def _check_place(self, line: PlayLine) -> None:
        if not self._terms.opens_at <= line.at < self._terms.closes_at:
            self._fail("the play is not within the time that the terms name")
        home, stripes = home_stripe(line.ticket, self._terms.stripes), self._terms.stripes
        passed = (line.stripe - home) % stripes
        for step in range(passed):
            over = (home + step) % stripes
            if self._sizes is None or self._head.ends[over].plays < self._sizes[over]:
                self._fail(f"this ticket belongs to stripe {over}, which was not dealt out")


@dataclass
class _Counter:
    """Counts prizes, ordinals, tickets and turns."""

    terms: Terms
    given: list[int] = field(init=False)
    _ordinals: list[dict[int, int]] = field(init=False)
    _latest: list[tuple[int, int]] = field(init=False)
    _tickets: set[bytes] = field(default_factory=set)
    _turns: dict[bytes, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.given = [0] * len(self.terms.prizes)
        self._ordinals = [{} for _ in self.terms.prizes]
        self._latest = [(0, 0)] * len(self.terms.prizes)

    def count(self, number: int, line: PlayLine) -> Iterator[str]:
        """Why the line cannot be, if it cannot."""
        self.given[line.prize] += 1
        yield from self._wrong_ordinal(number, line)
        digest = hashlib.sha256(line.ticket).digest()[:16]
        if digest in self._tickets:
            yield "this ticket was played before"
        self._tickets.add(digest)
        if self.terms.tickets is Tickets.PLAYS:
            yield from self._wrong_turn(line)

    def _wrong_ordinal(self, number: int, line: PlayLine) -> Iterator[str]:
        quantity = self.terms.prizes[line.drawn].quantity
        if self.terms.form is Form.DECK or quantity is None:
            if line.ordinal is not None or line.prize != line.drawn:
                yield "the prize that came out was not given"
            return
        stripe, before = self._latest[line.drawn]
        if line.ordinal is None or line.ordinal < 1 or line.ordinal in self._ordinals[line.drawn]:
            yield "the ordinal is missing, or was used before"
            return
        if stripe == line.stripe and line.ordinal < before:
            yield f"ordinal {line.ordinal} comes after {before}"
        self._latest[line.drawn] = (line.stripe, line.ordinal)
        self._ordinals[line.drawn][line.ordinal] = number
        right = line.drawn if line.ordinal <= quantity else self.terms.consolation
        if line.prize != right:
            yield f"number {line.ordinal} of {quantity} gives prize {right}, not {line.prize}"

    def _wrong_turn(self, line: PlayLine) -> Iterator[str]:
        entropy = len(line.ticket) - PLAYER_BYTES - TURN_BYTES
        if not ENTROPY_BYTES_MIN <= entropy <= ENTROPY_BYTES_MAX:
            yield "the ticket is not one of a play"
            return
        turn = int.from_bytes(line.ticket[PLAYER_BYTES : PLAYER_BYTES + TURN_BYTES], "big")
        limit = self.terms.limits.member
        if turn < 1 or (limit is not None and turn > limit):
            yield f"turn {turn} is outside what a member may play"
        turns = self._turns.setdefault(line.ticket[:PLAYER_BYTES], [0, 0])
        turns[0] += 1
        turns[1] = max(turns[1], turn)

    def end(self, number: int) -> None:
        """What can be said only after the last line."""
        for used in self._ordinals:
            if used and max(used) != len(used):
                raise DrawRecordWrong(used[max(used)], f"ordinal {max(used)} of {len(used)} drawings")
        if any(played != latest for played, latest in self._turns.values()):
            raise DrawRecordWrong(number, "a player's turns are not all there")

    def totals(self) -> tuple[PrizeCount, ...]:
        return tuple(
            PrizeCount(
                name_zh=entry.name.zh,
                name_en=entry.name.en,
                published=entry.quantity,
                given=given,
                left=None if entry.quantity is None else entry.quantity - given,
            )
            for entry, given in zip(self.terms.prizes, self.given, strict=True)
        )

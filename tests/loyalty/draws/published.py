"""Draws that were played to their end in memory: terms, plays and the lines of the record."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from loyalty.draws import fair, record
from loyalty.draws.record import PlayLine, StripeEnd
from loyalty.draws.terms import DrawPrize, Form, Limits, Made, Terms, Tickets, Words

SEED = bytes(range(32))
DRAW = uuid.UUID("0190f3a0-7b1c-7c11-8000-0123456789ab")
OPENS = datetime(2026, 5, 1, tzinfo=UTC)
CLOSES = OPENS + timedelta(days=30)


def prize(name: str, kind: Made, amount: int, quantity: int | None, weight: int | None = None) -> DrawPrize:
    value = {Made.CASH: amount, Made.NOTHING: 0}.get(kind, 100)
    return DrawPrize(Words(f"{name}奖", name), kind, amount, value, quantity, weight)


DECK = Terms(
    draw_id=DRAW,
    form=Form.DECK,
    tickets=Tickets.PLAYS,
    title=Words("夏日盲盒", "Summer box"),
    opens_at=OPENS,
    closes_at=CLOSES,
    prizes=(
        prize("first", Made.CASH, 5_000_000, 1),
        prize("second", Made.POINTS, 100, 9),
        prize("none", Made.NOTHING, 0, 30),
    ),
    seed_hash=fair.seed_hash(SEED, DRAW),
    stripes=3,
    limits=Limits(member=20),
)
ODDS = replace(
    DECK,
    form=Form.ODDS,
    prizes=(
        prize("first", Made.CASH, 100, 2, 1),
        prize("second", Made.POINTS, 100, None, 4),
        prize("none", Made.NOTHING, 0, None, 5),
    ),
    consolation=2,
)
ITEMS = replace(ODDS, tickets=Tickets.ITEMS, stripes=1)


@dataclass(frozen=True)
class Played:
    """A finished draw."""

    terms: Terms
    lines: tuple[bytes, ...]

    @property
    def closing_digest(self) -> bytes:
        return bytes.fromhex(json.loads(self.lines[0])["closing_digest"])

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def tickets_of(terms: Terms, count: int) -> list[bytes]:
    """As many tickets, of several players in turn."""
    if terms.tickets is Tickets.ITEMS:
        return [fair.item_ticket("06901234567892", f"{number:014d}") for number in range(count)]
    players = [hashlib.sha256(bytes([number])).digest()[: record.PLAYER_BYTES] for number in range(4)]
    return [
        record.play_ticket(players[number % 4], number // 4 + 1, number.to_bytes(record.ENTROPY_BYTES_MIN, "big"))
        for number in range(count)
    ]


def play(terms: Terms, tickets: Sequence[bytes], seed: bytes = SEED) -> Played:
    """Play a draw as an honest operator does, one ticket after another."""
    sizes = terms.stripe_sizes() if terms.form is Form.DECK else None
    cards = fair.deck(seed, terms.draw_id, terms.weights) if sizes else b""
    chains = [record.chain_start(terms, stripe) for stripe in range(terms.stripes)]
    dealt, drawings = [0] * terms.stripes, [0] * len(terms.prizes)
    rows: list[tuple[int, int, bytes]] = []
    for number, ticket in enumerate(tickets):
        stripe = record.home_stripe(ticket, terms.stripes)
        while sizes and dealt[stripe] == sizes[stripe]:
            stripe = (stripe + 1) % terms.stripes
        if sizes:
            drawn = given = cards[sum(sizes[:stripe]) + dealt[stripe]]
            ordinal = None
        else:
            drawn = fair.outcome(seed, terms.draw_id, ticket, terms.weights)
            quantity, drawings[drawn] = terms.prizes[drawn].quantity, drawings[drawn] + 1
            ordinal = None if quantity is None else drawings[drawn]
            given = drawn if quantity is None or drawings[drawn] <= quantity else terms.consolation or 0
        line = PlayLine(stripe, dealt[stripe], ticket, drawn, ordinal, given, OPENS + timedelta(minutes=number))
        chains[stripe] = record.link(chains[stripe], line)
        rows.append((stripe, dealt[stripe], record.play(line, chains[stripe])))
        dealt[stripe] += 1
    ends = [StripeEnd(plays, chain) for plays, chain in zip(dealt, chains, strict=True)]
    closed = record.closing(terms, ends, CLOSES)
    return Played(terms, (record.head(terms, closed, seed), *(row for _, _, row in sorted(rows))))

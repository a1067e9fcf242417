"""The terms of a draw: what is published before it opens, and what its commitment binds.

Plain data that travels as JSON; docs/loyalty/draws.md lists every field. Nothing here knows a database.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from kit.clock import iso
from loyalty.draws import fair
from loyalty.draws.fair import DECK_TICKETS_MAX, WEIGHT_TOTAL_MAX, WEIGHTS_MAX, DrawInvalid

FORMAT = "fanxing-draw/v1"
NAME_CHARACTERS_MAX = 80
STRIPES_MAX = 64
PRICE_POINTS_MAX = 1_000_000
LIMIT_MAX = 1_000_000
DURATION_MAX = timedelta(days=366)
QUANTITY_MAX = 10**9
AMOUNT_MAX = 5_000_000
"""In units of the prize."""
VALUE_FEN_MAX = 5_000_000
"""¥50,000: Anti-Unfair Competition Law of China (2019), article 10 (3), allows no lottery a higher prize."""


class Form(StrEnum):
    """How an outcome comes about."""

    DECK = "deck"
    """A shuffled deck with exact quantities, dealt from the top."""
    ODDS = "odds"
    """Each ticket decides for itself, by the weights."""


class Tickets(StrEnum):
    """What a ticket's bytes are."""

    PLAYS = "plays"
    """Player (16 bytes) ‖ how many plays of his this is (u32, from 1) ‖ random bytes that he chose."""
    ITEMS = "items"
    """A scanned item: "01" GTIN "21" serial, in ASCII."""


class Price(StrEnum):
    """What a play costs."""

    FREE = "free"
    POINTS = "points"
    CHANCES = "chances"


class Made(StrEnum):
    """What a prize is made of. Spelt as `loyalty.prizes` does; here it is part of a published format."""

    POINTS = "points"
    MEGABYTES = "mb"
    CASH = "fen"
    BENEFIT = "benefit"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Words:
    """A name in Chinese and English."""

    zh: str
    en: str


@dataclass(frozen=True)
class DrawPrize:
    """One prize of a draw.

    `amount` is in points, megabytes, fen or benefits (then 1), 0 of nothing. `value_fen` is what one is worth, in fen.
    `quantity`: how many there are; None, for odds alone: as many as are drawn. `weight`: its share of the odds; None
    in a deck, where the quantity is the weight.
    """

    name: Words
    kind: Made
    amount: int
    value_fen: int
    quantity: int | None
    weight: int | None = None
    benefit_id: uuid.UUID | None = None


@dataclass(frozen=True)
class Limits:
    """Most plays of a member in all and a day (Asia/Shanghai), and of a device a day; None: no such limit."""

    member: int | None = None
    member_day: int | None = None
    device_day: int | None = None


@dataclass(frozen=True)
class Terms:
    """Everything that decides a draw, except the seed, of which the hash is here.

    `price_amount` is in points or chances a play, 0 when it is free. `consolation` is the index of the prize that
    follows when a prize of limited quantity is used up. `stripes`: over how many sub-decks, or chains of the record,
    plays are spread.
    """

    draw_id: uuid.UUID
    form: Form
    tickets: Tickets
    title: Words
    opens_at: datetime
    closes_at: datetime
    prizes: tuple[DrawPrize, ...]
    seed_hash: bytes
    stripes: int = 1
    price: Price = Price.FREE
    price_amount: int = 0
    limits: Limits = Limits()
    consolation: int | None = None

    @property
    def commitment(self) -> bytes:
        return fair.commitment(self.document())

    @property
    def weights(self) -> tuple[int, ...]:
        """What the prizes' odds are to each other: of a deck, at its start."""
        return tuple((entry.quantity if self.form is Form.DECK else entry.weight) or 0 for entry in self.prizes)

    def stripe_sizes(self) -> list[int]:
        """How many tickets each sub-deck has: the deck is cut into neighbouring parts, the longer ones first."""
        each, more = divmod(sum(self.weights), self.stripes)
        return [each + (number < more) for number in range(self.stripes)]

    def document(self) -> dict[str, Any]:
        """The terms as JSON: what is published, and what the commitment is taken of."""
        return {
            "format": FORMAT,
            "draw_id": str(self.draw_id),
            "form": self.form.value,
            "tickets": self.tickets.value,
            "title": _words(self.title),
            "opens_at": iso(self.opens_at),
            "closes_at": iso(self.closes_at),
            "prizes": [_prize(entry) for entry in self.prizes],
            "seed_hash": self.seed_hash.hex(),
            "stripes": self.stripes,
            "price": {"kind": self.price.value, "amount": self.price_amount},
            "limits": {
                "member": self.limits.member,
                "member_day": self.limits.member_day,
                "device_day": self.limits.device_day,
            },
            "consolation": self.consolation,
        }

    def check(self) -> None:
        """Raises DrawInvalid, naming the first field that is wrong."""
        for field, wrong in (*_faults(self), *_prize_faults(self)):
            if wrong:
                raise DrawInvalid(field)
        _check_prizes(self)


def parse(document: Mapping[str, Any]) -> Terms:
    """The terms that a JSON document states. Raises DrawInvalid unless it is exactly what `Terms.document` writes."""
    try:
        terms = Terms(
            draw_id=uuid.UUID(document["draw_id"]),
            form=Form(document["form"]),
            tickets=Tickets(document["tickets"]),
            title=_read_words(document["title"]),
            opens_at=datetime.fromisoformat(document["opens_at"]),
            closes_at=datetime.fromisoformat(document["closes_at"]),
            prizes=tuple(_read_prize(entry) for entry in document["prizes"]),
            seed_hash=bytes.fromhex(document["seed_hash"]),
            stripes=_whole(document["stripes"]),
            price=Price(document["price"]["kind"]),
            price_amount=_whole(document["price"]["amount"]),
            limits=Limits(**{name: _whole_or_none(limit) for name, limit in document["limits"].items()}),
            consolation=_whole_or_none(document["consolation"]),
        )
        terms.check()
        same = fair.canonical(terms.document()) == fair.canonical(document)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise DrawInvalid("these are no terms of a draw: a field is missing or of the wrong kind") from None
    if not same:
        raise DrawInvalid("these are no terms of a draw: a field is unknown, or not spelt as it must be")
    return terms


def from_plan(plan: Mapping[str, Any], draw_id: uuid.UUID, seed_hash: bytes) -> Terms:
    """The terms of a draw that is being made, from what its maker wrote: the document without format, ids and hashes.

    Missing fields have their defaults, and times may be written in any form of ISO 8601. Raises DrawInvalid.
    """
    optional: dict[str, Any] = {"benefit_id": None, "quantity": None, "weight": None, "amount": 1, "value_fen": 0}
    try:
        unknown = set(plan) - _PLANNED
        document = {
            "stripes": 1,
            "consolation": None,
            **plan,
            "format": FORMAT,
            "draw_id": str(draw_id),
            "tickets": Tickets.PLAYS.value,
            "seed_hash": seed_hash.hex(),
            "price": {"kind": "free", "amount": 0, **plan.get("price", {})},
            "limits": {"member": None, "member_day": None, "device_day": None, **plan.get("limits", {})},
            "prizes": [{**optional, **entry} for entry in plan["prizes"]],
            **{name: iso(datetime.fromisoformat(plan[name])) for name in ("opens_at", "closes_at")},
        }
    except (LookupError, TypeError, ValueError, OverflowError):
        raise DrawInvalid("this is no plan of a draw: a field is missing or of the wrong kind") from None
    if unknown:
        raise DrawInvalid(f"{min(unknown)}: there is no such field", hint=f"Fields: {', '.join(sorted(_PLANNED))}.")
    return parse(document)


_PLANNED = {"form", "title", "opens_at", "closes_at", "prizes", "stripes", "price", "limits", "consolation"}


def _words(words: Words) -> dict[str, str]:
    return {"zh": words.zh, "en": words.en}


def _read_words(words: Mapping[str, str]) -> Words:
    return Words(_text(words["zh"]), _text(words["en"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if type(value) is not int:  # a bool is an int to isinstance, and another spelling of 1
        raise TypeError
    return value


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)


def _prize(entry: DrawPrize) -> dict[str, Any]:
    return {
        "name": _words(entry.name),
        "kind": entry.kind.value,
        "amount": entry.amount,
        "benefit_id": str(entry.benefit_id) if entry.benefit_id else None,
        "value_fen": entry.value_fen,
        "quantity": entry.quantity,
        "weight": entry.weight,
    }


def _read_prize(entry: Mapping[str, Any]) -> DrawPrize:
    benefit = entry["benefit_id"]
    return DrawPrize(
        name=_read_words(entry["name"]),
        kind=Made(entry["kind"]),
        amount=_whole(entry["amount"]),
        value_fen=_whole(entry["value_fen"]),
        quantity=_whole_or_none(entry["quantity"]),
        weight=_whole_or_none(entry["weight"]),
        benefit_id=uuid.UUID(benefit) if benefit else None,
    )


def _faults(terms: Terms) -> list[tuple[str, bool]]:
    limits = (terms.limits.member, terms.limits.member_day, terms.limits.device_day)
    lowest, highest = (0, 0) if terms.price is Price.FREE else (1, PRICE_POINTS_MAX)
    texts = (terms.title, *(entry.name for entry in terms.prizes))
    return [
        (
            f"title and the prizes' names: 1 to {NAME_CHARACTERS_MAX} characters in each language",
            not all(1 <= len(text) <= NAME_CHARACTERS_MAX for words in texts for text in (words.zh, words.en)),
        ),
        ("closes_at: after opens_at", terms.opens_at >= terms.closes_at),
        (
            f"closes_at: at most {DURATION_MAX.days} days after opens_at",
            terms.closes_at - terms.opens_at > DURATION_MAX,
        ),
        ("seed_hash: 32 bytes", len(terms.seed_hash) != fair.SEED_BYTES),
        (f"stripes: 1 to {STRIPES_MAX}", not 1 <= terms.stripes <= STRIPES_MAX),
        (f"price: {lowest} to {highest} when it is {terms.price}", not lowest <= terms.price_amount <= highest),
        (
            f"limits: 1 to {LIMIT_MAX}",
            not all(limit is None or 1 <= limit <= LIMIT_MAX for limit in limits),
        ),
        ("tickets: a deck has no items for tickets", terms.form is Form.DECK and terms.tickets is Tickets.ITEMS),
        (f"prizes: 1 to {WEIGHTS_MAX}", not 1 <= len(terms.prizes) <= WEIGHTS_MAX),
    ]


def _prize_faults(terms: Terms) -> list[tuple[str, bool]]:
    quantities = [entry.quantity for entry in terms.prizes]
    weights = [entry.weight for entry in terms.prizes]
    given = [quantity for quantity in quantities if quantity is not None]
    if terms.form is Form.DECK:
        return [
            ("weight: none in a deck, whose quantities are the odds", any(weight is not None for weight in weights)),
            ("quantity: 1 or more of each prize of a deck", len(given) < len(quantities) or min(given, default=0) < 1),
            (f"quantity: {DECK_TICKETS_MAX} tickets at most", sum(given) > DECK_TICKETS_MAX),
            ("quantity: a ticket for each stripe at least", sum(given) < terms.stripes),
            ("consolation: none, since every ticket of a deck is there", terms.consolation is not None),
        ]
    told = [weight for weight in weights if weight is not None]
    consolation = terms.consolation
    named = consolation is not None and 0 <= consolation < len(quantities) and quantities[consolation] is None
    return [
        ("weight: 1 or more of each prize", len(told) < len(weights) or min(told, default=0) < 1),
        (f"weight: {WEIGHT_TOTAL_MAX} in all at most", sum(told) > WEIGHT_TOTAL_MAX),
        (f"quantity: 1 to {QUANTITY_MAX}, or none", not all(1 <= quantity <= QUANTITY_MAX for quantity in given)),
        ("consolation: the index of a prize without a quantity, when others have one", bool(given) and not named),
        ("consolation: none, since no prize can be used up", not given and consolation is not None),
    ]


def _check_prizes(terms: Terms) -> None:
    for number, entry in enumerate(terms.prizes):
        kind, unlimited = entry.kind, entry.quantity is None
        lowest, highest = {Made.NOTHING: (0, 0), Made.BENEFIT: (1, 1)}.get(kind, (1, AMOUNT_MAX))
        faults = [
            (f"amount: {lowest} to {highest} of {kind}", not lowest <= entry.amount <= highest),
            ("benefit_id: of a benefit, and of nothing else", (kind is Made.BENEFIT) != (entry.benefit_id is not None)),
            (f"value_fen: 0 to {VALUE_FEN_MAX}, the law's ¥50,000", not 0 <= entry.value_fen <= VALUE_FEN_MAX),
            ("value_fen: the amount, for cash", kind is Made.CASH and entry.value_fen != entry.amount),
            ("value_fen: 0, for nothing", kind is Made.NOTHING and entry.value_fen != 0),
            ("quantity: only points and nothing need none", unlimited and kind not in (Made.NOTHING, Made.POINTS)),
        ]
        for field, wrong in faults:
            if wrong:
                raise DrawInvalid(f"prize {number}: {field}")

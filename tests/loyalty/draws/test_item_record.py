"""The record of a campaign that draws: what is right is believed, and whatever was changed is found on its line."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loyalty.draws import fair, item_record
from loyalty.draws.item_record import ClaimLine
from loyalty.draws.record import DrawRecordWrong, line_of

GTIN = "06901234567892"
START = datetime(2026, 5, 1, tzinfo=UTC)
DRAW = uuid.UUID(int=5)
SEED = bytes(range(32))
WEIGHTS = [1, 3, 6]
TERMS: dict[str, Any] = {
    "form": "item-odds",
    "draw_id": str(DRAW),
    "title": {"zh": "夏", "en": "Summer"},
    "starts_at": int(START.timestamp()),
    "ends_at": int(START.timestamp()) + 86_400,
    "face": 2,
    "gtin": GTIN,
    "seed_hash": fair.seed_hash(SEED, DRAW).hex(),
    "prizes": [
        {"kind": "points", "amount": 500, "benefit_id": None, "weight": 1, "quantity": 2},
        {"kind": "points", "amount": 10, "benefit_id": None, "weight": 3, "quantity": 100},
        {"kind": "nothing", "amount": 0, "benefit_id": None, "weight": 6, "quantity": None},
    ],
    "consolation": 2,
}


def claims(count: int = 60) -> list[ClaimLine]:
    """As a campaign pays them: the first prize twice, then the consolation instead."""
    made, given = [], 0
    for number in range(count):
        ticket = fair.item_ticket(GTIN, f"{number:014d}")
        drawn = fair.outcome(SEED, DRAW, ticket, WEIGHTS)
        given += drawn == 0
        prize = 2 if drawn == 0 and given > 2 else drawn
        made.append(ClaimLine(ticket.decode(), drawn, prize, START + timedelta(seconds=number)))
    return made


def record(lines: list[ClaimLine] | None = None, **changes: Any) -> list[bytes]:
    return [item_record.head(TERMS | changes, SEED), *map(item_record.claim, claims() if lines is None else lines)]


def test_a_record_that_holds_says_what_was_drawn_and_given() -> None:
    done = item_record.check(record(), commitment=fair.commitment(TERMS), tickets=[claims()[7].ticket])
    drawn = [sum(line.drawn == prize for line in claims()) for prize in range(3)]
    assert drawn[0] > 2  # or it would show nothing about the consolation
    assert (done.draw_id, done.claims, [count.drawn for count in done.prizes]) == (DRAW, 60, drawn)
    assert [count.given for count in done.prizes] == [2, drawn[1], drawn[2] + drawn[0] - 2]
    assert item_record.check(record([])).claims == 0


def changed(number: int, **values: Any) -> Callable[[list[bytes]], None]:
    def work(lines: list[bytes]) -> None:
        lines[number] = line_of(json.loads(lines[number]) | values)

    return work


def swapped(lines: list[bytes]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def doubled(lines: list[bytes]) -> None:
    lines.insert(5, lines[4])


def another_prize(lines: list[bytes]) -> None:
    document = json.loads(lines[9])
    lines[9] = line_of(document | {"drawn": (document["drawn"] + 1) % 3, "prize": (document["drawn"] + 1) % 3})


def too_many(lines: list[bytes]) -> None:
    [*_, last] = [number for number, raw in enumerate(lines[1:], 1) if json.loads(raw)["drawn"] == 0]
    changed(last, prize=0)(lines)


def neither(lines: list[bytes]) -> None:
    number = next(number for number, raw in enumerate(lines[1:], 1) if json.loads(raw)["drawn"] == 1)
    changed(number, prize=0)(lines)


def withheld(lines: list[bytes]) -> None:
    number = next(number for number, raw in enumerate(lines[1:], 1) if json.loads(raw)["prize"] == 0)
    changed(number, prize=2)(lines)


def spaced(lines: list[bytes]) -> None:
    lines[2] = json.dumps(json.loads(lines[2])).encode() + b"\n"


@pytest.mark.parametrize(
    "tamper",
    [
        swapped,
        doubled,
        another_prize,
        too_many,
        neither,
        withheld,
        spaced,
        changed(3, at="2026-04-30T23:59:59.999Z"),
        changed(3, at="2026-05-02T00:00:01.000Z"),
        changed(3, at="2026-05-01"),
        changed(3, ticket="0106901234567885" + "21" + "0" * 14),
        changed(3, ticket="01" + GTIN),
        changed(3, ticket=None),
        changed(3, prize=True),
        changed(3, more=1),
        changed(0, seed="00" * 32),
        changed(0, commitment="00" * 32),
        changed(0, terms=TERMS | {"ends_at": TERMS["ends_at"] + 1}),
        changed(0, terms=TERMS | {"form": "odds"}),
        changed(0, terms=TERMS | {"prizes": []}),
        changed(0, terms=7),
        changed(0, seed=None),
    ],
)
def test_a_change_is_found(tamper: Callable[[list[bytes]], None]) -> None:
    lines = record()
    tamper(lines)
    with pytest.raises(DrawRecordWrong):
        item_record.check(lines)


def test_a_prize_that_was_left_over_was_withheld_from_nobody() -> None:
    some = [line for line in claims() if line.drawn != 0]
    assert item_record.check(record(some)).prizes[0].given == 0
    [won, *_] = [line for line in claims() if line.prize == 0]
    [lost, *_] = [line for line in claims() if line.drawn == 0 != line.prize]
    lines = record(sorted([*some, won, lost], key=lambda line: line.ticket))
    with pytest.raises(DrawRecordWrong, match="prize 0 was given 1 times of 2, yet 1 got another"):
        item_record.check(lines)


def test_the_last_second_of_a_campaign_counts() -> None:
    ends = datetime.fromtimestamp(TERMS["ends_at"], UTC)
    [first, *_] = claims()
    at_the_end = ClaimLine(first.ticket, first.drawn, first.prize, ends + timedelta(milliseconds=999))
    assert item_record.check(record([at_the_end])).claims == 1


def test_a_record_made_anew_is_not_the_one_that_was_promised() -> None:
    with pytest.raises(DrawRecordWrong, match="line 1: the commitment is not the one that was published"):
        item_record.check(record(title={"zh": "秋", "en": "Autumn"}), commitment=fair.commitment(TERMS))


def test_a_claim_that_was_left_out_is_missed_by_who_made_it() -> None:
    left_out = claims()[7].ticket
    with pytest.raises(DrawRecordWrong, match="1 of the tickets are not in the record"):
        item_record.check(record([line for line in claims() if line.ticket != left_out]), tickets=[left_out])


def test_the_head_of_another_kind_of_draw_is_refused() -> None:
    for raw in (b"", b"{}\n", b"[]\n", b'{"format":"fanxing-draw-record/v1"}\n'):
        with pytest.raises(DrawRecordWrong):
            item_record.check([raw])

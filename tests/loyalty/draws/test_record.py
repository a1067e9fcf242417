"""The record of a draw: an honest one holds, and whatever is changed in it is found, at its line."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty.draws import fair, record
from loyalty.draws.record import Checked, DrawRecordWrong, PrizeCount
from loyalty.draws.terms import Terms
from tests.loyalty.draws.published import CLOSES, DECK, DRAW, ITEMS, ODDS, OPENS, SEED, Played, play, tickets_of

FORMS = pytest.mark.parametrize("terms", [DECK, ODDS, ITEMS], ids=["deck", "odds", "items"])
PLAYS = 30


def played(terms: Terms, count: int = PLAYS) -> Played:
    return play(terms, tickets_of(terms, count))


def fault(lines: list[bytes] | tuple[bytes, ...], **published: Any) -> DrawRecordWrong:
    with pytest.raises(DrawRecordWrong) as caught:
        record.check(lines, **published)
    return caught.value


def spelt(document: dict[str, Any]) -> bytes:
    return fair.canonical(document) + b"\n"


def changed(draw: Played, number: int, change: Callable[[dict[str, Any]], None]) -> list[bytes]:
    """The record with one line changed, counted from 1."""
    documents = draw.documents()
    change(documents[number - 1])
    lines = list(draw.lines)
    lines[number - 1] = spelt(documents[number - 1])
    return lines


@FORMS
@pytest.mark.parametrize("count", [0, 1, PLAYS])
def test_an_honest_record_holds(terms: Terms, count: int) -> None:
    draw = played(terms, count)
    checked = record.check(
        draw.lines, commitment=terms.commitment, closing=draw.closing_digest, receipts=draw.lines[1:]
    )
    assert (checked.plays, checked.terms, checked.notes) == (count, terms, ())
    assert sum(entry.given for entry in checked.prizes) == count


def test_a_deck_that_was_dealt_out_gave_what_was_published() -> None:
    checked = record.check(played(DECK, 40).lines)
    assert checked.prizes == (
        PrizeCount("first奖", "first", 1, 1, 0),
        PrizeCount("second奖", "second", 9, 9, 0),
        PrizeCount("none奖", "none", 30, 30, 0),
    )


def test_odds_give_the_consolation_when_a_prize_is_used_up() -> None:
    checked = record.check(played(ODDS, 80).lines)
    assert checked.prizes[0] == PrizeCount("first奖", "first", 2, 2, 0)
    documents = [document for document in played(ODDS, 80).documents()[1:] if document["drawn"] == 0]
    given = {document["ordinal"]: document["prize"] for document in documents}
    assert given == {number: 0 if number <= 2 else 2 for number in range(1, len(documents) + 1)}
    assert len(documents) > 2


def test_a_draw_that_ended_early_is_told_of() -> None:
    draw = played(DECK)
    early = record.closing(DECK, [], CLOSES - timedelta(days=1))
    documents = draw.documents()
    documents[0]["closing"]["closed_at"] = early["closed_at"]
    documents[0]["closing_digest"] = record.closing_digest(documents[0]["closing"]).hex()
    checked: Checked = record.check([spelt(documents[0]), *draw.lines[1:]])
    assert checked.notes == ("The draw was closed before the time that its terms name.",)


class TestWhatIsChangedIsFound:
    @FORMS
    @pytest.mark.parametrize("number", [2, 11, PLAYS + 1])
    def test_a_line_that_was_taken_away(self, terms: Terms, number: int) -> None:
        lines = list(played(terms).lines)
        del lines[number - 1]
        assert fault(lines).line in (number, PLAYS + 1)

    @FORMS
    @pytest.mark.parametrize("number", [3, 12, PLAYS + 1])
    def test_a_line_that_comes_twice(self, terms: Terms, number: int) -> None:
        lines = list(played(terms).lines)
        lines.insert(number, lines[number - 1])
        assert fault(lines).line == number + 1

    @FORMS
    @pytest.mark.parametrize("number", [2, 11])
    def test_two_lines_in_another_order(self, terms: Terms, number: int) -> None:
        lines = list(played(terms).lines)
        lines[number - 1], lines[number] = lines[number], lines[number - 1]
        assert fault(lines).line == number

    @FORMS
    @pytest.mark.parametrize("field", ["stripe", "position", "ticket", "drawn", "ordinal", "prize", "at", "link"])
    @pytest.mark.parametrize("number", [2, 17, PLAYS + 1])
    def test_a_field_of_a_play(self, terms: Terms, field: str, number: int) -> None:
        def change(document: dict[str, Any]) -> None:
            value = document[field]
            if field == "at":
                document["at"] = value.replace("00Z", "01Z")
            elif isinstance(value, str):
                document[field] = f"{int(value[0], 16) ^ 1:x}{value[1:]}"
            else:
                document[field] = 1 if value is None else value + 1

        assert fault(changed(played(terms), number, change)).line == number

    @FORMS
    def test_a_field_that_is_added_to_a_play_or_missing_from_it(self, terms: Terms) -> None:
        draw = played(terms)
        assert fault(changed(draw, 5, lambda document: document.update(note="x"))).line == 5
        assert fault(changed(draw, 5, lambda document: document.pop("at"))).line == 5

    @FORMS
    @pytest.mark.parametrize("field", ["title", "opens_at", "stripes", "seed_hash", "consolation", "form", "draw_id"])
    def test_a_term(self, terms: Terms, field: str) -> None:
        others = {
            "title": {"zh": "别的", "en": "other"},
            "opens_at": "2026-05-01T00:00:00.001Z",
            "stripes": 2,
            "seed_hash": "00" * 32,
            "consolation": 1,
            "form": "odds" if terms is DECK else "deck",
            "draw_id": "0190f3a0-7b1c-7c11-8000-0123456789ac",
        }
        assert fault(changed(played(terms), 1, lambda head: head["terms"].update({field: others[field]}))).line == 1

    @FORMS
    @pytest.mark.parametrize("change", [{"quantity": 3}, {"weight": 7}, {"value_fen": 99}, {"amount": 99}], ids=str)
    def test_a_prize(self, terms: Terms, change: dict[str, int]) -> None:
        assert fault(changed(played(terms), 1, lambda head: head["terms"]["prizes"][1].update(change))).line == 1

    @FORMS
    def test_the_seed(self, terms: Terms) -> None:
        assert "seed" in str(fault(changed(played(terms), 1, lambda head: head.update(seed="11" * 32))))

    @FORMS
    @pytest.mark.parametrize("field", ["commitment", "closing_digest", "format"])
    def test_the_head(self, terms: Terms, field: str) -> None:
        assert fault(changed(played(terms), 1, lambda head: head.update({field: "00" * 32}))).line == 1

    @FORMS
    def test_the_closing(self, terms: Terms) -> None:
        def fewer(head: dict[str, Any]) -> None:
            head["closing"]["stripes"][0]["plays"] -= 1

        assert fault(changed(played(terms), 1, fewer)).line == 1

    @FORMS
    @settings(max_examples=50, deadline=None)
    @given(data=st.data())
    def test_any_byte(self, terms: Terms, data: st.DataObject) -> None:
        lines = list(played(terms, 12).lines)
        number = data.draw(st.integers(1, len(lines)))
        line = bytearray(lines[number - 1])
        line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
        lines[number - 1] = bytes(line)
        assert fault(lines).line == number

    @pytest.mark.parametrize(
        "junk", [b"", b"{}\n", b"[]\n", b"null\n", b"\xff\n", b'{"a":NaN}\n', b"[" * 100_000], ids=str
    )
    def test_what_is_no_record_at_all(self, junk: bytes) -> None:
        assert fault([junk]).line == 1
        assert fault([played(DECK).lines[0], junk]).line == 2

    def test_a_line_longer_than_any_is_not_read(self) -> None:
        assert fault([b'{"a":"' + b"x" * record.LINE_BYTES_MAX + b'"}\n']).line == 1


class TestAnOperatorWhoWritesTheWholeRecordAnew:
    """Everything in the file agrees; what was published before, and what players kept, does not."""

    @FORMS
    def test_with_another_seed_meets_the_commitment(self, terms: Terms) -> None:
        other = bytes(32)
        forged = play(replace(terms, seed_hash=fair.seed_hash(other, DRAW)), tickets_of(terms, PLAYS), other)
        record.check(forged.lines)
        assert fault(forged.lines, commitment=terms.commitment).line == 1

    @FORMS
    def test_without_a_play_meets_the_closing(self, terms: Terms) -> None:
        draw, forged = played(terms), played(terms, PLAYS - 1)
        record.check(forged.lines, commitment=terms.commitment)
        assert fault(forged.lines, commitment=terms.commitment, closing=draw.closing_digest).line == 1

    @FORMS
    def test_without_a_play_meets_the_players_receipt(self, terms: Terms) -> None:
        draw, forged = played(terms), played(terms, PLAYS - 1)
        [kept] = [line for line in draw.lines[1:] if line not in forged.lines][:1]
        assert "receipts" in str(fault(forged.lines, receipts=[kept]))

    def test_that_leaves_out_a_players_turn_is_found(self) -> None:
        tickets = tickets_of(ODDS, PLAYS)
        assert "turns" in str(fault(play(ODDS, tickets[:3] + tickets[4:]).lines))

    @FORMS
    def test_that_plays_a_ticket_twice_is_found(self, terms: Terms) -> None:
        tickets = tickets_of(terms, 3)
        assert "before" in str(fault(play(terms, [*tickets, tickets[0]]).lines))

    def test_that_lets_a_member_play_too_often_is_found(self) -> None:
        assert "turn" in str(
            fault(play(replace(ODDS, limits=replace(ODDS.limits, member=2)), tickets_of(ODDS, 12)).lines)
        )

    def test_that_plays_before_the_opening_is_found(self) -> None:
        late = replace(DECK, opens_at=OPENS + timedelta(minutes=1))
        assert "time" in str(fault(play(late, tickets_of(DECK, 5)).lines))

    def test_that_chooses_the_stripe_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(record, "home_stripe", lambda _ticket, _stripes: 0)
            forged = played(DECK, 5)
        assert "belongs to stripe" in str(fault(forged.lines))

    def test_that_withholds_a_limited_prize_is_found(self) -> None:
        mean = replace(ODDS, prizes=(replace(ODDS.prizes[0], quantity=1), *ODDS.prizes[1:]))
        lines, told = list(play(mean, tickets_of(ODDS, 80)).lines), json.loads(played(ODDS, 80).lines[0])
        assert fault([spelt(told), *lines[1:]]).line > 1


def test_receipts_are_the_players_own_lines() -> None:
    draw = played(DECK)
    assert record.check(draw.lines, receipts=[draw.lines[4].strip(), draw.lines[9]]).plays == PLAYS
    assert SEED.hex() in draw.lines[0].decode()
    with pytest.raises(DrawRecordWrong):
        record.check(draw.lines, receipts=[draw.lines[4].replace(b'"prize":', b'"prize":1')])


def test_progress_hears_of_every_line() -> None:
    heard: list[int] = []
    record.check(played(DECK).lines, advance=heard.append)
    assert sum(heard) == PLAYS

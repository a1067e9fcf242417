"""The arithmetic of draws: fixed for ever, without bias, exact in its sums."""

import hashlib
import hmac
import uuid
from collections import Counter
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty.draws import fair
from loyalty.draws.fair import (
    DECK_TICKETS_MAX,
    SHARES_MAX,
    SPLIT_TOTAL_MAX,
    TICKET_BYTES_MAX,
    WEIGHT_TOTAL_MAX,
    DrawInvalid,
)

SEED = bytes(range(32))
DRAW = uuid.UUID("0190f3a0-7b1c-7c11-8000-0123456789ab")

seeds = st.binary(min_size=32, max_size=32)
ids = st.uuids()

# The upper 0.1 % of chi-square for as many degrees of freedom, from any table: a fixed seed stays below or never did.
CHI_SQUARE_999 = {3: 16.27, 5: 20.52, 9: 27.88, 99: 148.23}


def chi_square(counts: list[int], expected: list[float]) -> float:
    return sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))


class TestWhatMayNeverChange:
    """Golden values. If one differs, every draw that was published looks forged: mend the code, not the test."""

    def test_seed_hash(self) -> None:
        assert fair.seed_hash(SEED, DRAW).hex() == GOLDEN["seed_hash"]
        assert fair.seed_hash(SEED, DRAW) == hashlib.sha256(b"fanxing/draw/seed/v1\x00" + DRAW.bytes + SEED).digest()

    def test_commitment(self) -> None:
        assert fair.commitment({"b": 1, "a": ["盲盒", None]}).hex() == GOLDEN["commitment"]

    def test_canonical_json(self) -> None:
        assert fair.canonical({"b": {"d": 1, "c": 'é\n\x01"/'}, "a": None}) == (
            '{"a":null,"b":{"c":"é\\n\\u0001\\"/","d":1}}'.encode()
        )

    def test_outcomes(self) -> None:
        drawn = [fair.outcome(SEED, DRAW, bytes([number]), [1, 9, 90]) for number in range(40)]
        assert "".join(map(str, drawn)) == GOLDEN["outcomes"]

    def test_an_outcome_by_hand(self) -> None:
        word = int.from_bytes(
            hmac.digest(SEED, b"fanxing/draw/odds/v1\x00" + DRAW.bytes + b"x" + bytes(8), "sha256")[:8], "big"
        )
        assert fair.outcome(SEED, DRAW, b"x", [1] * 100) == word % 100

    def test_deck(self) -> None:
        assert fair.deck(SEED, DRAW, [1, 3, 12]).hex() == GOLDEN["deck"]

    def test_split(self) -> None:
        assert fair.split(SEED, DRAW, 1000, 7, 10) == GOLDEN["split"]

    def test_the_ticket_of_an_item(self) -> None:
        assert fair.item_ticket("06901234567892", "00001123456789") == b"01069012345678922100001123456789"


class TestOdds:
    @settings(deadline=None)
    @given(
        seed=seeds,
        draw=ids,
        ticket=st.binary(min_size=1, max_size=TICKET_BYTES_MAX),
        weights=st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any),
    )
    def test_an_outcome_is_a_weight_above_zero(
        self, seed: bytes, draw: uuid.UUID, ticket: bytes, weights: list[int]
    ) -> None:
        drawn = fair.outcome(seed, draw, ticket, weights)
        assert weights[drawn] > 0
        assert drawn == fair.outcome(seed, draw, ticket, weights)

    def test_outcomes_follow_the_weights(self) -> None:
        weights, tickets = [1, 9, 30, 60], 20_000
        drawn = Counter(fair.outcome(SEED, DRAW, number.to_bytes(4, "big"), weights) for number in range(tickets))
        expected = [tickets * weight / 100 for weight in weights]
        assert chi_square([drawn[index] for index in range(4)], expected) < CHI_SQUARE_999[3]

    @pytest.mark.parametrize(
        ("seed", "draw", "prefix"),
        [(SEED[::-1], DRAW, b""), (SEED, uuid.UUID(int=1), b""), (SEED, DRAW, b"x")],
        ids=["seed", "draw", "ticket"],
    )
    def test_outcomes_depend_on_everything(self, seed: bytes, draw: uuid.UUID, prefix: bytes) -> None:
        tickets = [b"%d" % number for number in range(50)]
        plain = [fair.outcome(SEED, DRAW, ticket, [1] * 10) for ticket in tickets]
        assert plain != [fair.outcome(seed, draw, prefix + ticket, [1] * 10) for ticket in tickets]

    @pytest.mark.parametrize(
        ("ticket", "weights"),
        [
            (b"", [1]),
            (bytes(TICKET_BYTES_MAX + 1), [1]),
            (b"x", []),
            (b"x", [0, 0]),
            (b"x", [2, -1]),
            (b"x", [WEIGHT_TOTAL_MAX, 1]),
            (b"x", [1] * 101),
        ],
        ids=["no ticket", "long ticket", "no weight", "weights of zero", "weight below zero", "total", "count"],
    )
    def test_what_is_no_draw_is_refused(self, ticket: bytes, weights: list[int]) -> None:
        with pytest.raises(DrawInvalid):
            fair.outcome(SEED, DRAW, ticket, weights)

    def test_the_limits_themselves_are_allowed(self) -> None:
        assert fair.outcome(SEED, DRAW, bytes(TICKET_BYTES_MAX), [WEIGHT_TOTAL_MAX]) == 0
        assert 0 <= fair.outcome(SEED, DRAW, b"x", [1] * 100) < 100

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_a_seed_has_32_bytes(self, length: int) -> None:
        for ask in (
            lambda seed: fair.outcome(seed, DRAW, b"x", [1]),
            lambda seed: fair.deck(seed, DRAW, [1, 1]),
            lambda seed: fair.seed_hash(seed, DRAW),
        ):
            with pytest.raises(DrawInvalid, match="seed"):
                ask(bytes(length))


class TestNumbersBelowABound:
    @settings(deadline=None)
    @given(words=st.lists(st.integers(0, 2**64 - 1), max_size=20), bound=st.integers(1, 2**64))
    def test_every_number_is_below_the_bound(self, words: list[int], bound: int) -> None:
        assert 0 <= fair.below(chain(words, repeat(0)), bound) < bound

    def test_words_of_the_incomplete_round_are_thrown_away(self) -> None:
        bound = 2**63 + 1  # one round of these fits in a word, and almost half of the words are over
        assert fair.below(iter([2**64 - 1, bound, bound - 1]), bound) == bound - 1
        assert fair.below(iter([2**64 - 1]), 2**64) == 2**64 - 1
        assert fair.below(iter([2**64 - 1, 5]), 3) == 2  # 2^64 = 1 mod 3: the last word alone is over

    def test_a_stream_is_hmac_blocks_in_order(self) -> None:
        words = fair.stream(SEED, b"label")
        blocks = b"".join(hmac.digest(SEED, b"label" + number.to_bytes(8, "big"), "sha256") for number in range(3))
        assert b"".join(next(words).to_bytes(8, "big") for _ in range(12)) == blocks


class TestDeck:
    @settings(deadline=None)
    @given(seed=seeds, draw=ids, quantities=st.lists(st.integers(0, 30), min_size=1, max_size=10).filter(any))
    def test_a_deck_has_every_prize_as_often_as_published(
        self, seed: bytes, draw: uuid.UUID, quantities: list[int]
    ) -> None:
        dealt = Counter(fair.deck(seed, draw, quantities))
        assert [dealt[prize] for prize in range(len(quantities))] == quantities

    def test_every_place_is_as_likely(self) -> None:
        places = Counter(fair.deck(SEED, uuid.UUID(int=number), [1, 9]).index(0) for number in range(10_000))
        assert chi_square([places[place] for place in range(10)], [1000.0] * 10) < CHI_SQUARE_999[9]

    def test_every_order_is_as_likely(self) -> None:
        orders = Counter(fair.deck(SEED, uuid.UUID(int=number), [1, 1, 1]) for number in range(6_000))
        assert len(orders) == 6
        assert chi_square(list(orders.values()), [1000.0] * 6) < CHI_SQUARE_999[5]

    @pytest.mark.parametrize("quantities", [[], [0], [1, -1], [DECK_TICKETS_MAX, 1], [1] * 101], ids=str)
    def test_what_is_no_deck_is_refused(self, quantities: list[int]) -> None:
        with pytest.raises(DrawInvalid):
            fair.deck(SEED, DRAW, quantities)


class TestSplit:
    @settings(deadline=None)
    @given(data=st.data(), seed=seeds, packet=ids, shares=st.integers(1, SHARES_MAX), minimum=st.integers(1, 1000))
    def test_shares_are_exact_and_none_is_below_the_minimum(
        self, data: st.DataObject, seed: bytes, packet: uuid.UUID, shares: int, minimum: int
    ) -> None:
        total = data.draw(st.integers(shares * minimum, shares * minimum + 5000))
        cut = fair.split(seed, packet, total, shares, minimum)
        assert (len(cut), sum(cut), min(cut) >= minimum) == (shares, total, True)

    def test_every_way_of_cutting_is_as_likely(self) -> None:
        # 12 into 3 shares of at least 2 leaves 6 over: 8 choose 2 = 28 ways. 5 into 2 of at least 1: 4 ways.
        ways = Counter(tuple(fair.split(SEED, uuid.UUID(int=number), 5, 2, 1)) for number in range(4_000))
        assert set(ways) == {(1, 4), (2, 3), (3, 2), (4, 1)}
        assert chi_square(list(ways.values()), [1000.0] * 4) < CHI_SQUARE_999[3]
        assert len({tuple(fair.split(SEED, uuid.UUID(int=number), 12, 3, 2)) for number in range(1_000)}) == 28

    @pytest.mark.parametrize(
        ("total", "shares", "minimum"),
        [(10, 0, 1), (200, SHARES_MAX + 1, 1), (10, 2, 0), (9, 5, 2), (SPLIT_TOTAL_MAX + 1, 2, 1)],
        ids=["no share", "too many", "no minimum", "too little", "too much"],
    )
    def test_what_cannot_be_cut_is_refused(self, total: int, shares: int, minimum: int) -> None:
        with pytest.raises(DrawInvalid):
            fair.split(SEED, DRAW, total, shares, minimum)

    def test_limits_are_allowed(self) -> None:
        assert fair.split(SEED, DRAW, 10, 5, 2) == [2] * 5
        assert sum(fair.split(SEED, DRAW, SPLIT_TOTAL_MAX, SHARES_MAX, 1)) == SPLIT_TOTAL_MAX


def test_half_a_surrogate_is_no_text() -> None:
    with pytest.raises(DrawInvalid):
        fair.canonical({"name": "\ud800"})


GOLDEN = {
    "seed_hash": "d2e12cf34e4f8158bfea86a69070f7d2291ced70b0c46a4254861bde9793efd1",
    "commitment": "cca1ba575399fa85038841048a47ca87b7dd23554a543b1ebba92c20f7c5fa68",
    "outcomes": "2221222222212222222222122212122222222222",
    "deck": "02010202020202020200020202010102",
    "split": [287, 19, 36, 99, 427, 47, 85],
}

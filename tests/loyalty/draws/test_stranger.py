"""What a stranger writes from docs/loyalty/draws.md alone, without a line of ours, comes to the same."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest

from loyalty.draws import record
from loyalty.draws.terms import Terms
from tests.loyalty.draws.published import DECK, ITEMS, ODDS, play, tickets_of


def canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def sha(label: str, *parts: bytes) -> bytes:
    return hashlib.sha256(f"fanxing/draw/{label}/v1".encode() + b"\0" + b"".join(parts)).digest()


def numbers(seed: bytes, label: str, context: bytes) -> Iterator[int]:
    block = 0
    while True:
        message = f"fanxing/draw/{label}/v1".encode() + b"\0" + context + block.to_bytes(8, "big")
        digest = hmac.new(seed, message, hashlib.sha256).digest()
        yield from (int.from_bytes(digest[at : at + 8], "big") for at in (0, 8, 16, 24))
        block += 1


def below(source: Iterator[int], bound: int) -> int:
    return next(word % bound for word in source if word < 2**64 // bound * bound)


def shuffled(seed: bytes, draw_id: bytes, quantities: list[int]) -> list[int]:
    cards = [prize for prize, quantity in enumerate(quantities) for _ in range(quantity)]
    source = numbers(seed, "deck", draw_id)
    for last in reversed(range(1, len(cards))):
        other = below(source, last + 1)
        cards[last], cards[other] = cards[other], cards[last]
    return cards


def outcome(seed: bytes, draw_id: bytes, ticket: bytes, weights: list[int]) -> int:
    number = below(numbers(seed, "odds", draw_id + ticket), sum(weights))
    return next(prize for prize in range(len(weights)) if number < sum(weights[: prize + 1]))


def recomputed(lines: list[bytes]) -> list[int]:
    """The outcome of every play, in the order of the record, after checking the head and the chains."""
    head, *plays = map(json.loads, lines)
    terms, seed = head["terms"], bytes.fromhex(head["seed"])
    draw_id = bytes.fromhex(terms["draw_id"].replace("-", ""))
    commitment = sha("commitment", canonical(terms))
    assert (commitment.hex(), sha("seed", draw_id, seed).hex()) == (head["commitment"], terms["seed_hash"])
    assert sha("closing", canonical(head["closing"])).hex() == head["closing_digest"]
    links = [sha("chain", commitment, stripe.to_bytes(4, "big")) for stripe in range(terms["stripes"])]
    key = "quantity" if terms["form"] == "deck" else "weight"
    shares = [prize[key] for prize in terms["prizes"]]
    size, longer = divmod(sum(shares), terms["stripes"])
    cards = shuffled(seed, draw_id, shares) if terms["form"] == "deck" else []
    outcomes = []
    for one in plays:
        link, stripe = one.pop("link"), one["stripe"]
        links[stripe] = hashlib.sha256(links[stripe] + canonical(one)).digest()
        assert links[stripe].hex() == link
        place = stripe * size + min(stripe, longer) + one["position"]
        outcomes.append(cards[place] if cards else outcome(seed, draw_id, bytes.fromhex(one["ticket"]), shares))
    assert [end["head"] for end in head["closing"]["stripes"]] == [link.hex() for link in links]
    return outcomes


@pytest.mark.parametrize("terms", [DECK, ODDS, ITEMS], ids=["deck", "odds", "items"])
def test_a_stranger_comes_to_the_same_outcomes(terms: Terms) -> None:
    lines = list(play(terms, tickets_of(terms, 39)).lines)
    record.check(lines)
    assert recomputed(lines) == [json.loads(line)["drawn"] for line in lines[1:]]


def test_a_stranger_finds_the_home_of_a_ticket() -> None:
    for ticket in tickets_of(ODDS, 20):
        assert record.home_stripe(ticket, 3) == int.from_bytes(sha("stripe", ticket)[:8], "big") % 3

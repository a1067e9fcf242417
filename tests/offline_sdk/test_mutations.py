"""Random mutations of valid texts: none is accepted, none crashes."""

import random
from typing import Any

import pytest

from offline_sdk import Verifier

PATH_CHARS = 198
ALPHABET = "0123456789/" * 3 + "abcXYZ%+-_ .:?#\n\r\x00٠١٢９\ud800é"


def mutated(tail: str, others: list[str], dice: random.Random) -> str:  # noqa: PLR0911 - one return a mutation
    """Flip, insert, delete, duplicate or transpose a character, or splice in a part of another valid text."""
    at = dice.randrange(len(tail))
    match dice.randrange(7):
        case 0:
            return tail[:at] + dice.choice(ALPHABET) + tail[at + 1 :]
        case 1:
            return tail[:at] + dice.choice(ALPHABET) + tail[at:]
        case 2:
            return tail[:at] + tail[at + 1 :]
        case 3:
            return tail[:at] + tail[at] + tail[at:]
        case 4:
            return tail[:at] + tail[at + 1 : at + 2] + tail[at] + tail[at + 2 :]
        case 5:
            return tail[:at] + dice.choice(others)[at:]
        case _:
            to = dice.randrange(at, len(tail) + 1)
            return tail[:at] + dice.choice(others)[at:to] + tail[to:]


def run(vectors: dict[str, Any], verifier: Verifier, count: int, seed: int) -> None:
    # The signature does not cover scheme and host, so a text is genuine exactly when its path is one that was signed:
    # only what follows "host/" is mutated, and the few mutations that give back a signed path are expected genuine.
    dice = random.Random(seed)
    texts = [case["text"] for case in vectors["valid"]]
    heads = [text[: 1 - PATH_CHARS] for text in texts]
    tails = [text[1 - PATH_CHARS :] for text in texts]
    signed = set(tails)
    genuine = 0
    for _ in range(count):
        head = dice.choice(heads)
        tail = mutated(dice.choice(tails), tails, dice)
        if dice.random() < 0.2:
            tail = mutated(tail, tails, dice) if tail else tail
        verdict = verifier.check(head + tail)
        assert verdict.is_genuine == (tail in signed), (seed, head + tail)
        genuine += verdict.is_genuine
    assert 0 < genuine < count // 5


def test_20_000_mutations_are_refused(vectors: dict[str, Any], verifier: Verifier) -> None:
    run(vectors, verifier, 20_000, seed=1)


@pytest.mark.slow
def test_1_000_000_mutations_are_refused(vectors: dict[str, Any], verifier: Verifier) -> None:
    run(vectors, verifier, 1_000_000, seed=2)

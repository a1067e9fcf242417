"""Idempotency keys: the same request again gets the same answer, another one is refused."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kit import idempotency
from kit.db import Database
from kit.idempotency import IdempotencyKeyInvalid, IdempotencyKeyReused

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ANN, BEN = uuid.UUID(int=1), uuid.UUID(int=2)

Ask = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def ask(database: Database) -> Ask:
    """A request that answers with a number of its own, unless it was made before."""
    numbers = iter(range(1, 100))

    async def ask_(
        key: str = "key-number-1", amount: int = 5, caller: uuid.UUID = ANN, fail: bool = False
    ) -> dict[str, Any]:
        asked = idempotency.fingerprint("give", {"amount": amount})
        async with database.writing() as session:
            earlier = await idempotency.begin(session, caller, key, asked, NOW)
            if earlier is not None:
                return earlier
            if fail:
                raise RuntimeError
            answer = {"number": next(numbers), "名": "值"}
            await idempotency.remember(session, caller, key, answer)
            return answer

    return ask_


async def test_the_same_request_gets_its_first_answer_again(ask: Ask) -> None:
    assert await ask() == {"number": 1, "名": "值"}
    assert await ask() == {"number": 1, "名": "值"}


async def test_another_request_under_the_same_key_is_refused(ask: Ask) -> None:
    await ask()
    with pytest.raises(IdempotencyKeyReused):
        await ask(amount=6)


async def test_callers_and_keys_do_not_meet(ask: Ask) -> None:
    answers = [await ask(), await ask(caller=BEN), await ask(key="key-number-2")]
    assert [answer["number"] for answer in answers] == [1, 2, 3]


async def test_a_request_that_failed_may_be_made_again_even_otherwise(ask: Ask) -> None:
    with pytest.raises(RuntimeError):
        await ask(fail=True)
    assert (await ask(amount=6))["number"] == 1


async def test_twenty_at_once_do_the_work_once(ask: Ask) -> None:
    answers = await asyncio.gather(*(ask() for _ in range(20)))
    assert {answer["number"] for answer in answers} == {1}


@pytest.mark.parametrize("key", ["12345678", "k" * 64, "with blank and ~"])
async def test_a_key_has_eight_to_sixty_four_printable_characters(ask: Ask, key: str) -> None:
    assert (await ask(key=key))["number"] == 1


@pytest.mark.parametrize("key", ["", "1234567", "k" * 65, "key\nnumber", "钥匙钥匙钥匙钥匙", "key\x00number"])
async def test_any_other_key_is_refused(ask: Ask, key: str) -> None:
    with pytest.raises(IdempotencyKeyInvalid):
        await ask(key=key)


def test_a_fingerprint_depends_on_operation_and_body_and_not_on_order() -> None:
    first = idempotency.fingerprint("give", {"a": 1, "b": "值"})
    assert first == idempotency.fingerprint("give", {"b": "值", "a": 1})
    assert (
        len({first, idempotency.fingerprint("take", {"a": 1, "b": "值"}), idempotency.fingerprint("give", {"a": 1})})
        == 3
    )
    # Stored beside the answers: when this changes, requests sent again across an upgrade are refused.
    assert first.hex() == "2569f0c2bf32a96a9d055c23733d4ee4a4c1c3be8018bbdc36d6d9e5dd0620ab"

"""The lying carrier in this process: the simulator's own book and fate, reached by calls instead of HTTP.

Requests are lost, arrive late, or their answers are; callbacks come twice, late, in no order, or not at all; orders are
refused and delivered all the same, or reversed; statements lack lines. All of it follows from seed and order id.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

from kit.clock import Clock
from loadtest.carrier_book import _CHINA, OrderBook
from loadtest.carrier_fate import Fate, Misbehaviour
from loyalty.fulfilment.providers import PROVIDERS_WORDS, Answer, Consignment
from loyalty.fulfilment.states import Word

LATE_S_MAX = 900.0
TRIES_MAX = 20
_NO_ANSWER = Answer(Word.NO_ANSWER)


class _Book(OrderBook):
    """A book by the simulation's clock, in memory."""

    def __init__(self, fate: Fate, name: str, clock: Clock) -> None:
        super().__init__(Path(":memory:"), fate, name)
        self._clock = clock

    def _now(self) -> datetime:
        return self._clock().astimezone(_CHINA)


class LyingCarrier:
    """A provider, see `loyalty.fulfilment.Provider`. `delay` is the chance that a request arrives much later."""

    def __init__(self, name: str, misbehaviour: Misbehaviour, delay: float, clock: Clock, turn: Any) -> None:
        self.name = name
        self.fate = Fate(misbehaviour)
        self.book = _Book(self.fate, name, clock)
        self._delay = delay
        self._turn = turn
        self._late: set[asyncio.Task[None]] = set()

    async def submit(self, asked: Consignment) -> Answer:
        order_id = str(asked.order_id)
        body = {"kind": asked.kind.name.lower(), "amount": asked.amount, "phone": asked.phone_e164 or ""}
        await self._turn(f"submit {order_id}")
        chance = self.fate.of(order_id, f"submission {self.book.count(order_id, 'arrivals')}")
        if chance.hits("lose"):
            return _NO_ANSWER
        if chance.share("late") < self._delay:
            # The caller gives up; the request is on its way all the same.
            self._late.add(asyncio.ensure_future(self._arrive(order_id, body, chance.share("later") * LATE_S_MAX)))
            return _NO_ANSWER
        status, said = self.book.submit(order_id, body)
        assert status != 409, "the same order came with another body"
        if chance.hits("duplicate"):
            self.book.submit(order_id, body)
        await self._turn(f"submitted {order_id}")
        return _NO_ANSWER if chance.hits("drop") else _answer(said)

    async def query(self, asked: Consignment) -> Answer:
        order_id = str(asked.order_id)
        await self._turn(f"query {order_id}")
        chance = self.fate.of(order_id, f"query {self.book.count(order_id, 'questions')}")
        if chance.hits("lose"):
            return _NO_ANSWER
        status, said = self.book.query(order_id)
        await self._turn(f"queried {order_id}")
        if chance.hits("drop"):
            return _NO_ANSWER
        return Answer(Word.NEVER_RECEIVED) if status == 404 else _answer(said)

    async def statement(self, day: date) -> AsyncIterator[str]:
        """The lines of a day's statement."""
        for line in self.book.statement(day.isoformat()):
            yield json.dumps(line)

    async def _arrive(self, order_id: str, body: dict[str, Any], after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.book.submit(order_id, body)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way to it, every order has come to its end, and every callback was sent."""
        told = self.book.statistics()
        return all(task.done() for task in self._late) and told["over"] and not told["callbacks_waiting"]


def _answer(said: dict[str, Any]) -> Answer:
    at = datetime.fromisoformat(said["at"])
    return Answer(PROVIDERS_WORDS[said["state"]], said["revision"], at, said["reference"])

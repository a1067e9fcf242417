"""An event loop in which nothing happens by itself: its time is made up, and a seed decides who goes on next.

Whoever comes to a point where another might have been faster awaits `SimulatedLoop.turn`. When nobody else can go on,
one of those who wait there is chosen by chance, or killed; when nobody waits there, time passes to the next timer.
"""

import asyncio
import contextvars
import random
import selectors
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECONDS_A_TURN_MAX = 0.05


class Killed(BaseException):
    """The process is gone: what it had not committed never was. No handler of errors may see to it."""


@dataclass(eq=False)
class Process:
    """What dies as a whole. Those who work in it carry it in their context, and so do the tasks that they start."""

    name: str
    is_dead: bool = False


running_in: contextvars.ContextVar[Process | None] = contextvars.ContextVar("running_in", default=None)


class _World(selectors.BaseSelector):
    """What the loop asks when it has nothing to do."""

    def __init__(self, loop: "SimulatedLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0:
            self._loop.go_on(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`kill`: the chance, 0..1, that a process dies where it has come to."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._now = 0.0
        self._waiting: list[tuple[asyncio.Future[None], Process | None, str]] = []
        self.kill = 0.0
        self.kills = 0
        self.turns = 0
        super().__init__(_World(self))

    def time(self) -> float:
        """Seconds since the start, made up."""
        return self._now

    async def turn(self, what: str) -> None:
        """Let others go first, as many as chance will have. Raises Killed in a process that is gone."""
        process = running_in.get()
        if process is not None and process.is_dead:
            raise Killed(process.name)
        waits: asyncio.Future[None] = self.create_future()
        self._waiting.append((waits, process, what))
        await waits
        if process is not None and process.is_dead:
            raise Killed(process.name)

    def go_on(self, timeout: float | None) -> None:
        """Nobody can go on: choose who may. `timeout`: when the next timer is due."""
        self._waiting = [one for one in self._waiting if not one[0].done()]
        if not self._waiting:
            if timeout is None:
                raise RuntimeError("everybody waits for somebody else")
            self._now += timeout
            return
        self.turns += 1
        self._now += self._chance.random() * SECONDS_A_TURN_MAX
        waits, process, _what = self._waiting.pop(self._chance.randrange(len(self._waiting)))
        if process is not None and self._chance.random() < self.kill:
            process.is_dead = True
            self.kills += 1
        waits.set_result(None)

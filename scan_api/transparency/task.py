"""The log's work beside a server's requests: sequence and sign every second, ask witnesses, show how it stands."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import httpx2
import structlog

from kit.clock import Clock
from kit.db import Database
from kit.errors import FanxingError
from kit.settings import Settings
from scan_api.metrics import Metrics
from scan_api.transparency import log_key
from scan_api.transparency.head_memory import HeadMemory
from scan_api.transparency.sequencer import Sequencer
from scan_api.transparency.standing import Gauges, standing
from scan_api.transparency.store import LogMissing, LogRaced
from scan_api.transparency.witnesses import Publisher

TURN_EVERY_S: Final = 0.5
COMPLAIN_EVERY_TURNS: Final = 60

_log = structlog.get_logger()


async def run(
    database: Database,
    settings: Settings,
    client: httpx2.AsyncClient,
    clock: Clock,
    stop: asyncio.Event,
    metrics: Metrics,
) -> None:
    """Keep the log until `stop` is set. What goes wrong is logged and tried again."""
    gauges, publisher = Gauges(metrics.registry), Publisher(database, client, clock)
    opened: list[Sequencer] = []

    async def sequence() -> None:
        async with database.reading() as session:
            now = await standing(session, clock())
        gauges.show(now)
        if now.origin is None:
            if now.pending:
                raise LogMissing("records wait for a transparency log", hint="`fanxing log init` begins it.")
            return
        if not opened:
            signing = await asyncio.to_thread(lambda: log_key.access(settings).open())
            opened.append(Sequencer(database, signing, HeadMemory(settings.home), clock))
        await opened[0].turn()

    await asyncio.gather(_again(sequence, "log not sequenced", stop), _again(publisher.turn, "log not published", stop))


async def _again(turn: Callable[[], Awaitable[object]], failure: str, stop: asyncio.Event) -> None:
    """Take a turn every half second."""
    failed = 0
    while not stop.is_set():
        try:
            await turn()
            failed = 0
        except LogRaced:
            pass  # another server sequenced meanwhile
        except Exception as error:
            if failed % COMPLAIN_EVERY_TURNS == 0:
                told = {"code": error.code, "reason": error.message} if isinstance(error, FanxingError) else {}
                _log.error(failure, exc_info=None if told else error, **told)
            failed += 1
        await asyncio.sleep(TURN_EVERY_S)

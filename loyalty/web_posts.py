"""Posts to the servers of others: what waits for them in the outbox, topic by topic, each post within its time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import structlog

from loyalty import web_targets
from loyalty.web_targets import Targets, WebTargetRefused

TIMEOUT_S: Final = 10.0
"""For a whole post: name, connection, TLS, request, and the head of the answer."""
IDLE_WAIT_S: Final = 0.5
GONE: Final = 410
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended: the answer's status, or in a word why there was none."""

    status: int | None
    error: str | None

    @property
    def got_through(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Poster:
    """Posts JSON; its context is open as long as there may be something to post."""

    def __init__(self, targets: Targets, user_agent: str) -> None:
        self._targets, self._user_agent = targets, user_agent
        # The bare transport follows no redirects, keeps no cookies, and asks no proxy of the environment, which would
        # connect to addresses that nobody looked at. Connections are not kept: the pool knows them by address, and one
        # whose certificate was for one name must not carry what is meant for another.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx2.AsyncHTTPTransport(trust_env=False, limits=limits)

    async def __aenter__(self) -> "Poster":
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._transport.__aexit__(*error)

    async def post(
        self, url: str, url_characters_max: int, body: bytes, more_headers: Callable[[], Mapping[str, str]]
    ) -> Attempt:
        """Post a body to an address that may be posted to; `more_headers` are asked for just before.

        Raises TimeoutError after 10 seconds, WebTargetRefused, httpx2.HTTPError, httpx2.InvalidURL, OSError.
        """
        async with asyncio.timeout(TIMEOUT_S):
            web_targets.check_url(url, url_characters_max, self._targets)
            target = await web_targets.resolve(url, self._targets)
            request = httpx2.Request(
                "POST",
                target.url,
                content=body,
                headers={
                    "host": target.authority,
                    "content-type": "application/json",
                    "user-agent": self._user_agent,
                    **more_headers(),
                },
                extensions={"sni_hostname": target.host, "timeout": httpx2.Timeout(TIMEOUT_S).as_dict()},
            )
            # As a stream: the status is all that matters, so a body of any length is left where it is.
            answer = await self._transport.handle_async_request(request)
            try:
                return Attempt(answer.status_code, None)
            finally:
                await answer.aclose()


async def attempted(post: Awaitable[Attempt]) -> Attempt:
    """How a post ended, also one that did not get as far as an answer. Errors of ours pass through."""
    try:
        return await post
    except TimeoutError:
        return Attempt(None, f"no answer in {TIMEOUT_S:.0f} s")
    except WebTargetRefused as error:
        return Attempt(None, error.message)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        # The class alone: messages quote addresses.
        return Attempt(None, type(error).__name__)


class Rounds:
    """Topics of the outbox that have something due, each with one task at a time.

    `due` lists them, `send_due` sends a few of one and says whether to go on at once. `what` and `whose` are words for
    the log, such as webhooks and an endpoint.
    """

    def __init__(
        self,
        due: Callable[[], Awaitable[Sequence[str]]],
        send_due: Callable[[str], Awaitable[bool]],
        at_once_max: int,
        *,
        what: str,
        whose: str,
    ) -> None:
        self._due, self._send_due, self._at_once_max = due, send_due, at_once_max
        self._what, self._whose = what, whose
        self._at_work: dict[str, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or the task is cancelled. What goes wrong is logged and tried again."""
        try:
            while not stop.is_set():
                try:
                    await self._begin()
                except Exception:
                    _log.exception(f"{self._what} not looked at, will try again")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), IDLE_WAIT_S)
        finally:
            for task in self._at_work.values():
                task.cancel()
            await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    async def _begin(self) -> None:
        """Start a round for each topic that has something due and none under way."""
        self._at_work = {topic: task for topic, task in self._at_work.items() if not task.done()}
        for topic in await self._due():
            if topic not in self._at_work and len(self._at_work) < self._at_once_max:
                self._at_work[topic] = asyncio.create_task(self._round(topic))

    async def _round(self, topic: str) -> None:
        """Send what is due of a topic, a few at a time, as long as all get through; then others have their turn."""
        try:
            while await self._send_due(topic):
                pass
        except Exception:
            # The leases bring the messages back.
            _log.exception(f"{self._what} of {self._whose} put off", topic=topic)

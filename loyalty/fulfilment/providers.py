"""Those who fulfil orders: any provider that speaks our HTTP contract, and the built-in one for the sandbox.

The contract is docs/loyalty/fulfilment.md.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Protocol

import httpx2
import structlog
from pydantic import BaseModel, Field, ValidationError

from kit.clock import Clock, When
from kit.errors import NotFound, Unavailable
from kit.settings import Settings
from loyalty.fulfilment.orders import PROVIDER_OF, REASON_CHARACTERS_MAX, REFERENCE_CHARACTERS_MAX, SANDBOX, OrderKind
from loyalty.fulfilment.states import Word

REQUEST_TIMEOUT_S = 10.0
STATEMENT_TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 16 * 1024
REVISION_MAX = 2**62
BREAKER_FAILURES = 5
"""So many requests in a row without an answer, and the provider is left in peace for a while."""
BREAKER_REST = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


class StatementMissing(NotFound):
    """The provider has no statement of that day, yet or any more."""

    code = "StatementMissing"


class StatementUnavailable(Unavailable):
    """The provider did not give its statement."""

    code = "StatementUnavailable"


@dataclass(frozen=True)
class Consignment:
    """What the provider is asked for. Without a phone number it can only be asked about."""

    order_id: uuid.UUID
    kind: OrderKind
    amount: int
    phone_e164: str | None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Answer:
    """What came back: the provider's word with its number and time, or NO_ANSWER or NEVER_RECEIVED without."""

    word: Word
    revision: int | None = None
    at: datetime | None = None
    reference: str = ""
    reason: str = ""


class Provider(Protocol):
    """Fulfils orders. Both calls may be repeated at will: the order's id makes them one order."""

    name: str

    async def submit(self, asked: Consignment) -> Answer: ...

    async def query(self, asked: Consignment) -> Answer: ...


PROVIDERS_WORDS = {
    "accepted": Word.ACCEPTED,
    "pending": Word.PENDING,
    "await_user": Word.AWAIT_USER,
    "completed": Word.COMPLETED,
    "reversed": Word.REVERSED,
    "failed": Word.FAILED,
}
Revision = Annotated[int, Field(ge=1, le=REVISION_MAX, strict=True)]
Reference = Annotated[str, Field(max_length=REFERENCE_CHARACTERS_MAX)]


class OrderWord(BaseModel):
    """What a provider says of an order, in answers and callbacks alike."""

    order_id: uuid.UUID
    state: str
    revision: Revision
    at: When | None = None
    reference: Reference = ""
    reason: Annotated[str, Field(max_length=REASON_CHARACTERS_MAX)] = ""


_NO_ANSWER = Answer(Word.NO_ANSWER)


class HttpProvider:
    """A provider behind `PUT /orders/{id}`, `GET /orders/{id}` and `GET /statements/{date}`."""

    def __init__(self, name: str, base_url: str, token: str, client: httpx2.AsyncClient) -> None:
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = client

    async def submit(self, asked: Consignment) -> Answer:
        body: dict[str, str | int] = {"kind": asked.kind.name.lower(), "amount": asked.amount}
        return await self._ask("PUT", asked.order_id, body | {"phone": asked.phone_e164 or ""})

    async def query(self, asked: Consignment) -> Answer:
        return await self._ask("GET", asked.order_id, None)

    @asynccontextmanager
    async def statement(self, day: date) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of the provider's statement of a day. Raises StatementMissing and StatementUnavailable."""
        url = f"{self._base_url}/statements/{day.isoformat()}"
        try:
            async with self._client.stream("GET", url, headers=self._headers, timeout=STATEMENT_TIMEOUT_S) as response:
                if response.status_code == httpx2.codes.NOT_FOUND:
                    raise StatementMissing(f"{self.name} has no statement of {day}", hint="Ask again a day later.")
                response.raise_for_status()
                yield response.aiter_lines()
        except httpx2.HTTPError as error:
            raise StatementUnavailable(
                f"{self.name} did not give its statement of {day}: {type(error).__name__}", hint="Try again later."
            ) from None

    async def _ask(self, method: str, order_id: uuid.UUID, body: dict[str, str | int] | None) -> Answer:
        url = f"{self._base_url}/orders/{order_id}"
        try:
            response = await self._client.request(
                method, url, json=body, headers=self._headers, timeout=REQUEST_TIMEOUT_S
            )
        except httpx2.HTTPError as error:
            _log.warning("provider unreachable", provider=self.name, order_id=str(order_id), error=type(error).__name__)
            return _NO_ANSWER
        if method == "GET" and response.status_code == httpx2.codes.NOT_FOUND:
            return Answer(Word.NEVER_RECEIVED)
        try:
            # Only the provider's own word "failed" returns the value; a refused token or request is for us to repair.
            response.raise_for_status()
            if len(response.content) > ANSWER_BYTES_MAX:
                raise ValueError("too long for an answer")
            said = OrderWord.model_validate_json(response.content)
            if said.order_id != order_id:
                raise ValueError("an answer about another order")
            return Answer(PROVIDERS_WORDS[said.state], said.revision, said.at, said.reference, said.reason)
        except (httpx2.HTTPStatusError, ValidationError, ValueError, KeyError):
            _log.warning(
                "provider not understood", provider=self.name, order_id=str(order_id), status=response.status_code
            )
            return _NO_ANSWER


class SandboxProvider:
    """Fulfils sandbox orders at once and for nothing; the last four digits of the phone number may ask for trouble.

    9001: failed. 9002: pending, then reversed. 9003: awaits the member, and is reversed when nobody confirms in time.
    9004: no answer at first, completed when asked for. Any other number: completed.
    """

    name = SANDBOX

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def submit(self, asked: Consignment) -> Answer:
        match (asked.phone_e164 or "")[-4:]:
            case "9001":
                return self._says(Word.FAILED, 1, "the sandbox refuses this number")
            case "9002":
                return self._says(Word.PENDING, 1)
            case "9003":
                return self._says(Word.AWAIT_USER, 1)
            case "9004":
                return _NO_ANSWER
            case _:
                return self._says(Word.COMPLETED, 1)

    async def query(self, asked: Consignment) -> Answer:
        match (asked.phone_e164 or "")[-4:]:
            case "9001":
                return self._says(Word.FAILED, 1, "the sandbox refuses this number")
            case "9002":
                return self._says(Word.REVERSED, 2, "the sandbox reverses this number")
            case "9003" if asked.expires_at is None or self._clock() < asked.expires_at:
                return self._says(Word.AWAIT_USER, 1)
            case "9003":
                return self._says(Word.REVERSED, 2, "nobody confirmed in time")
            case _:
                return self._says(Word.COMPLETED, 2)

    def _says(self, word: Word, revision: int, reason: str = "") -> Answer:
        return Answer(word, revision, self._clock(), SANDBOX, reason)


@dataclass
class Breaker:
    """Leaves a provider in peace that does not answer: after five failures in a row nobody asks for 30 s, then one may.

    One a process and provider. It only saves requests: what an order is, its state alone decides.
    """

    failures: int = 0
    rests_until: datetime | None = None

    def count_max(self, now: datetime, wanted: int) -> int:
        """How many orders may be taken now: none while it rests, one to try whether the provider is back."""
        if self.rests_until is not None and now < self.rests_until:
            return 0
        return 1 if self.failures >= BREAKER_FAILURES else wanted

    def heard(self, answer: Answer, now: datetime) -> None:
        """Count an answer, or that there was none."""
        if answer.word is not Word.NO_ANSWER:
            self.failures, self.rests_until = 0, None
            return
        self.failures += 1
        if self.failures >= BREAKER_FAILURES:
            self.rests_until = now + BREAKER_REST


def providers_of(settings: Settings, client: httpx2.AsyncClient, clock: Clock) -> list[Provider]:
    """Every provider that the settings name, and the sandbox."""
    made: list[Provider] = [SandboxProvider(clock)]
    return made + list(http_providers(settings, client).values())


def http_providers(settings: Settings, client: httpx2.AsyncClient) -> dict[str, HttpProvider]:
    """The providers outside the house that the settings name."""
    carrier, cash = PROVIDER_OF[OrderKind.DATA], PROVIDER_OF[OrderKind.CASH]
    named = {
        carrier: (settings.carrier_url, settings.carrier_token),
        cash: (settings.cash_url, settings.cash_token),
    }
    return {
        name: HttpProvider(name, url, token.get_secret_value(), client) for name, (url, token) in named.items() if url
    }

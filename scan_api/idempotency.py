"""Requests that move value: each names a key of its caller's, is carried out once, and answered alike every time."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Response
from pydantic import BaseModel

from kit import idempotency
from kit.db import Session
from kit.errors import Invalid
from kit.idempotency import KEY_CHARACTERS_MAX, KEY_CHARACTERS_MIN

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
_EXAMPLE: Final = "5f0c1c9e-4f2b-4d0e-9a53-0c9f6a2b7d11"


class IdempotencyKeyMissing(Invalid):
    code = "IdempotencyKeyMissing"

    def __init__(self) -> None:
        super().__init__(
            f"this request moves value, so it needs the header {HEADER}",
            hint="Send a fresh random key, a UUID for example, with each new request, and the same one to repeat it.",
        )


class Once:
    """A request under its key."""

    def __init__(self, key: str, response: Response) -> None:
        self.key = key
        self._response = response

    async def run(
        self,
        session: Session,
        caller_id: uuid.UUID,
        operation: str,
        asked: BaseModel | Mapping[str, Any],
        now: datetime,
        work: Callable[[], Awaitable[BaseModel | dict[str, Any]]],
    ) -> dict[str, Any]:
        """Do the work and keep its answer in the same transaction, or answer as the first time and say so in a header.

        `operation` and `asked` are what the request is: put into `asked` what the path says, too. The answer is stored
        in the clear, so secrets and personal data are added to it afterwards. Raises IdempotencyKeyInvalid and
        IdempotencyKeyReused, and what the work raises: a refusal is not kept, and may be asked anew under its key.
        """
        body = asked.model_dump(mode="json") if isinstance(asked, BaseModel) else asked
        fingerprint = idempotency.fingerprint(operation, body)
        answer = await idempotency.begin(session, caller_id, self.key, fingerprint, now)
        if answer is not None:
            self.mark_replayed()
            return answer
        done = await work()
        answer = done.model_dump(mode="json") if isinstance(done, BaseModel) else done
        await idempotency.remember(session, caller_id, self.key, answer)
        return answer

    async def earlier(
        self, session: Session, caller_id: uuid.UUID, operation: str, asked: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The answer that this request was given before, and a header that says so; None: it is new.

        For what has to be known before `run`, which decides. Raises IdempotencyKeyInvalid and IdempotencyKeyReused.
        """
        idempotency.check_key(self.key)
        fingerprint = idempotency.fingerprint(operation, asked)
        answer = await idempotency.find(session, caller_id, self.key, fingerprint)
        if answer is not None:
            self.mark_replayed()
        return answer

    def mark_replayed(self) -> None:
        """Tell the caller that nothing was done this time."""
        self._response.headers[REPLAYED] = "true"


# A coroutine although nothing is awaited: the framework would send a plain function to a thread, for every request.
async def _once(
    response: Response,
    idempotency_key: Annotated[
        str,
        Header(
            description=f"Chosen by the caller, new for each new request; {KEY_CHARACTERS_MIN}..{KEY_CHARACTERS_MAX} "
            "printable ASCII characters. The same key and request get the same answer again, and move nothing.",
            examples=[_EXAMPLE],
        ),
    ],
) -> Once:
    return Once(idempotency_key, response)


OnlyOnce = Annotated[Once, Depends(_once)]
"""A parameter of a router whose request moves value."""

"""Idempotency keys: a request that moves value can be sent again, and its first answer comes back.

The answer is stored in the transaction that did the work, so that either both exist or neither.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import JSON, Column, LargeBinary, Text, UpdateBase, bindparam, delete, tuple_, update
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert_into, is_postgresql, table_of
from kit.errors import Conflict, Invalid
from kit.procedures import Kind, Step

KEY_CHARACTERS_MIN = 8
KEY_CHARACTERS_MAX = 64
REMEMBERED_FOR = timedelta(days=30)
"""How long an answer is kept; the same key is a new request afterwards."""
SWEPT_MAX = 10_000
"""Answers that one sweep forgets, so that it holds no locks for long."""
_REUSED = "this Idempotency-Key was already used for another request"
_REUSED_HINT = "Send a new key with a new request."


class IdempotencyKeyInvalid(Invalid):
    code = "IdempotencyKeyInvalid"


class IdempotencyKeyReused(Conflict):
    code = "IdempotencyKeyReused"


class IdempotentRequest(SQLModel, table=True):
    """A request that was carried out, under the key that its caller chose."""

    __tablename__: ClassVar[str] = "idempotent_request"

    caller_id: uuid.UUID = Field(primary_key=True)
    key: str = Field(primary_key=True, sa_type=Text)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    answer: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    at: datetime = Field(sa_type=Moment)


def fingerprint(operation: str, body: Mapping[str, Any]) -> bytes:
    """SHA-256 of what is asked for; two requests are the same when it is."""
    canonical = json.dumps([operation, body], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).digest()


def _claiming(*, on_postgresql: bool) -> UpdateBase:
    return (
        insert_into(IdempotentRequest, on_postgresql=on_postgresql)
        .values(
            caller_id=bindparam("caller"), key=bindparam("chosen"), fingerprint=bindparam("asked"), at=bindparam("now")
        )
        .on_conflict_do_nothing()
        .returning(col(IdempotentRequest.key))
    )


# Every claim runs these: built once, they cost SQLAlchemy a third of what building them anew does.
_CLAIMING = {on_postgresql: _claiming(on_postgresql=on_postgresql) for on_postgresql in (False, True)}
_REMEMBERING = (
    update(table_of(IdempotentRequest))
    .where(col(IdempotentRequest.caller_id) == bindparam("caller"), col(IdempotentRequest.key) == bindparam("chosen"))
    .values(answer=bindparam("given"))
)


TAKING_PARAMETERS: Mapping[str, Kind] = {
    "caller": Kind.UUID,
    "key": Kind.TEXT,
    "asked": Kind.BYTES,
    "remembered": Kind.JSON,
    "now": Kind.MOMENT,
}
TAKING: Sequence[Step] = (
    Step(
        "INSERT INTO idempotent_request (caller_id, key, fingerprint, answer, at) "
        "VALUES (:caller, :key, :asked, :remembered, :now) ON CONFLICT (caller_id, key) DO NOTHING",
        refusal="KeyTaken",
    ),
)
"""Steps that claim a key together with the answer, for a procedure that knows it beforehand; `find` has the earlier
one."""


async def begin(session: Session, caller_id: uuid.UUID, key: str, asked: bytes, now: datetime) -> dict[str, Any] | None:
    """Claim the key for this request, or give back the answer that it had before.

    None means: do the work, then call `remember`. A request under the same key that is still running is waited for.
    Raises IdempotencyKeyInvalid (8..64 characters, printable ASCII) and IdempotencyKeyReused (another body).
    """
    check_key(key)
    claimed = await session.exec(
        _CLAIMING[is_postgresql(session)], params={"caller": caller_id, "chosen": key, "asked": asked, "now": now}
    )
    if claimed.first() is not None:
        return None
    answer = await find(session, caller_id, key, asked)
    if answer is None:
        raise IdempotencyKeyReused(_REUSED, hint=_REUSED_HINT)  # its request is of a form that was never answered
    return answer


def check_key(key: str) -> None:
    """Raises IdempotencyKeyInvalid unless it is 8..64 characters of printable ASCII."""
    if not KEY_CHARACTERS_MIN <= len(key) <= KEY_CHARACTERS_MAX or not (key.isascii() and key.isprintable()):
        raise IdempotencyKeyInvalid(
            f"Idempotency-Key must be {KEY_CHARACTERS_MIN} to {KEY_CHARACTERS_MAX} printable ASCII characters",
            hint="Send a fresh random key, a UUID for example, with each new request.",
        )


async def find(session: Session, caller_id: uuid.UUID, key: str, asked: bytes) -> dict[str, Any] | None:
    """The answer to the request that had this key before; None when there was none. Raises IdempotencyKeyReused."""
    found = await session.exec(
        select(IdempotentRequest).where(IdempotentRequest.caller_id == caller_id, IdempotentRequest.key == key)
    )
    earlier = found.first()
    if earlier is None:
        return None
    if earlier.fingerprint != asked or earlier.answer is None:
        raise IdempotencyKeyReused(_REUSED, hint=_REUSED_HINT)
    return earlier.answer


async def remember(session: Session, caller_id: uuid.UUID, key: str, answer: dict[str, Any]) -> None:
    """Store the answer, to be given again when the request comes again."""
    await session.exec(_REMEMBERING, params={"caller": caller_id, "chosen": key, "given": answer})


async def sweep(session: Session, now: datetime) -> int:
    """Forget up to 10,000 answers that nobody will ask for again; how many."""
    table = table_of(IdempotentRequest)
    old = select(table.c.caller_id, table.c.key).where(table.c.at <= now - REMEMBERED_FOR).limit(SWEPT_MAX)
    gone = await session.exec(delete(table).where(tuple_(table.c.caller_id, table.c.key).in_(old)))
    return int(gone.rowcount)

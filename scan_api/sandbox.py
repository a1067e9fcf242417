"""Answers of the sandbox say that they are: whoever reads one must not take it for the real thing."""

from contextvars import ContextVar
from dataclasses import dataclass

from sqlmodel import select

from codes.catalogue import Brand
from kit.db import Session
from kit.errors import Forbidden
from loyalty.sandbox import is_sandbox

HEADER = "fanxing-sandbox"


class SandboxOnly(Forbidden):
    """One side of the wall asked for something of the other."""

    code = "SandboxOnly"


@dataclass(slots=True)
class Watch:
    """Whether the request under way turned out to be of the sandbox."""

    is_sandbox: bool = False


_watch: ContextVar[Watch | None] = ContextVar("sandbox", default=None)


def watch() -> Watch:
    """Begin a request: what `mark_answer` says from now on is seen in the result, also from other coroutines of it."""
    begun = Watch()
    _watch.set(begun)
    return begun


def mark_answer() -> None:
    """The request under way is of the sandbox."""
    watched = _watch.get()
    if watched is not None:
        watched.is_sandbox = True


async def is_sandbox_brand(session: Session, brand_id: int | None) -> bool:
    """Whether a brand is one of make-believe; no brand at all is not."""
    if brand_id is None:
        return False
    group_id = (await session.exec(select(Brand.group_id).where(Brand.brand_id == brand_id))).one()
    return await is_sandbox(session, group_id)


async def require_side(session: Session, key_is_sandbox: bool, group_id: int) -> None:
    """Raises SandboxOnly when a key of one side asks for a group of the other."""
    if await is_sandbox(session, group_id) != key_is_sandbox:
        raise SandboxOnly("a sandbox and the real world do not see each other", hint="Use a key of that side.")

"""How many one-time codes may be asked for: by a phone, a device, an address and its neighbourhood; and how many typed.

The windows also count what tills look up, see `loyalty.till_limits`.

Every limit is a window that opens with the first code and closes after its time. Windows stand in the database, since
several processes share them, under keyed hashes alone: a copy tells no address and no phone number.

An IPv4 address may be a carrier's, with hundreds of subscribers behind it, so it gets more than a device; an IPv6 /64
is one subscriber (RFC 6177) and gets little. The wider network bounds who owns many addresses of one block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from sqlalchemy import CheckConstraint, LargeBinary, Text, case, delete
from sqlmodel import Field, SQLModel, col, select

from kit.db import Moment, Session, insert
from kit.vault import Vault


class Scope(StrEnum):
    """What a limit counts by, in the order in which windows are locked."""

    PHONE = "phone"
    """A phone number, whatever the group."""
    DEVICE = "device"
    """A device, by the id that it tells."""
    IPV4 = "ipv4"
    """One IPv4 address."""
    IPV4_BLOCK = "ipv4-block"
    """The /24 around it."""
    IPV6 = "ipv6"
    """An IPv6 /64."""
    IPV6_BLOCK = "ipv6-block"
    """The /48 around it."""
    IPV4_TRIES = "ipv4-tries"
    """One IPv4 address, by codes that are typed."""
    IPV6_TRIES = "ipv6-tries"
    """An IPv6 /64, likewise."""
    TILL = "till"
    """A till, by what it looks up."""


@dataclass(frozen=True)
class Limit:
    """At most `count_max` within `window` of the first."""

    count_max: int
    window: timedelta


LIMITS: Mapping[Scope, Limit] = {
    Scope.PHONE: Limit(10, timedelta(hours=24)),
    Scope.DEVICE: Limit(10, timedelta(hours=1)),
    Scope.IPV4: Limit(120, timedelta(hours=1)),
    Scope.IPV4_BLOCK: Limit(480, timedelta(hours=1)),
    Scope.IPV6: Limit(20, timedelta(hours=1)),
    Scope.IPV6_BLOCK: Limit(240, timedelta(hours=1)),
    Scope.IPV4_TRIES: Limit(300, timedelta(hours=1)),
    Scope.IPV6_TRIES: Limit(60, timedelta(hours=1)),
    Scope.TILL: Limit(6_000, timedelta(hours=1)),
}
_LONGEST = max(limit.window for limit in LIMITS.values())


class CodeWindow(SQLModel, table=True):
    """The codes that one phone, device or network has asked for since its window opened, or what a till looked up."""

    __tablename__: ClassVar[str] = "code_window"
    __table_args__ = (
        CheckConstraint(f"scope IN ({', '.join(repr(str(scope)) for scope in Scope)})", name="scope"),
        CheckConstraint("codes > 0", name="codes"),
    )

    scope: str = Field(primary_key=True, sa_type=Text)
    subject: bytes = Field(primary_key=True, sa_type=LargeBinary)
    opened_at: datetime = Field(sa_type=Moment)
    codes: int


@dataclass(frozen=True)
class Asker:
    """From where a code is asked for: a network and the wider one around it, as 203.0.113.7/32 and 203.0.113.0/24."""

    network: str
    network_wide: str
    device_id: str | None = None

    def subjects(self) -> Sequence[tuple[Scope, str]]:
        """What is counted."""
        narrow, wide = (Scope.IPV6, Scope.IPV6_BLOCK) if ":" in self.network else (Scope.IPV4, Scope.IPV4_BLOCK)
        device = [] if self.device_id is None else [(Scope.DEVICE, self.device_id)]
        return [*device, (narrow, self.network), (wide, self.network_wide)]


async def take(
    session: Session, vault: Vault, phone_e164: str | None, asker: Asker | None, now: datetime
) -> timedelta | None:
    """Count one code. None when it may be sent, else how long until it may; then roll the transaction back.

    Call it in the transaction that makes the code, so that a code that is refused for another reason does not count.
    `phone_e164` is None for codes that are not sent, such as a sandbox's: they must not use up those of the real owner.
    """
    subjects = [(Scope.PHONE, phone_e164)] if phone_e164 is not None else []
    return await _take_all(session, vault, [*subjects, *(asker.subjects() if asker else ())], now)


async def take_try(session: Session, vault: Vault, asker: Asker, now: datetime) -> timedelta | None:
    """Count a code that was typed, right or wrong: five wrong ones end a code, and nobody may end everybody's.

    None when it may be looked at, else how long until it may.
    """
    scope = Scope.IPV6_TRIES if ":" in asker.network else Scope.IPV4_TRIES
    return await _take_all(session, vault, [(scope, asker.network)], now)


async def _take_all(
    session: Session, vault: Vault, subjects: Sequence[tuple[Scope, str]], now: datetime
) -> timedelta | None:
    for scope, value in subjects:
        wait = await take_from(session, vault, scope, value, now)
        if wait is not None:
            return wait
    return None


async def take_from(
    session: Session, vault: Vault, scope: Scope, value: str, now: datetime, count: int = 1
) -> timedelta | None:
    """Count in one window. None while its limit was not reached before, else how long until it opens anew.

    The last one may go beyond the limit by `count` - 1: whether there is room does not tell how much is wanted.
    """
    subject, limit = _subject(vault, scope, value), LIMITS[scope]
    is_over = col(CodeWindow.opened_at) <= now - limit.window
    counted = await session.exec(
        insert(session, CodeWindow)
        .values(scope=scope, subject=subject, opened_at=now, codes=count)
        .on_conflict_do_update(
            index_elements=["scope", "subject"],
            set_={
                "opened_at": case((is_over, now), else_=col(CodeWindow.opened_at)),
                "codes": case((is_over, count), else_=col(CodeWindow.codes) + count),
            },
            where=is_over | (col(CodeWindow.codes) < limit.count_max),
        )
        .returning(col(CodeWindow.codes))
    )
    if counted.first() is not None:
        return None
    opened = await session.exec(
        select(CodeWindow.opened_at).where(CodeWindow.scope == scope, CodeWindow.subject == subject)
    )
    return opened.one() + limit.window - now


async def wait_for(session: Session, vault: Vault, scope: Scope, value: str, now: datetime) -> timedelta | None:
    """Count nothing. None while there is room in the window, else how long until it opens anew."""
    limit = LIMITS[scope]
    full = await session.exec(
        select(CodeWindow.opened_at).where(
            CodeWindow.scope == scope,
            CodeWindow.subject == _subject(vault, scope, value),
            col(CodeWindow.opened_at) > now - limit.window,
            col(CodeWindow.codes) >= limit.count_max,
        )
    )
    opened_at = full.first()
    return None if opened_at is None else opened_at + limit.window - now


def _subject(vault: Vault, scope: Scope, value: str) -> bytes:
    return vault.fingerprint("code-window", f"{scope}\x00{value}")


async def sweep(session: Session, now: datetime) -> None:
    """Forget windows that closed."""
    await session.exec(delete(CodeWindow).where(col(CodeWindow.opened_at) <= now - _LONGEST))

"""Limits of one-time codes: by phone, device and network, counted in the database that all processes share."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from itertools import count

import pytest
from sqlmodel import select

from kit.db import Database
from kit.vault import Vault
from loyalty import code_limits, sign_in
from loyalty.code_limits import LIMITS, Asker, CodeWindow, Limit, Scope
from loyalty.sign_in import CodePurpose, OneTimeCodeTooSoon
from tests.loyalty.conftest import NOW

A_MOMENT = timedelta(microseconds=1)
HOME = Asker("203.0.113.7/32", "203.0.113.0/24", "device-0123456789")
PHONES = (f"+86138{number:08d}" for number in count())


async def take(
    database: Database, vault: Vault, asker: Asker | None, now: datetime = NOW, phone: str | None = None
) -> timedelta | None:
    """One code for a number that has had none, unless one is named; what is refused leaves nothing behind."""
    refused = None
    try:
        async with database.writing() as session:
            refused = await code_limits.take(session, vault, phone or next(PHONES), asker, now)
            if refused is not None:
                raise InterruptedError
    except InterruptedError:
        pass
    return refused


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of three, so that reaching one takes three codes and not hundreds; the windows stay."""
    lower = {scope: Limit(3, limit.window) for scope, limit in LIMITS.items()}
    monkeypatch.setattr(code_limits, "LIMITS", lower)


SPREAD = {
    Scope.DEVICE: lambda number: Asker(f"198.51.100.{number}/32", f"198.51.{number}.0/24", "device-0123456789"),
    Scope.IPV4: lambda number: Asker("203.0.113.7/32", f"203.0.{number}.0/24", f"device-{number:010}"),
    Scope.IPV4_BLOCK: lambda number: Asker(f"203.0.113.{number}/32", "203.0.113.0/24", None),
    Scope.IPV6: lambda number: Asker("2001:db8:1:2::/64", f"2001:db8:{number}::/48", None),
    Scope.IPV6_BLOCK: lambda number: Asker(f"2001:db8:1:{number}::/64", "2001:db8:1::/48", None),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("scope", SPREAD, ids=str)
async def test_each_scope_is_limited_by_itself_below_at_and_above(
    database: Database, vault: Vault, scope: Scope
) -> None:
    asker = SPREAD[scope]
    taken = [await take(database, vault, asker(number)) for number in range(4)]
    assert taken == [None, None, None, LIMITS[scope].window]


@pytest.mark.usefixtures("small")
async def test_a_phone_is_limited_in_all_groups_together(database: Database, vault: Vault) -> None:
    phone = next(PHONES)
    taken = [await take(database, vault, None, phone=phone) for _ in range(4)]
    assert taken == [None, None, None, timedelta(hours=24)]


@pytest.mark.usefixtures("small")
async def test_a_window_opens_again_when_its_time_is_over_and_says_when(database: Database, vault: Vault) -> None:
    for number in range(3):
        await take(database, vault, HOME, NOW + timedelta(minutes=number))
    assert await take(database, vault, HOME, NOW + timedelta(minutes=3)) == timedelta(minutes=57)
    assert await take(database, vault, HOME, NOW + timedelta(hours=1) - A_MOMENT) == A_MOMENT
    assert await take(database, vault, HOME, NOW + timedelta(hours=1)) is None


@pytest.mark.usefixtures("small")
async def test_what_is_refused_does_not_count(database: Database, vault: Vault) -> None:
    for _ in range(6):
        await take(database, vault, HOME)
    async with database.reading() as session:
        windows = (await session.exec(select(CodeWindow))).all()
    assert max(window.codes for window in windows) == 3


async def test_twenty_at_once_get_what_one_after_the_other_would(database: Database, vault: Vault) -> None:
    limit = LIMITS[Scope.DEVICE].count_max
    taken = await asyncio.gather(*(take(database, vault, HOME) for _ in range(20)))
    assert Counter(wait is None for wait in taken) == {True: limit, False: 20 - limit}


async def test_the_windows_hold_neither_number_nor_address(database: Database, vault: Vault) -> None:
    await take(database, vault, HOME, phone="+8613800138000")
    async with database.reading() as session:
        for window in await session.exec(select(CodeWindow)):
            assert len(window.subject) == 32
            assert not any(known in window.subject for known in (b"13800138000", b"203.0.113", b"device"))


async def test_a_network_that_used_up_its_codes_gets_the_answer_of_a_number_that_did(
    database: Database, vault: Vault, small: None
) -> None:
    async def issue(phone: str) -> None:
        async with database.writing() as session:
            await sign_in.issue_code(session, vault, 1, phone, CodePurpose.SIGN_IN, NOW, HOME)

    for _ in range(3):
        await issue(next(PHONES))
    with pytest.raises(OneTimeCodeTooSoon) as refusal:
        await issue(next(PHONES))
    assert refusal.value.retry_after_s == 3600
    assert "network" not in refusal.value.message


async def test_sweeping_forgets_windows_after_the_longest(database: Database, vault: Vault) -> None:
    await take(database, vault, HOME)
    async with database.writing() as session:
        await code_limits.sweep(session, NOW + timedelta(hours=24) - A_MOMENT)
        assert len((await session.exec(select(CodeWindow))).all()) == 4
        await code_limits.sweep(session, NOW + timedelta(hours=24))
        assert (await session.exec(select(CodeWindow))).all() == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("network", ["203.0.113.7/32", "2001:db8:1:2::/64"])
async def test_codes_that_are_typed_are_limited_by_network(database: Database, vault: Vault, network: str) -> None:
    asker, other = Asker(network, network), Asker("203.0.113.8/32", "203.0.113.0/24")
    for _ in range(3):
        async with database.writing() as session:
            await sign_in.count_try(session, vault, asker, NOW)
    with pytest.raises(sign_in.OneTimeCodeTriesLimited) as refused:
        async with database.writing() as session:
            await sign_in.count_try(session, vault, asker, NOW)
    assert refused.value.retry_after_s == 3_600
    async with database.writing() as session:
        await sign_in.count_try(session, vault, other, NOW)
        await sign_in.count_try(session, vault, asker, NOW + timedelta(hours=1))


async def test_codes_that_are_not_sent_use_up_nobodys(database: Database, vault: Vault) -> None:
    phone = next(PHONES)
    for group in range(2, 2 + LIMITS[Scope.PHONE].count_max + 1):
        async with database.writing() as session:
            await sign_in.issue_code(session, vault, group, phone, CodePurpose.SIGN_IN, NOW, is_sent=False)
    assert await take(database, vault, None, phone=phone) is None

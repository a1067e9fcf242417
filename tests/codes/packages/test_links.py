"""Links: the database counts every fetch, refuses the one too many, and writes both down."""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from codes import packages
from codes.acts import acts_of
from codes.orders import CodeOrder
from codes.packages import (
    NAME_CHARACTERS_MAX,
    CodePackage,
    PackageNameInvalid,
    PackageNameTaken,
    PackageRangesInvalid,
    PackageUnknown,
    links,
)
from codes.packages.links import (
    FETCHES_MAX,
    LABEL_CHARACTERS_MAX,
    LIFETIME_MAX,
    LIFETIME_MIN,
    Fetch,
    Outcome,
    PackageLink,
    PackageLinkExpired,
    PackageLinkInvalid,
    PackageLinkRevoked,
    PackageLinkSpent,
    PackageLinkUnknown,
)
from codes.packages.sealing import RecipientInvalid
from kit.db import Database
from tests.codes.conftest import NOW
from tests.codes.packages.conftest import RECIPIENT, register

WEEK = timedelta(days=7)
TICK = timedelta(microseconds=1)


async def link_to(
    database: Database, package: CodePackage, fetches: int = 1, lifetime: timedelta = WEEK
) -> tuple[PackageLink, str]:
    async with database.writing() as session:
        return await links.create(session, package, "Sun Press", lifetime, fetches, NOW)


async def fetch(database: Database, package_id: uuid.UUID, code: str, now: datetime = NOW) -> Fetch:
    async with database.writing() as session:
        return await links.fetch(session, package_id, code, "192.0.2.7", now)


async def outcomes(database: Database, package: CodePackage) -> list[tuple[str, str | None]]:
    async with database.reading() as session:
        found = await links.fetches_of(session, package.package_id)
    return [(tried.outcome, link.label if link else None) for tried, link in found]


async def test_a_package_is_told_of_as_it_was_registered(
    database: Database, order: CodeOrder, package: CodePackage
) -> None:
    async with database.reading() as session:
        assert await packages.package_with(session, package.package_id) == package
        assert await packages.packages_of(session, order.order_id) == [package]
        assert await packages.packages_of(session) == [package]
        with pytest.raises(PackageUnknown):
            await packages.package_with(session, uuid.uuid4())
    assert (package.items, package.spans, package.recipients) == (100, [(0, 99)], RECIPIENT)
    assert package.file_name == f"{package.package_id}.tar.age"


@pytest.mark.parametrize("name", ["", " ", "a ", " a", "a\nb", "x" * (NAME_CHARACTERS_MAX + 1)])
async def test_a_name_that_does_not_print_is_refused(database: Database, order: CodeOrder, name: str) -> None:
    with pytest.raises(PackageNameInvalid):
        async with database.writing() as session:
            await register(session, order, name=name)


async def test_a_name_is_an_orders_own(database: Database, order: CodeOrder, package: CodePackage) -> None:
    async with database.writing() as session:
        await register(session, order, name="x" * NAME_CHARACTERS_MAX)
    with pytest.raises(PackageNameTaken):
        async with database.writing() as session:
            await register(session, order)


async def test_of_two_that_take_a_name_at_once_one_gets_it(database: Database, order: CodeOrder) -> None:
    async def take() -> CodePackage:
        async with database.writing() as session:
            return await register(session, order)

    answers = await asyncio.gather(take(), take(), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["CodePackage", "PackageNameTaken"]


@pytest.mark.parametrize(
    ("spans", "fit"),
    [
        ([(0, 999)], True),
        ([(999, 999)], True),
        ([(0, 4), (6, 9)], True),
        ([], False),
        ([(0, 1_000)], False),
        ([(-1, 4)], False),
        ([(5, 4)], False),
        ([(0, 4), (5, 9)], False),
        ([(6, 9), (0, 4)], False),
    ],
)
async def test_a_packages_ranges_lie_in_its_order(
    database: Database, order: CodeOrder, spans: Sequence[tuple[int, int]], fit: bool
) -> None:
    async with database.writing() as session:
        if fit:
            assert (await register(session, order, spans=spans)).spans == spans
        else:
            with pytest.raises(PackageRangesInvalid):
                await register(session, order, spans=spans)


async def test_a_package_for_nobody_is_refused(database: Database, order: CodeOrder) -> None:
    with pytest.raises(RecipientInvalid):
        async with database.writing() as session:
            await register(session, order, recipients=[])


async def test_a_link_is_good_for_its_fetches_and_no_more(database: Database, package: CodePackage) -> None:
    _link, code = await link_to(database, package, fetches=2)
    tries = [await fetch(database, package.package_id, code) for _ in range(3)]
    assert [tried.outcome for tried in tries] == [Outcome.FETCHED, Outcome.FETCHED, Outcome.SPENT]
    assert [tried.package for tried in tries] == [package, package, None]
    assert isinstance(tries[2].refusal, PackageLinkSpent)
    assert await outcomes(database, package) == [("fetched", "Sun Press")] * 2 + [("spent", "Sun Press")]
    async with database.reading() as session:
        acts = await acts_of(session, package.order_id)
    assert [(act.kind, act.by) for act in acts] == [
        ("package_sealed", "li"),
        ("package_fetched", "Sun Press"),
        ("package_fetched", "Sun Press"),
    ]


async def test_of_many_at_once_exactly_as_many_as_allowed_get_it(database: Database, package: CodePackage) -> None:
    _link, code = await link_to(database, package, fetches=3)
    tries = await asyncio.gather(*(fetch(database, package.package_id, code) for _ in range(15)))
    assert sorted(tried.outcome for tried in tries) == [Outcome.FETCHED] * 3 + [Outcome.SPENT] * 12
    assert sorted(await outcomes(database, package)) == [("fetched", "Sun Press")] * 3 + [("spent", "Sun Press")] * 12


async def test_a_link_ends_at_its_moment(database: Database, package: CodePackage) -> None:
    _link, code = await link_to(database, package, fetches=5)
    for moment, outcome in (
        (NOW + WEEK - TICK, Outcome.FETCHED),
        (NOW + WEEK, Outcome.EXPIRED),
        (NOW + WEEK + TICK, Outcome.EXPIRED),
    ):
        tried = await fetch(database, package.package_id, code, moment)
        assert tried.outcome is outcome
        assert outcome is Outcome.FETCHED or isinstance(tried.refusal, PackageLinkExpired)


async def test_a_revoked_link_says_so_for_ever(database: Database, package: CodePackage) -> None:
    link, code = await link_to(database, package)
    for hours in (1, 2):
        async with database.writing() as session:
            revoked = await links.revoke(session, link.link_id, NOW + timedelta(hours=hours))
        assert revoked.revoked_at == NOW + timedelta(hours=1)
    for moment in (NOW, NOW + 2 * WEEK):
        tried = await fetch(database, package.package_id, code, moment)
        assert tried.outcome is Outcome.REVOKED
        assert isinstance(tried.refusal, PackageLinkRevoked)
    async with database.reading() as session:
        with pytest.raises(PackageLinkRevoked):
            await links.authenticate(session, package.package_id, code)
    async with database.writing() as session:
        with pytest.raises(PackageLinkUnknown):
            await links.revoke(session, uuid.uuid4(), NOW)


async def test_wrong_package_and_wrong_code_are_refused_alike(
    database: Database, order: CodeOrder, package: CodePackage
) -> None:
    _link, code = await link_to(database, package)
    async with database.writing() as session:
        other = await register(session, order, name="summer")
    tries = [
        await fetch(database, *given)
        for given in (
            (package.package_id, f"{code[:-1]}{'A' if code[-1] != 'A' else 'B'}"),
            (package.package_id, ""),
            (package.package_id, code + "\n"),
            (other.package_id, code),
            (uuid.uuid4(), code),
        )
    ]
    assert {(str(tried.refusal), type(tried.refusal), tried.package) for tried in tries} == {
        (str(tries[0].refusal), PackageUnknown, None)
    }
    assert await outcomes(database, package) == [("unknown-secret", None)] * 3
    assert await outcomes(database, other) == [("unknown-secret", None)]


async def test_the_database_holds_no_fetch_code(database: Database, package: CodePackage) -> None:
    link, code = await link_to(database, package)
    assert code.startswith("fxp_")
    assert len(code) == 47
    assert code[4:] not in repr(link.model_dump())
    assert code.encode()[4:] not in link.secret_sha256


async def test_a_spent_or_expired_link_still_reports(database: Database, package: CodePackage) -> None:
    link, code = await link_to(database, package)
    await fetch(database, package.package_id, code)
    async with database.reading() as session:
        assert await links.authenticate(session, package.package_id, code) == (
            package,
            await session.get_one(PackageLink, link.link_id),
        )
        with pytest.raises(PackageUnknown):
            await links.authenticate(session, package.package_id, f"fxp_{'A' * 43}")


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({"fetches_max": 1}, True),
        ({"fetches_max": FETCHES_MAX}, True),
        ({"fetches_max": 0}, False),
        ({"fetches_max": FETCHES_MAX + 1}, False),
        ({"lifetime": LIFETIME_MIN}, True),
        ({"lifetime": LIFETIME_MIN - TICK}, False),
        ({"lifetime": LIFETIME_MAX}, True),
        ({"lifetime": LIFETIME_MAX + TICK}, False),
        ({"label": "x" * LABEL_CHARACTERS_MAX}, True),
        ({"label": "x" * (LABEL_CHARACTERS_MAX + 1)}, False),
        ({"label": "  "}, False),
        ({"label": "a\tb"}, False),
    ],
)
async def test_a_links_limits(database: Database, package: CodePackage, change: dict[str, Any], good: bool) -> None:
    asked = {"label": "Sun Press", "lifetime": WEEK, "fetches_max": 1, "now": NOW, **change}
    async with database.writing() as session:
        if good:
            link, _code = await links.create(session, package, **asked)
            assert link.expires_at == NOW + asked["lifetime"]
        else:
            with pytest.raises(PackageLinkInvalid):
                await links.create(session, package, **asked)

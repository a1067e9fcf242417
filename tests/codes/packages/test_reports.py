"""Reports: what a print house may say of a package, and what follows once the brand agrees."""

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from codes import orders, ranges
from codes.acts import acts_of
from codes.orders import CodeOrder, OrderStateForbids
from codes.packages import CodePackage, reports
from codes.packages.reports import (
    REPORTS_PER_PACKAGE_MAX,
    TEXT_CHARACTERS_MAX,
    PackageReport,
    ReportContradicts,
    ReportDecided,
    ReportDiffers,
    ReportInvalid,
    ReportState,
    ReportsUsedUp,
    ReportUnknown,
    Settled,
    Told,
)
from codes.ranges import IndexRange, ItemState, RangeInvalid, RangeVoided
from codes.serials import SerialScheme
from kit.db import Database
from tests.codes.conftest import NOW
from tests.codes.packages.conftest import register


def told(printed: str = "", spoiled: str = "", overprinted: str = "") -> Told:
    return Told(uuid.uuid4(), printed, spoiled, overprinted)


async def receive(database: Database, package: CodePackage, scheme: SerialScheme, report: Told) -> PackageReport:
    async with database.writing() as session:
        mine = await session.get_one(CodePackage, package.package_id)
        return await reports.receive(session, mine, scheme, report, None, NOW)


async def accept(database: Database, package: CodePackage, report: PackageReport) -> Settled:
    async with database.writing() as session:
        mine = await reports.report_with(session, package.package_id, report.report_id)
        return await reports.accept(session, package, mine, "li", NOW + timedelta(days=1))


async def reject(database: Database, package: CodePackage, report: PackageReport) -> None:
    async with database.writing() as session:
        mine = await reports.report_with(session, package.package_id, report.report_id)
        await reports.reject(session, package, mine, "li", NOW)


async def states(database: Database, order: CodeOrder) -> list[tuple[int, int, ItemState]]:
    async with database.reading() as session:
        mine = await session.get_one(CodeOrder, order.order_id)
        return [(part.first, part.last, part.state) for part in await ranges.standing(session, mine)]


def written(found: Iterable[IndexRange]) -> str:
    return ",".join(map(str, found))


async def test_nothing_changes_before_the_brand_agrees(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    report = await receive(database, package, scheme, told("0-89", "90-99", "20-29,40"))
    assert report.state == ReportState.RECEIVED
    assert report.as_json() | {"report_id": ""} == {
        "report_id": "",
        "state": "received",
        "on_sale": 79,
        "spoiled": 10,
        "overprinted": 11,
    }
    assert await states(database, order) == [(0, 999, ItemState.DORMANT)]
    async with database.reading() as session:
        assert await reports.waiting(session) == {package.package_id: 1}


async def test_accepting_puts_on_sale_what_was_printed_once_and_voids_the_rest(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    report = await receive(database, package, scheme, told("0-89", "90-94", "20-29,96"))
    settled = await accept(database, package, report)
    assert (written(settled.activated), written(settled.voided)) == ("0-19,30-89", "20-29,90-94,96")
    assert await states(database, order) == [
        (0, 19, ItemState.ACTIVE),
        (20, 29, ItemState.VOIDED),
        (30, 89, ItemState.ACTIVE),
        (90, 94, ItemState.VOIDED),
        (95, 95, ItemState.DORMANT),
        (96, 96, ItemState.VOIDED),
        (97, 999, ItemState.DORMANT),
    ]
    async with database.reading() as session:
        stored = await reports.report_with(session, package.package_id, report.report_id)
        act = (await acts_of(session, package.order_id))[-1]
        assert await reports.waiting(session) == {}
    assert (stored.state, stored.decided_by, stored.decided_at) == ("accepted", "li", NOW + timedelta(days=1))
    assert (act.kind, act.by, act.detail["on_sale"], act.detail["voided"]) == (
        "report_accepted",
        "li",
        "0-19,30-89",
        "20-29,90-94,96",
    )


async def test_serials_are_taken_as_well_as_indexes(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    first, last = (order.serial(int(scheme.item_numbers(order.gtin, order.order_number, at, 1)[0])) for at in (3, 7))
    report = await receive(database, package, scheme, told(f"{first}-{last}"))
    assert report.to_activate == [IndexRange(3, 7)]


async def test_the_same_report_again_is_the_same_report(
    database: Database, package: CodePackage, scheme: SerialScheme
) -> None:
    report = told("0-9")
    first = await receive(database, package, scheme, report)
    assert await receive(database, package, scheme, report) == first
    await accept(database, package, first)
    assert (await receive(database, package, scheme, report)).state == ReportState.ACCEPTED
    for other in (replace(report, printed="0-8"), replace(report, printed="", spoiled="0-9")):
        with pytest.raises(ReportDiffers):
            await receive(database, package, scheme, other)
    async with database.reading() as session:
        assert len(await reports.reports_of(session, package.package_id)) == 1


async def test_an_id_may_be_used_by_two_print_houses(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    async with database.writing() as session:
        other = await register(session, order, name="summer", spans=[(500, 599)])
    report = told("0-9")
    await receive(database, package, scheme, report)
    await receive(database, other, scheme, replace(report, printed="500"))


@pytest.mark.parametrize(
    ("report", "error"),
    [
        (told(), ReportInvalid),
        (told(" "), ReportInvalid),
        (told("100"), ReportInvalid),
        (told("0-100"), ReportInvalid),
        (told(spoiled="100"), ReportInvalid),
        (told(overprinted="99-100"), ReportInvalid),
        (told("0-9", spoiled="9-10"), ReportInvalid),
        (told(spoiled="0-9", overprinted="9"), ReportInvalid),
        (told("0-9", spoiled="5", overprinted="5"), ReportInvalid),
        (told("1000"), RangeInvalid),
        (told("9-0"), RangeInvalid),
        (told("all"), RangeInvalid),
        (told("0," * (TEXT_CHARACTERS_MAX // 2) + "0"), ReportInvalid),
    ],
)
async def test_a_report_of_what_cannot_be_is_refused(
    database: Database, package: CodePackage, scheme: SerialScheme, report: Told, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await receive(database, package, scheme, report)
    async with database.reading() as session:
        assert await reports.reports_of(session, package.package_id) == []


async def test_what_lies_between_a_packages_ranges_is_not_its_own(
    database: Database, order: CodeOrder, scheme: SerialScheme
) -> None:
    async with database.writing() as session:
        package = await register(session, order, spans=[(0, 9), (20, 29)])
    with pytest.raises(ReportInvalid, match="10-19"):
        await receive(database, package, scheme, told("0-29"))
    assert (await receive(database, package, scheme, told("0-9,20-29"))).as_json()["on_sale"] == 20


async def test_a_report_cut_into_too_many_pieces_is_refused(
    database: Database, order: CodeOrder, scheme: SerialScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "RANGES_PER_CALL_MAX", 3)
    async with database.writing() as session:
        package = await register(session, order)
    with pytest.raises(ReportInvalid, match="at most 3 ranges"):
        await receive(database, package, scheme, told("0-9", overprinted="1,3,5"))
    assert len((await receive(database, package, scheme, told("0-9", overprinted="1,3"))).to_activate) == 3


async def test_later_reports_go_on_but_never_contradict(
    database: Database, package: CodePackage, scheme: SerialScheme
) -> None:
    first = await receive(database, package, scheme, told("0-9", "10-19", "5"))
    await accept(database, package, first)
    await receive(database, package, scheme, told("20-29"))
    await receive(database, package, scheme, told("0-4"))  # the same of the same codes is no contradiction
    for report in (told("10"), told("5"), told(spoiled="0"), told(overprinted="29-30"), told("30", "20")):
        with pytest.raises(ReportContradicts):
            await receive(database, package, scheme, report)


async def test_a_rejected_report_stands_in_nobodys_way(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    mistaken = await receive(database, package, scheme, told("0-99"))
    await reject(database, package, mistaken)
    right = await receive(database, package, scheme, told("0-49", "50-99"))
    await accept(database, package, right)
    assert await states(database, order) == [
        (0, 49, ItemState.ACTIVE),
        (50, 99, ItemState.VOIDED),
        (100, 999, ItemState.DORMANT),
    ]


async def test_of_two_reports_at_once_that_contradict_one_is_taken(
    database: Database, package: CodePackage, scheme: SerialScheme
) -> None:
    answers = await asyncio.gather(
        receive(database, package, scheme, told("0-9")),
        receive(database, package, scheme, told(spoiled="0-9")),
        return_exceptions=True,
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["PackageReport", "ReportContradicts"]


async def test_a_report_is_decided_once(database: Database, package: CodePackage, scheme: SerialScheme) -> None:
    report = await receive(database, package, scheme, told("0-9"))
    answers = await asyncio.gather(*(accept(database, package, report) for _ in range(4)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["ReportDecided"] * 3 + ["Settled"]
    with pytest.raises(ReportDecided):
        await reject(database, package, report)
    async with database.reading() as session:
        assert [act.kind for act in await acts_of(session, package.order_id)] == ["package_sealed", "report_accepted"]
        with pytest.raises(ReportUnknown):
            await reports.report_with(session, package.package_id, uuid.uuid4())


async def test_what_cannot_all_be_done_is_not_done_at_all(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    report = await receive(database, package, scheme, told("0-9", "10-19"))
    async with database.writing() as session:
        await ranges.void(session, await session.get_one(CodeOrder, order.order_id), [IndexRange(5, 5)])
    before = await states(database, order)
    with pytest.raises(RangeVoided):
        await accept(database, package, report)
    assert await states(database, order) == before
    async with database.writing() as session:
        await orders.recall(session, await session.get_one(CodeOrder, order.order_id), "Glass")
    with pytest.raises(OrderStateForbids):
        await accept(database, package, report)
    async with database.reading() as session:
        stored = await reports.report_with(session, package.package_id, report.report_id)
    assert stored.state == ReportState.RECEIVED


async def test_an_order_already_on_sale_still_has_its_spoilage_voided(
    database: Database, order: CodeOrder, package: CodePackage, scheme: SerialScheme
) -> None:
    async with database.writing() as session:
        await orders.activate(session, await session.get_one(CodeOrder, order.order_id))
    settled = await accept(database, package, await receive(database, package, scheme, told("0-9", "10-19")))
    assert (settled.activated, written(settled.voided)) == ([], "10-19")


async def test_a_package_takes_a_hundred_reports(
    database: Database, package: CodePackage, scheme: SerialScheme
) -> None:
    for at in range(REPORTS_PER_PACKAGE_MAX):
        await receive(database, package, scheme, told(str(at % 100)))
    with pytest.raises(ReportsUsedUp):
        await receive(database, package, scheme, told("0"))

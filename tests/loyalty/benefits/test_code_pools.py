"""Pools of imported codes: imported once, sealed at rest, each dealt to one member."""

import asyncio
import uuid
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from loyalty import benefits
from loyalty.benefits import (
    Benefit,
    BenefitInvalid,
    BenefitKind,
    BenefitOutOfStock,
    BenefitState,
    HeldBenefit,
    MemberBenefit,
    code_pools,
    pool_files,
    stock,
)
from loyalty.benefits.code_pools import Chunk, PoolCode, PoolFile, PoolImportOvertaken, PoolReport
from loyalty.benefits.pool_files import Line, PoolFileInvalid
from tests.loyalty.benefits.conftest import House, MakeBenefit
from tests.loyalty.conftest import NOW, MakeMember


@pytest.fixture
async def pool(make_benefit: MakeBenefit) -> Benefit:
    return await make_benefit(kind=BenefitKind.POOL)


async def _verify(house: House, pool: Benefit) -> PoolReport:
    async with house.database.reading() as session:
        return await code_pools.verify(session, pool)


def _codes(count: int, start: int = 0) -> list[str]:
    return [f"CODE-{number:05d}" for number in range(start, start + count)]


async def test_imported_codes_are_the_stock_and_are_sealed(house: House, pool: Benefit) -> None:
    assert await house.fill_pool(pool, _codes(100)) == Chunk(100, (), ())
    assert await house.left(pool) == 100
    async with house.database.reading() as session:
        rows = (await session.exec(select(PoolCode))).all()
    assert not any(b"CODE" in row.sealed or b"CODE" in row.fingerprint for row in rows)
    assert await _verify(house, pool) == PoolReport(100, 0, 100, ())
    await house.verify()


async def test_a_line_that_is_no_code_or_was_there_before_is_told_by_its_number(house: House, pool: Benefit) -> None:
    good, long = "A" * 4, "B" * 64
    await house.fill_pool(pool, [good, long])
    lines = ["A" * 3, "B" * 65, "with space", "ü" * 5, "tab\tin", "", good, "NEW-1", "NEW-1", long, "new-1"]
    assert await house.fill_pool(pool, lines) == Chunk(2, (7, 9, 10), (1, 2, 3, 4, 5, 6))
    assert await house.left(pool) == 4


async def test_two_members_never_get_one_code(house: House, pool: Benefit, make_member: MakeMember) -> None:
    crowd = [await make_member(number) for number in range(20)]
    await house.fill_pool(pool, _codes(15))
    answers = await asyncio.gather(*(house.grant(one, pool) for one in crowd), return_exceptions=True)
    assert Counter(type(answer) for answer in answers) == {HeldBenefit: 15, BenefitOutOfStock: 5}
    held = [(one, answer) for one, answer in zip(crowd, answers, strict=True) if isinstance(answer, HeldBenefit)]
    shown = [await house.call(benefits.show, one, answer.held_id, NOW) for one, answer in held]
    assert {answer.code for answer in shown} == set(_codes(15))
    assert await _verify(house, pool) == PoolReport(15, 15, 0, ())
    await house.verify()


async def test_a_pools_code_comes_into_view_when_it_is_asked_for(
    house: House, pool: Benefit, member_id: uuid.UUID
) -> None:
    await house.fill_pool(pool, ["SHOP-1234"])
    held = await house.grant(member_id, pool)
    assert (held.code, (await house.held(member_id))[0].code) == (None, None)
    assert (await house.call(benefits.show, member_id, held.held_id, NOW)).code == "SHOP-1234"
    assert (await house.held(member_id))[0].code == "SHOP-1234"
    assert (await house.redeem(" SHOP-1234 ")).held_id == held.held_id


async def test_a_code_that_nobody_saw_goes_back_into_the_pool(
    house: House, pool: Benefit, member_id: uuid.UUID
) -> None:
    await house.fill_pool(pool, ["ONLY-1"])
    held = await house.grant(member_id, pool)
    await house.call(benefits.reverse, member_id, held.held_id, NOW)
    assert await _verify(house, pool) == PoolReport(1, 0, 1, ())
    again = await house.grant(member_id, pool)
    seen = await house.call(benefits.show, member_id, again.held_id, NOW)
    assert seen.code == "ONLY-1"
    assert (await house.call(benefits.reverse, member_id, again.held_id, NOW)).state is BenefitState.REVERSED
    assert await _verify(house, pool) == PoolReport(1, 1, 0, ())
    with pytest.raises(BenefitOutOfStock):
        await house.grant(member_id, pool)
    await house.verify()


async def test_an_import_that_stopped_goes_on_where_it_was(house: House, pool: Benefit) -> None:
    lines = [Line(number, code) for number, code in enumerate(_codes(10), 1)]
    async with house.database.writing() as session:
        file = await code_pools.begin(session, pool, "a.txt", bytes(32), NOW)
        await code_pools.add(session, house.vault, pool, file, lines[:6], 0, NOW)
    async with house.database.writing() as session:
        file = await code_pools.begin(session, pool, "renamed.txt", bytes(32), NOW)
        assert (file.lines, file.added, file.finished_at) == (6, 6, None)
        await code_pools.add(session, house.vault, pool, file, lines[6:], file.lines, NOW)
        await code_pools.finish(session, file, NOW)
    with pytest.raises(PoolImportOvertaken):
        async with house.database.writing() as session:
            await code_pools.add(session, house.vault, pool, file, lines[6:], 6, NOW)
    async with house.database.reading() as session:
        [stored] = await session.exec(select(PoolFile))
    assert (stored.lines, stored.added, stored.name, stored.finished_at) == (10, 10, "a.txt", NOW)
    assert await _verify(house, pool) == PoolReport(10, 0, 10, ())


async def test_two_files_with_the_same_codes_at_once_add_them_once(house: House, pool: Benefit) -> None:
    codes = _codes(50)
    chunks = await asyncio.gather(house.fill_pool(pool, codes), house.fill_pool(pool, codes[::-1]))
    assert sorted((chunk.added, len(chunk.duplicates)) for chunk in chunks) == [(0, 50), (50, 0)]
    assert await _verify(house, pool) == PoolReport(50, 0, 50, ())


async def test_other_kinds_take_no_codes_and_pools_no_other_stock(
    house: House, pool: Benefit, make_benefit: MakeBenefit
) -> None:
    coupon = await make_benefit()
    with pytest.raises(BenefitInvalid):
        await house.fill_pool(coupon, _codes(1))
    with pytest.raises(BenefitInvalid):
        async with house.database.writing() as session:
            await stock.procure(session, pool, 1, procurement_id=uuid.uuid4(), now=NOW)
    with pytest.raises(BenefitInvalid):
        async with house.database.writing() as session:
            await stock.withdraw(session, pool, 1, withdrawal_id=uuid.uuid4(), now=NOW)


async def test_a_code_may_be_handed_on_with_its_benefit(house: House, pool: Benefit, member_id: uuid.UUID) -> None:
    await house.fill_pool(pool, _codes(2))
    await house.grant(member_id, pool)
    async with house.database.writing() as session:
        await session.exec(update(MemberBenefit).values(member_id=uuid.uuid4()))
    assert await _verify(house, pool) == PoolReport(2, 1, 1, ())


@pytest.mark.parametrize("tamper", ["undealt again", "another's"])
async def test_verify_finds_a_code_that_was_tampered_with(
    house: House, pool: Benefit, member_id: uuid.UUID, tamper: str
) -> None:
    await house.fill_pool(pool, _codes(3))
    await house.grant(member_id, pool)
    changed = {"member_id": None, "held_id": None} if tamper == "undealt again" else {"held_id": uuid.uuid4()}
    async with house.database.writing() as session:
        await session.exec(update(PoolCode).where(col(PoolCode.held_id).is_not(None)).values(**changed))
    assert not (await _verify(house, pool)).sound


class TestFiles:
    def _read(self, tmp_path: Path, content: bytes, name: str = "codes.txt") -> list[tuple[int, str]]:
        path = tmp_path / name
        path.write_bytes(content)
        return [(line.number, line.text) for line in pool_files.read_lines(path)]

    def test_one_code_a_line(self, tmp_path: Path) -> None:
        assert self._read(tmp_path, b"\xef\xbb\xbfAAAA\r\n\n  BBBB \nCCCC") == [(1, "AAAA"), (3, "BBBB"), (4, "CCCC")]

    def test_the_column_of_a_csv_file(self, tmp_path: Path) -> None:
        content = b'name,Code,price\n"a, b",AAAA,1\nc,,2\nd\n'
        assert self._read(tmp_path, content, "codes.CSV") == [(2, "AAAA"), (3, ""), (4, "")]

    @pytest.mark.parametrize(
        ("name", "content"),
        [("codes.csv", b"number\n1\n"), ("codes.csv", b""), ("codes.csv", b'code\n"a'), ("codes.txt", b"\xff\xfe")],
        ids=["no column", "empty", "open quote", "not text"],
    )
    def test_what_is_no_file_of_codes_is_refused(self, tmp_path: Path, name: str, content: bytes) -> None:
        with pytest.raises(PoolFileInvalid):
            self._read(tmp_path, content, name)

    def test_the_content_names_the_file(self, tmp_path: Path) -> None:
        one, two = tmp_path / "a", tmp_path / "b"
        for path in (one, two):
            path.write_bytes(b"AAAA\n")
        assert pool_files.digest(one) == pool_files.digest(two)

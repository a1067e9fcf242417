"""Importing a CRM: balances come once, however often, in whatever order and after whatever crash a file comes."""

import asyncio
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func
from sqlmodel import select

from kit.db import Database
from kit.vault import Vault
from loyalty import consents, crm_file, crm_import, crm_landing, crm_making, ledger, members, profiles
from loyalty.consents import Consent, NewDocument
from loyalty.crm_import import CrmImportChunk, Outcome
from loyalty.crm_records import CrmRecord, Mode, Order
from loyalty.experience import ExperienceEntry
from loyalty.ledger import PointsLot, Policy, Purpose
from loyalty.members import Card, Member, MemberKey, MemberProfile
from loyalty.profiles import Birthday
from tests.loyalty.conftest import BRAND, GROUP, NOW, MakeMember

OTHER_BRAND = 11
LATER = NOW + timedelta(days=30)
HEADER = "phone,name,birthday,points,experience,joined_at"


@dataclass
class Desk:
    """Imports files as the command does."""

    database: Database
    vault: Vault
    folder: Path
    imports: int = 0

    async def bring(
        self,
        rows: Sequence[str],
        mode: Mode = Mode.OPEN,
        brand_id: int = BRAND,
        now: datetime = NOW,
        header: str = HEADER,
        rehearse: bool = False,
    ) -> Outcome:
        self.imports += 1
        path = self.folder / f"{self.imports}.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        order = Order(crm_file.look_through(path), GROUP, brand_id, mode, now + timedelta(days=365))
        self.report = io.BytesIO()
        return await crm_import.run(
            self.database, self.vault, order, self.report, lambda: now, lambda _rows: None, rehearse=rehearse
        )

    async def points(self, phone: str) -> int:
        async with self.database.reading() as session:
            member_id = await members.member_with(session, self.vault, GROUP, phone)
            return (await ledger.balances(session, member_id)).get((ledger.POINTS, Purpose.AVAILABLE), 0)

    async def everything(self) -> dict[str, int]:
        """How many rows stand in the tables that an import fills, and how many points."""
        async with self.database.reading() as session:
            counts = {
                model.__name__: (await session.exec(select(func.count()).select_from(model))).one()
                for model in (Member, Card, ledger.Entry, ledger.Account, PointsLot, CrmRecord)
            }
            report = await ledger.verify(session)
            assert report.sound, report.faults
            return counts


@pytest.fixture
def desk(database: Database, vault: Vault, tmp_path: Path) -> Desk:
    return Desk(database, vault, tmp_path)


def row(number: int, points: int = 100, experience: int = 0, joined_at: str = "2024-05-01", name: str = "") -> str:
    return f"138{number:08d},{name},,{points},{experience},{joined_at}"


async def test_a_miss_waits_for_its_owner_and_a_hit_binds_at_once(
    desk: Desk, database: Database, vault: Vault, make_member: MakeMember
) -> None:
    known = await make_member(1)
    outcome = await desk.bring(["13800138001,,,300,0,2024-05-01", "13900139000,,,200,0,"])
    assert (outcome.counts.new_members, outcome.counts.known_members, outcome.counts.points) == (1, 1, 500)
    async with database.writing() as session:
        assert (await ledger.balances(session, known))[ledger.POINTS, Purpose.AVAILABLE] == 300
        waiting = await members.member_with(session, vault, GROUP, "13900139000")
        assert (await members.get(session, waiting)).proven_at is None
        found, is_new = await members.find_or_enrol(session, vault, GROUP, "13900139000", LATER)
        assert (found.member_id, is_new) == (waiting, False)
    async with database.reading() as session:
        assert (await members.get(session, waiting)).proven_at == LATER
        assert await members.phone_of(session, vault, waiting) == "+8613900139000"
        assert [card.brand_id for card in await members.cards_of(session, waiting)] == [BRAND]
    assert await desk.points("13900139000") == 200


async def test_the_same_rows_again_change_nothing_under_any_name_and_in_any_order(desk: Desk) -> None:
    rows = [row(number, number, number) for number in range(50)]
    first = await desk.bring(rows)
    assert (first.counts.rows, first.counts.changed, first.was_finished) == (50, 50, False)
    before = await desk.everything()
    again = await desk.bring(rows)
    assert (again.resumed_rows, again.was_finished) == (50, True)
    shuffled = rows.copy()
    random.Random(1).shuffle(shuffled)
    reordered = await desk.bring(shuffled)
    assert (reordered.counts.changed, reordered.counts.points, reordered.was_finished) == (0, 0, False)
    assert await desk.everything() == before


async def test_balances_open_once_and_a_later_file_is_held_back(desk: Desk) -> None:
    await desk.bring([row(1, 100), row(2, 100)])
    outcome = await desk.bring([row(1, 150), row(2, 70), row(3, 30)], now=LATER)
    assert (outcome.counts.held_back, outcome.counts.points, outcome.counts.changed) == (1, 30, 1)
    assert [await desk.points(f"138{number:08d}") for number in (1, 2, 3)] == [100, 100, 30]


async def test_with_raise_the_difference_comes_and_never_goes(desk: Desk) -> None:
    await desk.bring([row(1, 100), row(2, 100)])
    outcome = await desk.bring([row(1, 150), row(2, 70)], Mode.RAISE, now=LATER)
    assert (outcome.counts.points, outcome.counts.changed) == (50, 1)
    assert [await desk.points(f"138{number:08d}") for number in (1, 2)] == [150, 100]
    # Files in any order, any number of times, come to the highest that any of them said.
    await desk.bring([row(1, 100), row(2, 100)], Mode.RAISE, now=LATER)
    await desk.bring([row(2, 120), row(1, 150)], Mode.RAISE, now=LATER)
    assert [await desk.points(f"138{number:08d}") for number in (1, 2)] == [150, 120]
    await desk.everything()


async def test_two_brands_bring_their_own_to_the_group_s_one_balance(desk: Desk) -> None:
    await desk.bring([row(1, 100)])
    await desk.bring([row(1, 40)], brand_id=OTHER_BRAND)
    assert await desk.points("13800000001") == 140


@pytest.mark.parametrize("chunk_rows", [3, 1000])
async def test_rows_of_one_number_bring_the_highest_also_across_chunks(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, chunk_rows: int
) -> None:
    monkeypatch.setattr(crm_import, "CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(crm_making, "ALONE_FROM_CHUNKS", 1000)
    rows = [row(number % 4, 10 * number) for number in range(20)]
    outcome = await desk.bring(rows)
    assert [await desk.points(f"138{number:08d}") for number in range(4)] == [160, 170, 180, 190]
    assert outcome.counts.points == 700
    assert (await desk.everything())["Member"] == 4


async def test_what_was_done_is_not_done_again_after_a_stop_and_all_bad_rows_are_listed(
    desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crm_import, "CHUNK_ROWS", 10)
    monkeypatch.setattr(crm_making, "ALONE_FROM_CHUNKS", 1000)
    rows = [row(number) if number % 7 else f"x{number},,,1,1," for number in range(60)]
    landing = crm_landing.land
    landed: list[int] = []

    async def stop_at_the_fourth(session, vault, order, number, *rest):  # type: ignore[no-untyped-def]
        if number == 3 and len(landed) < 4:
            raise KeyError("the power went")
        landed.append(number)
        return await landing(session, vault, order, number, *rest)

    monkeypatch.setattr(crm_landing, "land", stop_at_the_fourth)
    with pytest.raises(KeyError):
        await desk.bring(rows)
    async with database.reading() as session:
        done = set((await session.exec(select(CrmImportChunk.number))).all())
    assert 3 not in done
    assert {0, 1} <= done
    monkeypatch.setattr(crm_landing, "land", landing)
    outcome = await desk.bring(rows)
    assert outcome.resumed_rows == 10 * len(done)
    assert (outcome.counts.rows, outcome.counts.bad, outcome.counts.new_members) == (60, 9, 51)
    assert len(desk.report.getvalue().splitlines()) == 1 + 9
    assert (await desk.everything())["Card"] == 51


async def test_a_rehearsal_tells_the_same_and_leaves_nothing(desk: Desk) -> None:
    before = await desk.everything()
    rows = [row(number, number) for number in range(20)] + ["nobody,,,1,1,"]
    rehearsed = await desk.bring(rows, rehearse=True)
    assert await desk.everything() == before
    assert (await desk.bring(rows)).counts == rehearsed.counts


async def test_points_expire_as_points_of_the_day_of_the_import(desk: Desk, database: Database, vault: Vault) -> None:
    async with database.writing() as session:
        policy = Policy(lifetime_months=12, debt_max_points=0)
        await ledger.set_policy(session, GROUP, policy)
    await desk.bring([row(1, 100)])
    async with database.reading() as session:
        member_id = await members.member_with(session, vault, GROUP, "13800000001")
        [lot] = await ledger.lots_of(session, member_id, NOW)
    assert (lot.left, lot.expires_at) == (100, ledger.lot_expiry(policy, NOW))


async def test_names_birthdays_and_consents_fill_gaps_and_replace_nothing(
    desk: Desk, database: Database, vault: Vault, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    async with database.writing() as session:
        await consents.publish(
            session, GROUP, NewDocument("privacy", "v1", "隐私", "Privacy", "https://a.example"), NOW
        )
        await profiles.set_birthday(session, vault, ann, Birthday(1, 2))
    header = "phone,name,birthday,consent_privacy"
    rows = ["13800138001,安,05-01,v1", "13800138002,本,05-01,", "13800138003,楚,05-01,v1"]
    await desk.bring(rows, header=header)
    await desk.bring(["13800138001,别,06-01,v1", *rows[1:]], header=header)
    async with database.reading() as session:
        new = await members.member_with(session, vault, GROUP, "13800138003")
        told = [await profiles.profile_of(session, vault, one) for one in (ann, ben, new)]
        assert [(one.name, str(one.birthday)) for one in told] == [("安", "01-02"), ("本", "05-01"), ("楚", "05-01")]
        assert set(await profiles.born_on(session, vault, GROUP, [Birthday(5, 1)], 10)) == {ben, new}
        given = (await session.exec(select(Consent))).all()
        assert {(consent.member_id, consent.channel) for consent in given} == {(ann, "crm"), (new, "crm")}
        assert len(given) == 2


async def test_the_earlier_day_of_joining_stays(desk: Desk, database: Database, vault: Vault) -> None:
    for day in ("2024-05-01", "2023-05-01", "2025-05-01"):
        await desk.bring([row(1, joined_at=day)])
    async with database.reading() as session:
        member_id = await members.member_with(session, vault, GROUP, "13800000001")
        [card] = await members.cards_of(session, member_id)
    assert card.joined_at.date().isoformat() == "2023-04-30"  # in UTC


async def test_two_imports_of_the_same_customers_at_once_bring_each_what_is_his(desk: Desk) -> None:
    rows = [row(number, 10) for number in range(200)]
    first, second = await asyncio.gather(desk.bring(rows), desk.bring(list(reversed(rows)), brand_id=OTHER_BRAND))
    assert first.counts.new_members + second.counts.new_members == 200
    assert await desk.points("13800000007") == 20
    assert (await desk.everything())["Card"] == 400


async def test_new_and_known_members_get_the_same_rows_whichever_way_they_come(
    desk: Desk, database: Database, vault: Vault, make_member: MakeMember
) -> None:
    # All new: copied into the tables. With one that is known among them: by statements.
    async with database.writing() as session:
        document = NewDocument("privacy", "v1", "隐私", "Privacy", "https://a.example")
        await consents.publish(session, GROUP, document, NOW)
    header = f"{HEADER},tier,consent_privacy"
    await desk.bring(
        [
            "13900000001,新,05-01,7,30,2024-05-01,,v1",
            "13900000002,新来的,,0,30,,会员,",
            "+4915112345678,,05-02,1,0,2024-05-01,,v1",
        ],
        header=header,
    )
    await make_member(1)
    mixed = [
        "13900000003,新,05-01,7,30,2024-05-01,,v1",
        "13900000004,新来的,,0,30,,会员,",
        "+4915112345679,,05-02,1,0,2024-05-01,,v1",
        "13800138001,,,1,1,,,",
    ]
    await desk.bring(mixed, header=header)

    async def rows(phone: str) -> dict[str, object]:
        ids = {"member_id", "entry_id", "lot_id", "transfer_id", "card_number", "import_id", "consent_id"}
        secrets = {"phone_sealed", "key_sealed", "name_sealed", "birthday_sealed", "link", "head", "fingerprint"}
        told: dict[str, object] = {}
        async with database.reading() as session:
            member_id = await members.member_with(session, vault, GROUP, phone)
            for table in (Member, MemberKey, MemberProfile, Card, CrmRecord, ExperienceEntry, PointsLot, Consent):
                found = await session.exec(select(table).where(table.member_id == member_id))
                told[table.__name__] = [row.model_dump(exclude=ids | secrets) for row in found]
            profile = await profiles.profile_of(session, vault, member_id)
            told["opened"] = (await members.phone_of(session, vault, member_id))[:9], profile.name, profile.birthday
        return told

    assert await rows("13900000001") == await rows("13900000003")
    assert await rows("13900000002") == await rows("13900000004")
    assert await rows("+4915112345678") == await rows("+4915112345679")
    await desk.everything()


async def test_old_customers_and_new_ones_may_come_in_turns(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm_import, "CHUNK_ROWS", 5)
    monkeypatch.setattr(crm_making, "ALONE_FROM_CHUNKS", 1000)
    await desk.bring([row(number, 10) for number in range(10)])
    in_turns = [*range(10, 40), *range(10), *range(40, 50), *range(3), 50]
    outcome = await desk.bring([row(number, 30) for number in in_turns])
    counts = outcome.counts
    assert (counts.new_members, counts.known_members, counts.points) == (41, 13, 41 * 30)
    assert (counts.changed, counts.held_back) == (41, 13)
    assert (await desk.everything())["Member"] == 51
    assert [await desk.points(f"138{number:08d}") for number in (0, 10, 49, 50)] == [10, 30, 30, 30]


async def test_what_was_made_too_long_ago_is_made_anew(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm_landing, "MADE_AGE_MAX", timedelta(microseconds=-1))
    outcome = await desk.bring([row(number, 10, 1) for number in range(5)])
    assert (outcome.counts.new_members, outcome.counts.points, outcome.counts.experience) == (5, 50, 5)
    assert (await desk.everything())["Card"] == 5


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_big_file_is_made_by_another_process(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm_import, "CHUNK_ROWS", 5)
    with pytest.raises(crm_file.CrmFileInvalid, match="line 32"):
        await desk.bring([*(row(number, 10) for number in range(30)), '"138'])
    assert await desk.points("13800000007") == 10

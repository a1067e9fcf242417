"""The chain's forms: pinned, and the same in Python and in either database."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import BigInteger, LargeBinary, Uuid, func, literal, select

from kit.db import Database, Moment
from loyalty.ledger import chain, entries, reading
from loyalty.ledger.accounts import BALANCE_MAX
from loyalty.ledger.entries import AMOUNT_MAX
from tests.loyalty.ledger.model import NOW

HOLDER = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
TRANSFER = uuid.UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
AT = NOW + timedelta(microseconds=123456)
FINGERPRINT = bytes(range(32))
TERMS = (AT + timedelta(days=30), HOLDER, AT + timedelta(days=1))

# Made by hashlib and struct from the documented forms. Stored in every ledger, and kept by auditors: they never change.
GENESIS = bytes.fromhex("732dd98b5389955d4c50139ddea26d6cca4198d956484dbd31f85637e3a420c8")
LINK = bytes.fromhex("f295a361e0f2d03c508cacbae290bbd2d40b2bee9896ea6d6c17119076910e8d")
SEAL = bytes.fromhex("40855fd95ac948edf681f2b3ab52e0590ffc1ae6625dd2b9681168f8ab8fad96")
SEAL_OF_TERMS = bytes.fromhex("dc06acd03beb942639089439a2deba495214267c751b77d6c25f08847eb15e95")


def test_the_forms_are_those_of_the_documentation() -> None:
    assert chain.genesis(HOLDER, "points", "available") == GENESIS
    assert chain.link(GENESIS, TRANSFER, -5, -7, 2, AT) == LINK
    assert chain.seal(TRANSFER, FINGERPRINT, "积分 gift", AT) == SEAL
    assert chain.seal(TRANSFER, FINGERPRINT, "积分 gift", AT, *TERMS) == SEAL_OF_TERMS


def test_no_two_accounts_begin_alike() -> None:
    names = [
        ("points", "available"),
        ("points", "held"),
        ("mb", "available"),
        ("points\0a", "vailable"),
        ("p", "oints"),
    ]
    assert len({chain.genesis(holder, *name) for name in names for holder in (HOLDER, TRANSFER)}) == 10


def test_every_part_of_an_entry_makes_its_link() -> None:
    other = [
        chain.link(bytes(32), TRANSFER, -5, -7, 2, AT),
        chain.link(GENESIS, HOLDER, -5, -7, 2, AT),
        chain.link(GENESIS, TRANSFER, 5, -7, 2, AT),
        chain.link(GENESIS, TRANSFER, -5, 7, 2, AT),
        chain.link(GENESIS, TRANSFER, -5, -7, 3, AT),
        chain.link(GENESIS, TRANSFER, -5, -7, 2, AT + timedelta(microseconds=1)),
    ]
    assert len({LINK, *other}) == 7


@pytest.mark.parametrize(
    ("amount", "balance_after", "seq", "at"),
    [
        (-5, -7, 2, AT),
        (AMOUNT_MAX, BALANCE_MAX, 2**62, datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (-AMOUNT_MAX, -BALANCE_MAX, 1, datetime(1970, 1, 1, tzinfo=UTC)),
        (1, 0, 1, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (1, 1, 1, datetime.fromisoformat("2026-05-01T16:00:00.000001+08:00")),
    ],
    ids=["usual", "most", "least", "before 1970", "another zone"],
)
async def test_the_databases_compute_the_same_link(
    database: Database, amount: int, balance_after: int, seq: int, at: datetime
) -> None:
    computed = func.ledger_link(
        literal(GENESIS, LargeBinary),
        literal(TRANSFER, Uuid),
        literal(amount, BigInteger),
        literal(balance_after, BigInteger),
        literal(seq, BigInteger),
        literal(at, Moment),
    )
    async with database.reading() as session:
        found = (await (await session.connection()).execute(select(computed))).scalar_one()
    assert found == chain.link(GENESIS, TRANSFER, amount, balance_after, seq, at)


@pytest.mark.parametrize("reason", ["积分 gift", "a", "\\x00", "r" * 80])
@pytest.mark.parametrize("terms", [(None, None, None), TERMS], ids=["no terms", "terms"])
async def test_the_databases_give_what_seals_cover(
    database: Database, reason: str, terms: tuple[datetime | None, uuid.UUID | None, datetime | None]
) -> None:
    async with database.writing() as session:
        await entries.claim(await session.connection(), TRANSFER, FINGERPRINT, reason, AT, *terms)
    async with database.reading() as session:
        found = [record async for page in reading.records(session, in_order=True) for record in page]
    covered = chain.record(TRANSFER, FINGERPRINT, reason, AT, *terms)
    assert found == [(covered, chain.seal(TRANSFER, FINGERPRINT, reason, AT, *terms))]


def test_every_part_of_a_record_makes_its_seal() -> None:
    later = timedelta(microseconds=1)
    expiry, undoes, until = TERMS
    other = [
        chain.seal(HOLDER, FINGERPRINT, "gift", AT, *TERMS),
        chain.seal(TRANSFER, bytes(32), "gift", AT, *TERMS),
        chain.seal(TRANSFER, FINGERPRINT, "gifts", AT, *TERMS),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT + later, *TERMS),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, expiry + later, undoes, until),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, None, undoes, until),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, expiry, None, until),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, expiry, TRANSFER, until),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, expiry, undoes, until + later),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, until, undoes, expiry),
        chain.seal(TRANSFER, FINGERPRINT, "gift", AT, expiry, undoes, None),
    ]
    assert len({chain.seal(TRANSFER, FINGERPRINT, "gift", AT, *TERMS), *other}) == 12

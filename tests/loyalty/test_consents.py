"""Consents: facts that are added, about versions that are in force."""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlmodel import select

from kit.db import Database
from loyalty import consents
from loyalty.consents import (
    KIND_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
    VERSION_CHARACTERS_MAX,
    Agreement,
    Channel,
    Consent,
    ConsentDocumentExists,
    ConsentDocumentInvalid,
    ConsentDocumentUnknown,
    ConsentOutdated,
    NewDocument,
)
from tests.loyalty.conftest import GROUP, NOW, MakeMember

LATER = NOW + timedelta(days=1)
URL = "https://brand.example/privacy"


async def publish(database: Database, *versions: str, kind: str = "privacy") -> None:
    for number, version in enumerate(versions):
        async with database.writing() as session:
            new = NewDocument(kind, version, "隐私政策", "Privacy policy", URL)
            await consents.publish(session, GROUP, new, NOW + timedelta(hours=number))


async def say(
    database: Database, member_id: uuid.UUID, version: str, given: bool = True, kind: str = "privacy"
) -> Sequence[Consent]:
    async with database.writing() as session:
        agreement = Agreement(kind, version, given)
        return await consents.record(session, member_id, GROUP, [agreement], Channel.API, LATER)


async def facts(database: Database) -> list[tuple[int, str, bool]]:
    async with database.reading() as session:
        said = await session.exec(select(Consent))
        return sorted((consent.number, consent.version, consent.is_given) for consent in said)


async def test_giving_withdrawing_and_giving_again_are_three_facts(database: Database, make_member: MakeMember) -> None:
    await publish(database, "v1")
    member_id = await make_member()
    for given in (True, True, False, False, True):
        [last] = await say(database, member_id, "v1", given)
        assert (last.is_given, last.at, last.channel) == (given, LATER, "api")
    assert await facts(database) == [(1, "v1", True), (2, "v1", False), (3, "v1", True)]


async def test_only_the_version_in_force_is_agreed_to_and_an_old_one_can_be_withdrawn(
    database: Database, make_member: MakeMember
) -> None:
    await publish(database, "v1", "v2")
    member_id = await make_member()
    with pytest.raises(ConsentOutdated, match="v2"):
        await say(database, member_id, "v1")
    with pytest.raises(ConsentDocumentUnknown):
        await say(database, member_id, "v3")
    await say(database, member_id, "v1", given=False)
    await say(database, member_id, "v2")
    async with database.reading() as session:
        assert [(one.kind, one.version) for one in await consents.in_force(session, GROUP)] == [("privacy", "v2")]
        assert await consents.in_force(session, GROUP + 1) == []


async def test_the_same_word_ten_times_at_once_is_one_fact(database: Database, make_member: MakeMember) -> None:
    await publish(database, "v1")
    member_id = await make_member()
    await asyncio.gather(*(say(database, member_id, "v1") for _ in range(10)))
    assert await facts(database) == [(1, "v1", True)]


async def test_a_version_is_published_once_with_the_same_words(database: Database) -> None:
    await publish(database, "v1", "v1")
    with pytest.raises(ConsentDocumentExists):
        async with database.writing() as session:
            await consents.publish(session, GROUP, NewDocument("privacy", "v1", "别的", "Privacy policy", URL), NOW)


@pytest.mark.parametrize(
    ("new", "good"),
    [
        (
            NewDocument("k" * KIND_CHARACTERS_MAX, "v" * VERSION_CHARACTERS_MAX, "t" * TITLE_CHARACTERS_MAX, "t", URL),
            True,
        ),
        (NewDocument("k" * (KIND_CHARACTERS_MAX + 1), "v", "t", "t", URL), False),
        (NewDocument("", "v", "t", "t", URL), False),
        (NewDocument("Privacy", "v", "t", "t", URL), False),
        (NewDocument("k", "v" * (VERSION_CHARACTERS_MAX + 1), "t", "t", URL), False),
        (NewDocument("k", "v", "t" * (TITLE_CHARACTERS_MAX + 1), "t", URL), False),
        (NewDocument("k", "v", "t", " ", URL), False),
        (NewDocument("k", "v", "t", "t", "javascript:alert(1)"), False),
        (NewDocument("k", "v", "t", "t", "https://a.example/" + "x" * 500), False),
    ],
    ids=range(9),
)
async def test_a_document_is_described_within_limits(database: Database, new: NewDocument, good: bool) -> None:
    async with database.writing() as session:
        if good:
            await consents.publish(session, GROUP, new, NOW)
        else:
            with pytest.raises(ConsentDocumentInvalid):
                await consents.publish(session, GROUP, new, NOW)

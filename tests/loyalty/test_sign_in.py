"""Signing in: few tries, few messages, and nothing that tells who is a member."""

import asyncio
import base64
import uuid
from collections import Counter
from datetime import datetime, timedelta

import pytest
from sqlmodel import select

from kit.db import Database
from kit.vault import Vault
from loyalty import sign_in
from loyalty.sign_in import (
    CODE_LIFETIME,
    CODE_PAUSE,
    CODE_TRIES_MAX,
    CODE_WINDOW,
    CODES_PER_WINDOW_MAX,
    FRESH_MAX,
    SESSION_LIFETIME,
    CodeCheck,
    CodePurpose,
    IssuedCode,
    MemberSession,
    OneTimeCode,
    OneTimeCodeExpired,
    OneTimeCodeTooSoon,
    OneTimeCodeTriesExhausted,
    OneTimeCodeWrong,
    Outcome,
)
from tests.loyalty.conftest import GROUP, NOW, MakeMember

PHONE = "13800138000"
A_MOMENT = timedelta(microseconds=1)


class Desk:
    """Asks for codes and tries them, each in a transaction of its own, as requests do."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def issue(
        self,
        now: datetime = NOW,
        phone: str = PHONE,
        group_id: int = GROUP,
        purpose: CodePurpose = CodePurpose.SIGN_IN,
    ) -> IssuedCode:
        async with self._database.writing() as session:
            return await sign_in.issue_code(session, self._vault, group_id, phone, purpose, now)

    async def check(
        self,
        code: str,
        now: datetime = NOW,
        phone: str = PHONE,
        group_id: int = GROUP,
        purpose: CodePurpose = CodePurpose.SIGN_IN,
    ) -> CodeCheck:
        async with self._database.writing() as session:
            return await sign_in.check_code(session, self._vault, group_id, phone, code, purpose, now=now)


@pytest.fixture
def desk(database: Database, vault: Vault) -> Desk:
    return Desk(database, vault)


def wrong(issued: IssuedCode) -> str:
    return f"{(int(issued.code) + 1) % 1_000_000:06}"


async def test_the_code_that_was_sent_is_accepted_once(desk: Desk) -> None:
    issued = await desk.issue()
    assert issued.phone_e164 == "+8613800138000"
    assert len(issued.code) == 6
    assert issued.code.isdigit()
    assert (await desk.check(issued.code)).outcome is Outcome.ACCEPTED
    assert (await desk.check(issued.code)).outcome is Outcome.EXPIRED


@pytest.mark.parametrize("purpose", CodePurpose, ids=str)
async def test_a_code_works_only_for_what_it_was_sent_for(desk: Desk, purpose: CodePurpose) -> None:
    issued = await desk.issue(purpose=purpose)
    others = [other for other in CodePurpose if other is not purpose]
    refused = [await desk.check(issued.code, purpose=other) for other in others]
    assert refused == [CodeCheck(Outcome.WRONG, left) for left in (4, 3, 2)]  # each costs a try, as a guess does
    assert (await desk.check(issued.code, purpose=purpose)).outcome is Outcome.ACCEPTED


async def test_a_code_typed_with_blanks_or_full_width_digits_is_accepted(desk: Desk) -> None:
    issued = await desk.issue()
    wide = "".join(chr(ord(digit) - ord("0") + ord("０")) for digit in issued.code)
    assert (await desk.check(f" {wide[:3]} {wide[3:]} ")).outcome is Outcome.ACCEPTED


async def test_a_code_lives_until_just_before_five_minutes(desk: Desk) -> None:
    issued = await desk.issue()
    assert issued.expires_at == NOW + CODE_LIFETIME
    assert (await desk.check(wrong(issued), NOW + CODE_LIFETIME - A_MOMENT)).outcome is Outcome.WRONG
    assert (await desk.check(issued.code, NOW + CODE_LIFETIME)).outcome is Outcome.EXPIRED
    assert (await desk.check(issued.code, NOW + CODE_LIFETIME - A_MOMENT)).outcome is Outcome.ACCEPTED


async def test_the_fifth_try_counts_and_the_sixth_is_too_late(desk: Desk) -> None:
    issued = await desk.issue()
    tries = [await desk.check(wrong(issued)) for _ in range(CODE_TRIES_MAX)]
    assert [check.tries_left for check in tries] == [4, 3, 2, 1, 0]
    assert [check.outcome for check in tries] == [Outcome.WRONG] * 4 + [Outcome.TRIES_EXHAUSTED]
    assert (await desk.check(issued.code)).outcome is Outcome.TRIES_EXHAUSTED


async def test_the_right_code_at_the_fifth_try_is_accepted(desk: Desk) -> None:
    issued = await desk.issue()
    for _ in range(CODE_TRIES_MAX - 1):
        await desk.check(wrong(issued))
    assert (await desk.check(issued.code)).outcome is Outcome.ACCEPTED


async def test_fifty_wrong_guesses_at_once_get_five_tries(desk: Desk, database: Database) -> None:
    issued = await desk.issue()
    checks = await asyncio.gather(*(desk.check(wrong(issued)) for _ in range(50)))
    assert Counter(check.outcome for check in checks) == {Outcome.WRONG: 4, Outcome.TRIES_EXHAUSTED: 46}
    async with database.reading() as session:
        assert (await session.exec(select(OneTimeCode.tries))).one() == CODE_TRIES_MAX


async def test_the_right_code_twenty_times_at_once_is_accepted_once(desk: Desk) -> None:
    issued = await desk.issue()
    checks = await asyncio.gather(*(desk.check(issued.code) for _ in range(20)))
    assert Counter(check.outcome for check in checks) == {Outcome.ACCEPTED: 1, Outcome.EXPIRED: 19}


async def test_a_new_code_voids_the_one_before(desk: Desk) -> None:
    first = await desk.issue()
    second = await desk.issue(NOW + CODE_PAUSE)
    if first.code != second.code:
        assert (await desk.check(first.code, NOW + CODE_PAUSE)).outcome is Outcome.WRONG
    assert (await desk.check(second.code, NOW + CODE_PAUSE)).outcome is Outcome.ACCEPTED


async def test_a_new_code_has_all_its_tries(desk: Desk) -> None:
    first = await desk.issue()
    for _ in range(CODE_TRIES_MAX):
        await desk.check(wrong(first))
    second = await desk.issue(NOW + CODE_PAUSE)
    assert (await desk.check(wrong(second), NOW + CODE_PAUSE)).tries_left == CODE_TRIES_MAX - 1


async def test_a_second_code_has_to_wait_sixty_seconds(desk: Desk) -> None:
    await desk.issue()
    with pytest.raises(OneTimeCodeTooSoon) as refusal:
        await desk.issue(NOW + CODE_PAUSE - A_MOMENT)
    assert refusal.value.retry_after_s == 1
    with pytest.raises(OneTimeCodeTooSoon) as refusal:
        await desk.issue(NOW)
    assert refusal.value.retry_after_s == 60
    await desk.issue(NOW + CODE_PAUSE)


async def test_a_sixth_code_has_to_wait_until_the_first_is_an_hour_old(desk: Desk) -> None:
    for number in range(CODES_PER_WINDOW_MAX):
        await desk.issue(NOW + number * timedelta(minutes=10))
    with pytest.raises(OneTimeCodeTooSoon) as refusal:
        await desk.issue(NOW + timedelta(minutes=50))
    assert refusal.value.retry_after_s == 600
    with pytest.raises(OneTimeCodeTooSoon):
        await desk.issue(NOW + CODE_WINDOW - A_MOMENT)
    await desk.issue(NOW + CODE_WINDOW)
    with pytest.raises(OneTimeCodeTooSoon):
        await desk.issue(NOW + CODE_WINDOW + CODE_PAUSE)


async def test_twenty_requests_at_once_send_one_code(desk: Desk) -> None:
    results = await asyncio.gather(*(desk.issue() for _ in range(20)), return_exceptions=True)
    assert Counter(type(result).__name__ for result in results) == {"IssuedCode": 1, "OneTimeCodeTooSoon": 19}


async def test_numbers_and_groups_do_not_share_codes_or_pauses(desk: Desk) -> None:
    issued = await desk.issue()
    await desk.issue(phone="13800138001")
    await desk.issue(group_id=GROUP + 1)
    assert (await desk.check(wrong(issued), phone="13800138001")).tries_left == 4
    assert (await desk.check(issued.code)).outcome is Outcome.ACCEPTED


async def test_known_and_unknown_numbers_get_the_same_answers(desk: Desk, make_member: MakeMember) -> None:
    await make_member(0)
    answers = []
    for phone in (PHONE, "13900139000"):
        before = await desk.check("123456", phone=phone)
        issued = await desk.issue(phone=phone)
        answers.append((before, issued.expires_at, await desk.check(wrong(issued), phone=phone)))
    assert answers[0] == answers[1]


async def test_codes_and_numbers_are_not_stored_in_the_clear(desk: Desk, database: Database) -> None:
    issued = await desk.issue()
    async with database.reading() as session:
        stored = (await session.exec(select(OneTimeCode))).one()
    assert stored.code_hash is not None
    assert issued.code.encode() not in stored.code_hash
    assert PHONE.encode() not in stored.phone_fingerprint


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome.WRONG, OneTimeCodeWrong),
        (Outcome.EXPIRED, OneTimeCodeExpired),
        (Outcome.TRIES_EXHAUSTED, OneTimeCodeTriesExhausted),
    ],
)
def test_a_refusal_is_raised_when_the_caller_asks(outcome: Outcome, error: type[Exception]) -> None:
    with pytest.raises(error):
        CodeCheck(outcome, 3).raise_if_refused()


def test_an_accepted_code_raises_nothing_and_a_wrong_one_tells_what_is_left() -> None:
    CodeCheck(Outcome.ACCEPTED, 0).raise_if_refused()
    with pytest.raises(OneTimeCodeWrong, match="3"):
        CodeCheck(Outcome.WRONG, 3).raise_if_refused()


async def test_a_member_stays_signed_in_for_thirty_days(database: Database, make_member: MakeMember) -> None:
    member_id = await make_member()
    async with database.writing() as session:
        token = await sign_in.open_session(session, member_id, NOW)
    async with database.reading() as session:
        assert await sign_in.member_of(session, token, NOW + SESSION_LIFETIME - A_MOMENT) == member_id
        assert await sign_in.member_of(session, token, NOW + SESSION_LIFETIME) is None


async def test_signing_out_ends_one_session_and_not_the_other(database: Database, make_member: MakeMember) -> None:
    member_id = await make_member()
    async with database.writing() as session:
        phone, tablet = [await sign_in.open_session(session, member_id, NOW) for _ in range(2)]
        await sign_in.close_session(session, phone)
        await sign_in.close_session(session, phone)
    async with database.reading() as session:
        assert await sign_in.member_of(session, phone, NOW) is None
        assert await sign_in.member_of(session, tablet, NOW) == member_id


async def test_a_token_is_stored_as_a_hash_and_works_only_whole(database: Database, make_member: MakeMember) -> None:
    ann, ben = await make_member(1), await make_member(2)
    async with database.writing() as session:
        token = await sign_in.open_session(session, ann, NOW)
    raw = base64.urlsafe_b64decode(token)
    forged = base64.urlsafe_b64encode(ben.bytes + raw[16:]).decode()
    async with database.reading() as session:
        stored = (await session.exec(select(MemberSession))).one()
        assert raw[16:] not in stored.token_hash
        for bad in (
            "",
            "x",
            token[:-4],
            token + "AAAA",
            token.swapcase(),
            forged,
            "名" * 64,
            token.replace(token[3], "*"),
        ):
            assert await sign_in.member_of(session, bad, NOW) is None


async def test_a_session_of_nobody_is_none(database: Database) -> None:
    async with database.writing() as session:
        token = await sign_in.open_session(session, uuid.uuid4(), NOW)
        assert await sign_in.member_of(session, token, NOW) is None


async def test_sweeping_deletes_what_has_ended_and_nothing_else(
    desk: Desk, database: Database, make_member: MakeMember
) -> None:
    member_id = await make_member()
    await desk.issue(NOW)
    await desk.issue(NOW + timedelta(minutes=30), phone="13800138001")
    async with database.writing() as session:
        await sign_in.open_session(session, member_id, NOW - SESSION_LIFETIME)
        kept = await sign_in.open_session(session, member_id, NOW)
        await sign_in.sweep(session, NOW + CODE_LIFETIME + CODE_WINDOW)
    async with database.reading() as session:
        assert len((await session.exec(select(OneTimeCode))).all()) == 1
        assert len((await session.exec(select(MemberSession))).all()) == 1
        assert await sign_in.member_of(session, kept, NOW) == member_id


async def test_a_session_is_fresh_for_ten_minutes(database: Database, make_member: MakeMember) -> None:
    member_id = await make_member()
    async with database.writing() as session:
        token = await sign_in.open_session(session, member_id, NOW)
        assert await sign_in.member_freshly_of(session, token, NOW + FRESH_MAX - A_MOMENT) == member_id
        assert await sign_in.member_freshly_of(session, token, NOW + FRESH_MAX) is None
        assert await sign_in.member_of(session, token, NOW + FRESH_MAX) == member_id


async def test_sessions_of_members_named_are_closed_and_others_stay(
    database: Database, make_member: MakeMember
) -> None:
    ann, ben = await make_member(1), await make_member(2)
    async with database.writing() as session:
        tokens = [await sign_in.open_session(session, one, NOW) for one in (ann, ann, ben)]
        assert await sign_in.close_sessions(session, [ann]) == 2
        assert [await sign_in.member_of(session, token, NOW) for token in tokens] == [None, None, ben]

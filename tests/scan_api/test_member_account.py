"""The member's own account over real HTTP: consents, birthday, export, erasure, and one person with two numbers."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from kit.db import Session
from loyalty import consents, ledger
from loyalty.consents import NewDocument
from loyalty.ledger import AccountId, Leg, Purpose, Transfer
from loyalty.members import Member
from loyalty.sign_in import FRESH_MAX, SESSION_LIFETIME, MemberSession, OneTimeCode
from tests.stand import BRAND, SignedIn, Stand

KINDS = iter(range(10_000))


def _error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def _code(stand: Stand, phone: str, purpose: str = "sign_in", by: SignedIn | None = None) -> str:
    asked = {"phone": phone, "purpose": purpose}
    answer = stand.http.post("/v1/sign-in/codes", json=asked, headers=by.headers if by else None)
    code: str = answer.json()["development_code"]
    return code


def _grow_old(stand: Stand, member: SignedIn, age: timedelta = FRESH_MAX) -> None:
    expires_at = datetime.now(UTC) - age + SESSION_LIFETIME
    stand.execute(
        update(MemberSession).where(MemberSession.member_id == member.member_id).values(expires_at=expires_at)
    )


def _publish(stand: Stand, *versions: str) -> str:
    """A kind of document that no other test has."""
    kind, member = f"kind-{next(KINDS)}", stand.member()

    async def publish(session: Session) -> None:
        group_id = (await session.get_one(Member, member.member_id)).group_id
        for number, version in enumerate(versions):
            new = NewDocument(kind, version, "隐私政策", "Privacy policy", "https://brand.example/p")
            await consents.publish(session, group_id, new, datetime.now(UTC) - timedelta(minutes=9 - number))

    stand.run(publish)
    return kind


def _give(stand: Stand, member_id: uuid.UUID, points: int) -> None:
    async def give(session: Session) -> None:
        legs = (
            Leg(ledger.issuance(1, ledger.POINTS, member_id), -points),
            Leg(AccountId(member_id, ledger.POINTS, Purpose.AVAILABLE), points),
        )
        await ledger.post(session, Transfer(uuid.uuid4(), "gift", legs), datetime.now(UTC))

    stand.run(give)


def _merge(stand: Stand, member: SignedIn, key: str = "", **body: Any) -> httpx2.Response:
    headers = {**member.headers, "Idempotency-Key": key or str(uuid.uuid4())}
    return stand.http.post("/v1/me/merge", json=body, headers=headers)


def _say(stand: Stand, member: SignedIn, kind: str, version: str, given: bool = True) -> httpx2.Response:
    body = {"kind": kind, "version": version, "given": given}
    return stand.http.post("/v1/me/consents", json=body, headers=member.headers)


def test_consents_are_listed_given_and_withdrawn(stand: Stand) -> None:
    kind, member = _publish(stand, "v1", "v2"), stand.member()
    shown = stand.http.get("/v1/consent-documents", params={"brand": BRAND}, headers={"Accept-Language": "en"}).json()
    [document] = [one for one in shown if one["kind"] == kind]
    assert (document["version"], document["title"]) == ("v2", "Privacy policy")
    given = _say(stand, member, kind, "v2").json()
    assert (given["version"], given["given"], given["channel"]) == ("v2", True, "api")
    assert _say(stand, member, kind, "v2", given=False).json()["given"] is False
    mine = stand.http.get("/v1/me/consents", headers=member.headers).json()
    assert [(one["kind"], one["given"]) for one in mine["given"]] == [(kind, False)]
    assert _error(_say(stand, member, kind, "v1")) == (409, "ConsentOutdated")
    assert _error(_say(stand, member, kind, "v3")) == (404, "ConsentDocumentUnknown")


def test_signing_in_can_carry_what_is_agreed_to(stand: Stand) -> None:
    kind, phone = _publish(stand, "v1"), stand.new_phone()
    body = {"phone": phone, "one_time_code": _code(stand, phone), "consents": [{"kind": kind, "version": "v0"}]}
    assert _error(stand.http.post("/v1/sign-in", json=body)) == (404, "ConsentDocumentUnknown")
    body["consents"] = [{"kind": kind, "version": "v1"}]
    token = stand.http.post("/v1/sign-in", json=body).json()["token"]  # a refusal before has not used the code up
    mine = stand.http.get("/v1/me/consents", headers={"Authorization": f"Bearer {token}"}).json()
    assert [(one["kind"], one["version"], one["given"]) for one in mine["given"]] == [(kind, "v1", True)]


def test_a_birthday_is_set_once(stand: Stand) -> None:
    member = stand.member()

    def put(month: int, day: int) -> httpx2.Response:
        return stand.http.put("/v1/me/birthday", json={"month": month, "day": day}, headers=member.headers)

    assert _error(put(2, 30)) == (400, "BirthdayInvalid")
    assert _error(put(13, 1)) == (400, "RequestInvalid")
    assert put(2, 29).status_code == put(2, 29).status_code == 204
    assert _error(put(3, 1)) == (409, "BirthdayAlreadySet")


def test_an_export_is_one_document_of_everything(stand: Stand) -> None:
    member = stand.member()
    _give(stand, member.member_id, 7)
    answer = stand.http.get("/v1/me/export", headers=member.headers)
    assert answer.headers["content-type"] == "application/json"
    held = json.loads(answer.text)
    assert held["member"][0]["phone"] == member.phone
    assert [row["amount"] for row in held["ledger_entry"]] == [7]
    assert member.token not in answer.text
    assert _error(stand.http.get("/v1/me/export")) == (401, "SignInNeeded")


def test_a_fresh_sign_in_erases_and_the_books_stay(stand: Stand) -> None:
    member = stand.member()
    _give(stand, member.member_id, 7)
    assert stand.http.delete("/v1/me", headers=member.headers).status_code == 204
    assert _error(stand.http.get("/v1/me", headers=member.headers)) == (401, "SignInNeeded")
    assert stand.books().sound
    [left] = stand.rows(Member.__table__.select().where(Member.member_id == member.member_id))  # type: ignore[attr-defined]
    assert left is not None


def test_an_older_sign_in_needs_a_code_to_erase(stand: Stand) -> None:
    member = stand.member()
    _grow_old(stand, member)
    assert _error(stand.http.delete("/v1/me", headers=member.headers)) == (401, "FreshSignInNeeded")

    def erase(code: str) -> httpx2.Response:
        return stand.http.request("DELETE", "/v1/me", json={"one_time_code": code}, headers=member.headers)

    code = _code(stand, member.phone, "erase", member)
    assert _error(erase(f"{(int(code) + 1) % 10**6:06d}")) == (400, "OneTimeCodeWrong")
    assert erase(code).status_code == 204
    assert _error(stand.http.get("/v1/me", headers=member.headers)) == (401, "SignInNeeded")


def test_two_phones_become_one_member_and_two_again(stand: Stand) -> None:
    new, old = stand.members(2)
    _give(stand, old.member_id, 40)
    made = _merge(stand, new, phone=old.phone, phone_code=_code(stand, old.phone, "merge", new))
    assert made.status_code == 201, made.text
    assert [(one["asset"], one["amount"]) for one in made.json()["moved"]] == [("points", 40)]
    assert stand.http.get("/v1/me", headers=new.headers).json()["points"] == 40
    assert _error(stand.http.get("/v1/me", headers=old.headers)) == (401, "SignInNeeded")
    stand.execute(update(OneTimeCode).values(sent_at=[]))
    body = {"phone": old.phone, "one_time_code": _code(stand, old.phone)}
    assert stand.http.post("/v1/sign-in", json=body).json()["member_id"] == str(new.member_id)
    [past] = stand.http.get("/v1/me/merges", headers=new.headers).json()["data"]
    parted = stand.http.post(
        "/v1/me/unmerge",
        json={"merge_id": past["merge_id"]},
        headers={**new.headers, "Idempotency-Key": str(uuid.uuid4())},
    )
    assert [one["amount"] for one in parted.json()["moved"]] == [40]
    assert stand.http.get("/v1/me", headers=new.headers).json()["points"] == 0
    assert stand.books().sound


def test_a_merge_sent_twice_is_one_merge(stand: Stand) -> None:
    new, old = stand.members(2)
    _give(stand, old.member_id, 40)
    key, code = str(uuid.uuid4()), _code(stand, old.phone, "merge", new)
    first = _merge(stand, new, key, phone=old.phone, phone_code=code)
    again = _merge(stand, new, key, phone=old.phone, phone_code=code)
    assert first.json() == again.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    other = _merge(stand, new, key, phone=stand.new_phone(), phone_code=code)
    assert _error(other) == (409, "IdempotencyKeyReused")


def test_a_merge_needs_both_phones_proven(stand: Stand) -> None:
    new, old = stand.members(2)
    code = _code(stand, old.phone, "merge", new)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert _error(_merge(stand, new, phone=old.phone, phone_code=wrong)) == (400, "OneTimeCodeWrong")
    _grow_old(stand, new)
    assert _error(_merge(stand, new, phone=old.phone, phone_code=code)) == (401, "FreshSignInNeeded")
    own = _code(stand, new.phone, "merge", new)
    made = _merge(stand, new, phone=old.phone, phone_code=code, one_time_code=own)
    assert made.status_code == 201
    nobody = stand.new_phone()
    _grow_old(stand, new, timedelta())
    assert _error(_merge(stand, new, phone=nobody, phone_code=_code(stand, nobody, "merge", new))) == (
        404,
        "MemberUnknown",
    )


def test_a_code_for_signing_in_proves_nothing_else_and_the_other_way_round(stand: Stand) -> None:
    member, other = stand.members(2)
    _grow_old(stand, member)
    for_sign_in = {"one_time_code": _code(stand, member.phone)}
    erasing = stand.http.request("DELETE", "/v1/me", json=for_sign_in, headers=member.headers)
    assert _error(erasing) == (400, "OneTimeCodeWrong")
    _grow_old(stand, member, timedelta())
    phone_code = _code(stand, other.phone)
    assert _error(_merge(stand, member, phone=other.phone, phone_code=phone_code)) == (400, "OneTimeCodeWrong")
    stand.execute(update(OneTimeCode).values(sent_at=[]))
    for_merge = {"phone": other.phone, "one_time_code": _code(stand, other.phone, "merge", member)}
    assert _error(stand.http.post("/v1/sign-in", json=for_merge)) == (400, "OneTimeCodeWrong")


@pytest.mark.parametrize("purpose", ["merge", "unmerge", "erase"])
def test_only_a_member_asks_for_codes_of_members(stand: Stand, purpose: str) -> None:
    asked = {"phone": stand.new_phone(), "purpose": purpose}
    assert _error(stand.http.post("/v1/sign-in/codes", json=asked)) == (401, "SignInNeeded")


@pytest.mark.parametrize("how", ["query", "header"])
def test_a_brand_is_named_by_query_or_header_and_a_member_s_session_knows_it(stand: Stand, how: str) -> None:
    def documents(brand: str) -> httpx2.Response:
        if how == "query":
            return stand.http.get("/v1/consent-documents", params={"brand": brand})
        return stand.http.get("/v1/consent-documents", headers={"Fanxing-Brand": brand})

    assert documents(BRAND).status_code == 200
    for unknown in ("no-such-brand", "%00", "x" * 100):
        assert documents(unknown).status_code in (400, 404)
    member = stand.member()
    assert stand.http.get("/v1/consent-documents", headers=member.headers).status_code == 200

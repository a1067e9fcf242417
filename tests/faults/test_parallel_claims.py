"""Claims that arrive at the same moment over real HTTP: one grant, one transfer, and books that balance."""

from collections import Counter
from uuid import UUID

import httpx2
from sqlmodel import select

from kit.idempotency import IdempotentRequest
from loyalty import ledger
from loyalty.claims import Claim
from loyalty.fulfilment import Order
from loyalty.ledger import Entry, Purpose, TransferRecord
from tests.stand import Stand

PARALLEL = 50


def _codes(answers: list[httpx2.Response]) -> Counter[str]:
    return Counter("granted" if answer.status_code == 201 else answer.json()["code"] for answer in answers)


def _claims(stand: Stand, claim_ids: set[str]) -> list[Claim]:
    return [claim for claim in stand.rows(select(Claim)) if str(claim.claim_id) in claim_ids]


def _assert_one_grant(stand: Stand, before: dict[str, int], answers: list[httpx2.Response]) -> Claim:
    """One claim in all tables, and nothing of the refused ones."""
    claim_ids = {answer.json()["claim_id"] for answer in answers if answer.status_code == 201}
    assert len(claim_ids) == 1
    [claim] = _claims(stand, claim_ids)
    after = stand.counts()
    grown = {table: after[table] - before[table] for table in after if after[table] != before[table]}
    assert grown["claim"] == 1
    assert grown["idempotent_request"] == 1
    assert grown["card"] == 1
    assert grown["ledger_transfer"] == 1 + grown.get("fulfilment_order", 0)
    report = stand.books()
    assert report.faults == ()
    assert set(stand.asset_totals().values()) == {0}
    return claim


def test_fifty_members_claim_one_inner_code_and_one_is_paid(stand: Stand) -> None:
    item, members = stand.take_item(), stand.members(PARALLEL)
    before = stand.counts()
    answers = stand.at_once([stand.claim_request(member, item.inner) for member in members])
    assert _codes(answers) == {"granted": 1, "AlreadyClaimed": PARALLEL - 1}
    claim = _assert_one_grant(stand, before, answers)
    paid = stand.rows(select(Entry).where(Entry.transfer_id == claim.claim_id, Entry.purpose == Purpose.AVAILABLE))
    assert [(entry.holder_id, entry.amount) for entry in paid] == [(claim.member_id, 100)]


def test_fifty_requests_of_one_member_with_keys_of_their_own_are_paid_once(stand: Stand) -> None:
    item, member = stand.take_item(), stand.member()
    before = stand.counts()
    answers = stand.at_once([stand.claim_request(member, item.inner) for _ in range(PARALLEL)])
    assert _codes(answers) == {"granted": 1, "AlreadyClaimed": PARALLEL - 1}
    _assert_one_grant(stand, before, answers)
    balance = ledger.Account.balance
    assert stand.rows(select(balance).where(ledger.Account.holder_id == member.member_id)) == [100]


def test_fifty_requests_with_one_key_get_one_answer(stand: Stand) -> None:
    item, member = stand.take_item(), stand.member()
    before = stand.counts()
    answers = stand.at_once([stand.claim_request(member, item.inner, key="one-key-for-all")] * PARALLEL)
    assert _codes(answers) == {"granted": PARALLEL}
    assert len({answer.content for answer in answers}) == 1
    _assert_one_grant(stand, before, answers)


def test_mobile_data_is_ordered_once_from_the_carrier(stand: Stand) -> None:
    item, members = stand.take_item(), stand.members(PARALLEL)
    before = stand.counts()
    answers = stand.at_once([stand.claim_request(member, item.inner, "data") for member in members])
    assert _codes(answers) == {"granted": 1, "AlreadyClaimed": PARALLEL - 1}
    claim = _assert_one_grant(stand, before, answers)
    order = stand.carrier.statistics()["by_order"][str(claim.claim_id)]
    assert (order["amount"], order["deliveries"]) == (5, 1)
    assert [made.state for made in stand.rows(select(Order).where(Order.order_id == claim.claim_id))] == ["completed"]


def test_a_member_with_fifty_items_gets_no_more_than_the_limit(stand: Stand) -> None:
    items, member = stand.take_items(PARALLEL), stand.member()
    before = stand.counts()
    answers = stand.at_once([stand.claim_request(member, item.outer, "coupon") for item in items])
    assert _codes(answers) == {"granted": 1, "MemberLimitReached": PARALLEL - 1}
    _assert_one_grant(stand, before, answers)


def test_a_budget_of_one_prize_pays_one_of_fifty_members(stand: Stand) -> None:
    items, members = stand.take_items(PARALLEL), stand.members(PARALLEL)
    before = stand.counts()
    requests = [stand.claim_request(member, item.inner, "scarce") for member, item in zip(members, items, strict=True)]
    answers = stand.at_once(requests)
    assert _codes(answers) == {"granted": 1, "BudgetUsedUp": PARALLEL - 1}
    _assert_one_grant(stand, before, answers)


def test_every_claim_of_many_items_at_once_is_paid(stand: Stand) -> None:
    items, members = stand.take_items(PARALLEL), stand.members(PARALLEL)
    requests = [
        stand.claim_request(member, item.inner, name)
        for member, item in zip(members, items, strict=True)
        for name in ("points", "data")
    ]
    answers = stand.at_once(requests)
    assert _codes(answers) == {"granted": 2 * PARALLEL}
    claim_ids = {UUID(answer.json()["claim_id"]) for answer in answers}
    assert len(claim_ids) == 2 * PARALLEL
    transfers = set(stand.rows(select(TransferRecord.transfer_id)))
    assert claim_ids <= transfers
    stand.wait_for_fulfilment()
    assert stand.books().faults == ()
    assert len(stand.rows(select(IdempotentRequest.key))) >= 2 * PARALLEL

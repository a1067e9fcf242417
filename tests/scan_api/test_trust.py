"""What scanners are sent: root documents, deltas or the whole bundle, as they lack them."""

from datetime import UTC, datetime
from functools import partial

import pytest

from codes import orders, ranges
from kit.db import Session
from offline_sdk import cose
from offline_sdk.bundle import SEQ_MAX
from offline_sdk.cose import DocumentType
from offline_sdk.root import read_pin
from offline_sdk.trust_store import Memory, Trust, advance
from offline_sdk.verifier import Verifier
from scan_api.withdrawals import withdrawn
from signer import keys, publication
from tests.stand import GTIN, PLACED_AT, MakeStand, Stand, publish, signer_of, wait_until
from tests.trusting import trusted

ON_ONE = pytest.mark.parametrize("stand_kind", ["sqlite"])


def fetch(stand: Stand, root: int, seq: int) -> tuple[int, bytes]:
    answer = stand.scan(f"/v1/trust?root={root}&seq={seq}")
    return answer.status_code, answer.content


def kinds(content: bytes) -> list[DocumentType]:
    return [envelope.type for envelope in cose.read(content)]


def revoke(stand: Stand, *serials: str) -> None:
    """Revoke items, each in a bundle of its own, and wait until the server has the last one."""

    async def work(session: Session) -> int:
        for serial in serials:
            await keys.revoke_item(session, GTIN, serial, "stolen", PLACED_AT)
            await publish(session, stand.home)
        return (await publication.latest(session)).seq

    seq = stand.run(work)
    wait_until(lambda: fetch(stand, SEQ_MAX, seq - 1)[0] == 200, "the new trust bundle")


async def _revoke_all(serials: list[str], session: Session) -> None:
    for serial in serials:
        await keys.revoke_item(session, GTIN, serial, "stolen", PLACED_AT)


@ON_ONE
def test_who_has_nothing_gets_all_and_who_has_all_gets_nothing(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.server.start()
    status, content = fetch(stand, 0, 0)
    assert (status, kinds(content)) == (200, [DocumentType.ROOT, DocumentType.BUNDLE])
    seq = trusted(content, stand.home / "root.pin").seq
    assert fetch(stand, 1, seq) == (204, b"")
    assert kinds(fetch(stand, 0, seq)[1]) == [DocumentType.ROOT]
    assert kinds(fetch(stand, 1, 0)[1]) == [DocumentType.BUNDLE]


def test_a_scanner_a_few_bundles_behind_gets_deltas_that_lead_to_the_same_bundle(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.server.start()
    pin = read_pin((stand.home / "root.pin").read_bytes())
    serials = [f"00001{number:09d}" for number in range(300)]
    stand.run(partial(_revoke_all, serials))
    revoke(stand, "00002000000001")
    held, memory = advance(Trust(), cose.read(fetch(stand, 0, 0)[1]), pin, Memory(), None)
    revoke(stand, "00002000000002", "00003000000003")
    status, content = fetch(stand, 1, held.held_bundle.seq)
    whole = fetch(stand, 1, 0)[1]
    assert (status, kinds(content)) == (200, [DocumentType.DELTA] * 2)
    assert len(content) < len(whole)
    held, memory = advance(held, cose.read(content), pin, memory, None)
    assert held.bundle_document == whole


def test_a_scanner_from_the_future_gets_nothing(stand: Stand) -> None:
    assert fetch(stand, SEQ_MAX, SEQ_MAX) == (204, b"")


@pytest.mark.parametrize("query", ["root=-1", "seq=-1", f"seq={SEQ_MAX + 1}", "root=x", "seq=1.5"])
def test_other_numbers_are_refused(stand: Stand, query: str) -> None:
    answer = stand.scan(f"/v1/trust?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "RequestInvalid")


@ON_ONE
def test_scanners_hear_of_recalls_and_voided_items_and_the_page_still_says_more(make_stand: MakeStand) -> None:
    stand = make_stand()
    stand.server.start()
    spoiled, kept = stand.take_items(2)

    async def work(session: Session) -> None:
        order = await orders.order_numbered(session, GTIN, int(spoiled.serial[:5]))
        scheme = await orders.scheme_of_order(session, stand.vault, order)
        index = scheme.issue_index(order.gtin, order.order_number, int(spoiled.serial[5:]))
        await ranges.void(session, order, [ranges.IndexRange(index, index)])
        told = await withdrawn(session, stand.vault)
        assert (GTIN, order.order_number, int(spoiled.serial[5:])) in told.items
        pin = read_pin((stand.home / "root.pin").read_bytes())
        await publication.publish(session, signer_of(stand.home), pin, datetime.now(UTC), withdrawn=told)

    seq = stand.run(publication.latest).seq
    stand.run(work)
    wait_until(lambda: fetch(stand, SEQ_MAX, seq)[0] == 200, "the new trust bundle")
    verifier = Verifier(trusted(fetch(stand, 0, 0)[1], stand.home / "root.pin"))
    assert [verifier.check(stand.text(item.outer)).error for item in (spoiled, kept)] == ["Revoked", None]
    assert stand.scan(spoiled.outer).json()["error"] == "Voided"

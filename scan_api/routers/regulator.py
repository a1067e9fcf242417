"""For regulators: the whole history of an item, in the standard's own terms."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path

from codes import ranges
from codes.orders import OrderUnknown
from kit.clock import iso
from loyalty import claims
from offline_sdk.code_text import ORDER_DIGITS
from scan_api import sandbox, scans
from scan_api.auth import api_keys
from scan_api.auth.api_keys import Role
from scan_api.provenance import epcis
from scan_api.provenance.events import Event, Step, events_of
from scan_api.services import Serve
from signer import keys

router = APIRouter(prefix="/v1/regulator", tags=["regulator"])

SCANS_SHOWN_MAX = 1_000

Digits14 = Annotated[str, Path(pattern=r"^[0-9]{14}$")]


@router.get("/items/{gtin}/{serial}")
async def item(
    gtin: Digits14, serial: Digits14, services: Serve, authorization: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """What the item is, who issued it, and all that happened to it as an EPCIS 2.0 document.

    Scans and claims carry no person. At most the first 1,000 scans are listed; `scan_count` counts all.
    """
    now = services.clock()
    async with services.database.reading() as session:
        key = await api_keys.authenticate(session, authorization, Role.REGULATOR)
        key.require_gtin(gtin)
        found = await scans.find_order(session, gtin, int(serial[:ORDER_DIGITS]))
        if found is None:
            raise OrderUnknown("no such item was issued")
        order, product, brand = found
        key.require_brand(product.brand_id)
        await sandbox.require_side(session, key.sandbox, brand.group_id)
        [(item_key, index)] = await services.scans.items(session, order, brand.issuer_id, [serial])
        issuer = await session.get_one(keys.Issuer, brand.issuer_id)
        record = await scans.record_of(session, item_key)
        state = await ranges.state_at(session, order, index)
        history = await events_of(session, order, item_key, index)
        for scan in await scans.scans_of(session, item_key, SCANS_SHOWN_MAX):
            history.append(Event(scan.scan_id, Step.SCANNED, scan.at, scan.at))
        for claim in await claims.claims_of(session, item_key):
            history.append(Event(claim.claim_id, Step.CLAIMED, claim.at, claim.at))
        revoked = await keys.is_revoked(session, order.kid, gtin, order.order_number, int(serial[ORDER_DIGITS:]))
    history.sort(key=lambda event: (event.at, event.recorded_at))
    return {
        "item": {
            "epc": epcis.item_uri(gtin, serial),
            "gtin": gtin,
            "serial": serial,
            "issuer": issuer.name,
            "brand": {"zh": brand.name_zh, "en": brand.name_en},
            "product": {"zh": product.name_zh, "en": product.name_en},
            "order": {"number": order.order_number, "quantity": order.quantity, "placed_at": iso(order.created_at)},
            "kid": order.kid,
            "state": "revoked" if revoked else state.value,
            "recall_reason": order.recall_reason,
            "first_scan_at": iso(record.first_scan_at) if record.first_scan_at else None,
            "scan_count": record.scan_count,
        },
        "epcis": epcis.document(gtin, serial, history, now),
    }

"""Erasing a member when he asks for it: everything that tells who he was goes, and the books stay as they are."""

import uuid
from datetime import datetime

from sqlmodel import col, select

from kit.db import Session
from loyalty import members, sign_in, webhooks
from loyalty.members import Card, PhoneIdentity
from loyalty.webhooks import WebhookKind


async def erase(session: Session, member_id: uuid.UUID, now: datetime) -> None:
    """Forget the member and everybody merged into him, sign them out, and tell the brands whose cards they held.

    What was sealed under their keys, wherever it stands, is noise from here on. Accounts, entries, claims, purchases
    and consents stay under bare ids. Raises MemberUnknown.
    """
    await members.get(session, member_id)
    family = await members.family_of(session, member_id)
    fingerprints = await session.exec(select(PhoneIdentity.fingerprint).where(col(PhoneIdentity.member_id).in_(family)))
    await sign_in.forget_codes(session, fingerprints.all())
    await members.erase(session, member_id)
    await sign_in.close_sessions(session, family)
    cards = await session.exec(
        select(Card.member_id, Card.brand_id)
        .where(col(Card.member_id).in_(family))
        .order_by(col(Card.member_id), col(Card.brand_id))
    )
    for holder_id, brand_id in cards.all():
        await webhooks.emit(session, brand_id, WebhookKind.MEMBER_ERASED, holder_id, {}, now)

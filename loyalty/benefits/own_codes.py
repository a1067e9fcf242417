"""The codes of a member's benefits in clear, for his export: those that he sees on his page."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

from sqlmodel import col, select

from kit.db import Session
from kit.vault import Vault
from loyalty import member_export
from loyalty.benefits.held import MemberBenefit, shown


async def _codes(session: Session, vault: Vault, member_id: uuid.UUID) -> AsyncIterator[dict[str, Any]]:
    held = (
        select(MemberBenefit)
        .where(MemberBenefit.member_id == member_id, col(MemberBenefit.code_sealed).is_not(None))
        .order_by(col(MemberBenefit.issued_at), col(MemberBenefit.held_id))
        .execution_options(yield_per=member_export.ROWS_READ_AT_ONCE)
    )
    async for (benefit,) in await session.stream(held):
        # A pool's code that he has not asked for stays covered: to show it is to hand it out.
        code = shown(vault, benefit, benefit.issued_at).code
        if code is not None:
            yield {"held_id": str(benefit.held_id), "code": code}


member_export.OPENED["benefit_code"] = _codes

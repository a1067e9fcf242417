"""Coupons that a campaign's budget pays, as steps of a procedure: what `write_out` does for who has one round trip."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kit.procedures import Kind, Step
from kit.vault import Vault
from loyalty.benefits import coupon_codes, giving
from loyalty.benefits.catalogue import Benefit, BenefitKind

_KINDS = {
    "benefit": Kind.UUID,
    "benefit_kind": Kind.TEXT,
    "benefit_text_zh": Kind.TEXT,
    "benefit_text_en": Kind.TEXT,
    "benefit_value_fen": Kind.BIGINT,
    "benefit_stackable": Kind.BOOLEAN,
    "benefit_expires_at": Kind.MOMENT,
    "code_fingerprint": Kind.BYTES,
    "code_sealed": Kind.BYTES,
}
WRITING_PARAMETERS: Mapping[str, Kind] = {"writes_coupon": Kind.BOOLEAN, **_KINDS}
"""Besides `member`, `claim` (the held benefit's id), `brand`, `group_number`, `reason` and `now`."""
WRITING: Sequence[Step] = (
    Step(
        """
        INSERT INTO member_benefit (member_id, held_id, benefit_id, brand_id, group_id, kind, text_zh, text_en, amount,
            value_fen, points_paid, stackable, why, code_fingerprint, code_sealed, status, turn, issued_at, expires_at)
        VALUES (:member, :claim, :benefit, :brand, :group_number, :benefit_kind, :benefit_text_zh, :benefit_text_en, 1,
            :benefit_value_fen, 0, :benefit_stackable, :reason, :code_fingerprint, :code_sealed, 'issued', 0, :now,
            :benefit_expires_at)
        """,
        when="writes_coupon",
    ),
    Step(
        """
        INSERT INTO benefit_step (member_id, held_id, turn, benefit_id, brand_id, step, at, recorded_at)
        VALUES (:member, :claim, 0, :benefit, :brand, 'issued', :now, :now)
        """,
        when="writes_coupon",
    ),
)


def writing_values(
    vault: Vault, benefit: Benefit | None, member_id: uuid.UUID, held_id: uuid.UUID, why: str, now: datetime
) -> dict[str, Any]:
    """The parameters; nothing is written unless the benefit is a generated coupon."""
    if benefit is None or benefit.kind != BenefitKind.COUPON:
        return {"writes_coupon": False, **dict.fromkeys(_KINDS)}
    held = giving.paid_out(vault, benefit, member_id, held_id, why, now)
    return {
        "writes_coupon": True,
        "benefit": held.benefit_id,
        "benefit_kind": held.kind,
        "benefit_text_zh": held.text_zh,
        "benefit_text_en": held.text_en,
        "benefit_value_fen": held.value_fen,
        "benefit_stackable": held.stackable,
        "benefit_expires_at": held.expires_at,
        "code_fingerprint": held.code_fingerprint,
        "code_sealed": held.code_sealed,
    }


def code_of(vault: Vault, values: Mapping[str, Any]) -> str:
    """The code of the coupon that these parameters write, as its member sees it."""
    return coupon_codes.show_code(coupon_codes.unseal(vault, values["code_sealed"], values["claim"]))

"""Paying from a budget, as steps of a procedure: the same transfer that `post` makes, for who has one round trip.

The transfer has two legs: whichever of the budget's stripes can pay, and the payee's account. A member's points get
their lot.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kit.procedures import Kind, Step
from loyalty.ledger import chain
from loyalty.ledger.accounts import AccountId, holds_points
from loyalty.ledger.transfers import Leg, Transfer, fingerprint

PAYING_PARAMETERS: Mapping[str, Kind] = {
    "transfer": Kind.UUID,
    "fingerprint": Kind.BYTES,
    "reason": Kind.TEXT,
    "seal": Kind.BYTES,
    "asset": Kind.TEXT,
    "stripes": Kind.UUIDS,
    "first_stripe": Kind.UUID,
    "payee": Kind.UUID,
    "payee_purpose": Kind.TEXT,
    "payee_first_link": Kind.BYTES,
    "pays": Kind.BOOLEAN,
    "hurries": Kind.BOOLEAN,
    "waits": Kind.BOOLEAN,
    "makes_lot": Kind.BOOLEAN,
    "lot_expires_at": Kind.MOMENT,
}
"""Besides `amount` and `now`."""


def _take(when: str, lock: str) -> Step:
    can_pay = "asset = :asset AND purpose = 'budget' AND balance >= :amount"
    # Most find the stripe that chance gave them free and full, and never look at the others.
    return Step(
        f"""
        UPDATE ledger_account
        SET balance = balance - :amount, seq = seq + 1,
            head = ledger_link(head, :transfer, -:amount, balance - :amount, seq + 1, :now)
        WHERE asset = :asset AND purpose = 'budget' AND balance >= :amount AND holder_id = COALESCE(
            (SELECT holder_id FROM ledger_account WHERE holder_id = :first_stripe AND {can_pay} {lock}),
            (SELECT holder_id FROM ledger_account WHERE holder_id = ANY(:stripes) AND {can_pay}
            ORDER BY holder_id LIMIT 1 {lock}))
        RETURNING holder_id, balance, seq, head
        """,  # noqa: S608 - words of ours
        gives={
            "stripe": Kind.UUID,
            "stripe_balance": Kind.BIGINT,
            "stripe_seq": Kind.BIGINT,
            "stripe_link": Kind.BYTES,
        },
        when=when,
        refusal="BudgetUsedUp",
    )


PAYING: Sequence[Step] = (
    # Whoever waits for a stripe and finds it emptied keeps it locked, so nobody may go on to wait for another: a
    # payment either takes a stripe that nobody pays from just now, or waits for one, and starts anew if in vain.
    _take("hurries", "[[FOR UPDATE SKIP LOCKED]]"),
    _take("waits", ""),
    Step(
        "INSERT INTO ledger_transfer (transfer_id, fingerprint, reason, at, lots_expire_at, seal) "
        "VALUES (:transfer, :fingerprint, :reason, :now, :lot_expires_at, :seal)",
        when="pays",
    ),
    Step(
        """
        INSERT INTO ledger_account (holder_id, asset, purpose, balance, floor, seq, head)
        VALUES (:payee, :asset, :payee_purpose, :amount, 0, 1, :payee_first_link)
        ON CONFLICT (holder_id, asset, purpose) DO UPDATE
        SET balance = ledger_account.balance + excluded.balance,
            floor = CASE WHEN ledger_account.floor = 0 OR ledger_account.balance + excluded.balance >= 0 THEN 0
                ELSE ledger_account.balance + excluded.balance END,
            seq = ledger_account.seq + 1,
            head = ledger_link(ledger_account.head, :transfer, :amount, ledger_account.balance + :amount,
                ledger_account.seq + 1, :now)
        RETURNING balance, seq, head
        """,
        gives={"payee_balance": Kind.BIGINT, "payee_seq": Kind.BIGINT, "payee_link": Kind.BYTES},
        when="pays",
    ),
    Step(
        """
        INSERT INTO ledger_entry (holder_id, asset, purpose, seq, transfer_id, amount, balance_after, at, link)
        VALUES (:stripe, :asset, 'budget', :stripe_seq, :transfer, -:amount, :stripe_balance, :now, :stripe_link),
            (:payee, :asset, :payee_purpose, :payee_seq, :transfer, :amount, :payee_balance, :now, :payee_link)
        """,
        when="pays",
    ),
    Step(
        """
        INSERT INTO points_lot (member_id, lot_id, amount, "left", earned_at, expires_at)
        VALUES (:payee, :transfer, :amount, CASE WHEN :payee_balance <= 0 THEN 0
            WHEN :payee_balance < :amount THEN :payee_balance ELSE :amount END, :now, :lot_expires_at)
        """,
        when="makes_lot",
    ),
)


def paying_values(
    transfer_id: uuid.UUID,
    stripes: Sequence[AccountId],
    payee: AccountId,
    amount: int,
    reason: str,
    now: datetime,
    lot_expires_at: datetime | None,
) -> dict[str, Any]:
    """The parameters for a payment; `stripes` in the order in which they are tried, none when nothing is paid."""
    first, *others = stripes or (None,)
    asked = seal = first_link = b""
    if first is not None:
        legs = (Leg(first, -amount, otherwise=tuple(others)), Leg(payee, amount))
        asked = fingerprint(Transfer(transfer_id, reason, legs, lots_expire_at=lot_expires_at))
        seal = chain.seal(transfer_id, asked, reason, now, lot_expires_at)
        genesis = chain.genesis(payee.holder_id, payee.asset, payee.purpose)
        first_link = chain.link(genesis, transfer_id, amount, amount, 1, now)
    return {
        "transfer": transfer_id,
        "fingerprint": asked,
        "reason": reason,
        "seal": seal,
        "asset": payee.asset,
        "stripes": [stripe.holder_id for stripe in stripes],
        "first_stripe": first.holder_id if first is not None else None,
        "payee": payee.holder_id,
        "payee_purpose": payee.purpose.value,
        "payee_first_link": first_link,
        "pays": first is not None,
        "hurries": first is not None,
        "waits": False,
        "makes_lot": first is not None and holds_points(payee),
        "lot_expires_at": lot_expires_at,
        "amount": amount,
        "now": now,
    }


def waiting(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters for the next try of a payment, when all stripes were being paid from: it waits for one."""
    return {**values, "hurries": False, "waits": values["pays"]}

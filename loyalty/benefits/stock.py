"""The stock of a benefit: accounts of the ledger, in stripes so that takers do not queue for one row."""

import uuid
from collections.abc import Collection
from datetime import datetime
from functools import lru_cache

from kit.db import Session
from kit.errors import Conflict
from kit.ids import derived_id
from loyalty import ledger
from loyalty.benefits.catalogue import Benefit, BenefitInvalid, BenefitKind, BenefitSuspicious
from loyalty.ledger import AccountId, InsufficientBalance, Leg, Purpose, Transfer

PROCURED_AT_ONCE_MAX = 100_000_000
COST_FEN_UNASKED_MAX = 100_000_000
"""Stock that may cost the brand more than ¥1,000,000 is procured only with a limit that says so."""
_BENEFITS_REMEMBERED = 1_024


class BenefitOutOfStock(Conflict):
    """There is none left."""

    code = "BenefitOutOfStock"


def asset_of(benefit_id: uuid.UUID) -> str:
    """The ledger's name of a benefit, counted in pieces."""
    return f"benefit:{benefit_id}"


@lru_cache(_BENEFITS_REMEMBERED)
def stripes(benefit_id: uuid.UUID, count: int) -> tuple[AccountId, ...]:
    """The accounts that a benefit's stock is spread over, always in the same order."""
    return tuple(
        AccountId(derived_id("benefit-stock", benefit_id, number), asset_of(benefit_id), Purpose.STOCK)
        for number in range(count)
    )


def take(benefit: Benefit, spread: uuid.UUID) -> Leg:
    """The leg that takes one from whichever stripe has it, beginning at one that `spread` chooses."""
    accounts = stripes(benefit.benefit_id, benefit.stripes)
    first = spread.int % benefit.stripes
    return Leg(accounts[first], -1, otherwise=accounts[first + 1 :] + accounts[:first])


def put_back(benefit: Benefit, spread: uuid.UUID) -> AccountId:
    """The stripe that one comes back to."""
    return stripes(benefit.benefit_id, benefit.stripes)[spread.int % benefit.stripes]


def check_cost(count: int, cost_fen: int, cost_fen_max: int | None) -> None:
    """Check what `count` more at `cost_fen` each may cost the brand. Raises BenefitInvalid and BenefitSuspicious."""
    if not 1 <= count <= PROCURED_AT_ONCE_MAX:
        raise BenefitInvalid(f"count: 1 to {PROCURED_AT_ONCE_MAX}")
    cost = count * cost_fen
    limit = COST_FEN_UNASKED_MAX if cost_fen_max is None else cost_fen_max
    if cost > limit:
        raise BenefitSuspicious(
            f"{count} at {cost_fen} fen cost up to {cost} fen, more than {limit}",
            hint="Look again for a decimal point or a wrong unit; if it is meant, raise the limit (--cost-at-most).",
        )


async def procure(
    session: Session,
    benefit: Benefit,
    count: int,
    *,
    procurement_id: uuid.UUID,
    now: datetime,
    cost_fen_max: int | None = None,
) -> None:
    """Put more into stock, once for each `procurement_id`.

    Raises BenefitInvalid (a pool's stock are its codes) and BenefitSuspicious (it may cost more than the limit).
    """
    if benefit.kind == BenefitKind.POOL:
        raise BenefitInvalid("a pool's stock are the codes that were imported", hint="`fanxing benefit pool import`")
    check_cost(count, benefit.cost_fen, cost_fen_max)
    await add(session, benefit, count, procurement_id, now)


async def add(session: Session, benefit: Benefit, count: int, transfer_id: uuid.UUID, now: datetime) -> None:
    """Move `count` from the brand's issuance into the stripes."""
    accounts = stripes(benefit.benefit_id, benefit.stripes)
    each, more = divmod(count, benefit.stripes)
    # The rest begins at a stripe of its own each time, or many small additions would all lie in the first.
    first = transfer_id.int % benefit.stripes
    shares = [each + ((number - first) % benefit.stripes < more) for number in range(benefit.stripes)]
    source = ledger.issuance(benefit.brand_id, asset_of(benefit.benefit_id), transfer_id)
    legs = [Leg(source, -count)]
    legs += [Leg(account, share) for account, share in zip(accounts, shares, strict=True) if share]
    await ledger.post(session, Transfer(transfer_id, "benefit procured", tuple(legs)), now)


async def withdraw(session: Session, benefit: Benefit, count: int, *, withdrawal_id: uuid.UUID, now: datetime) -> None:
    """Take stock back that was not given yet, once for each `withdrawal_id`.

    Raises BenefitInvalid and BenefitOutOfStock.
    """
    if benefit.kind == BenefitKind.POOL:
        raise BenefitInvalid("codes do not leave a pool; pause the benefit instead")
    if count < 1:
        raise BenefitInvalid("count: at least 1")
    target = ledger.issuance(benefit.brand_id, asset_of(benefit.benefit_id), withdrawal_id)
    await gather(session, benefit, count, target, withdrawal_id, now)


async def gather(
    session: Session, benefit: Benefit, count: int, target: AccountId, transfer_id: uuid.UUID, now: datetime
) -> None:
    """Move `count` out of the stripes, as many as it takes. Raises BenefitOutOfStock."""
    legs, missing = [], count
    for account, balance in (await ledger.balances_of(session, stripes(benefit.benefit_id, benefit.stripes))).items():
        taken = min(balance, missing)
        if taken:
            legs.append(Leg(account, -taken))
        missing -= taken
    if missing:
        raise BenefitOutOfStock(f"there are only {count - missing} left", hint="`fanxing benefit stock` adds more.")
    try:
        await ledger.post(session, Transfer(transfer_id, "benefit stock moved", (*legs, Leg(target, count))), now)
    except InsufficientBalance:
        raise BenefitOutOfStock("the stock changed meanwhile", hint="Try again.") from None


async def left(session: Session, benefits: Collection[Benefit]) -> dict[uuid.UUID, int]:
    """How many of each are left to give."""
    accounts = {
        account: benefit.benefit_id for benefit in benefits for account in stripes(benefit.benefit_id, benefit.stripes)
    }
    totals = {benefit.benefit_id: 0 for benefit in benefits}
    for account, balance in (await ledger.balances_of(session, list(accounts))).items():
        totals[accounts[account]] += balance
    return totals

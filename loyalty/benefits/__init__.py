"""Benefits (权益): what a brand gives, from the catalogue to the shop's counter and the visit after.

The catalogue in `catalogue`, stock in `stock`, giving in `giving`, the life of what is held in `held` and `using`,
imported codes in `code_pools`, the counter in `redemptions`, `baskets` and `offline`, things sent in `deliveries`.
"""

import loyalty.benefits.own_codes  # noqa: F401  # adds its section to a member's export
from loyalty.benefits.catalogue import (
    Benefit,
    BenefitInvalid,
    BenefitKind,
    BenefitNotOpen,
    BenefitPrice,
    BenefitStatus,
    BenefitSuspicious,
    BenefitUnknown,
    NewBenefit,
    get,
)
from loyalty.benefits.coupon_codes import show_code
from loyalty.benefits.giving import (
    BenefitNotForTier,
    BenefitPriceChanged,
    PointsShort,
    escrow,
    grant,
    obtain,
    write_out,
)
from loyalty.benefits.held import (
    BenefitState,
    BenefitStateForbids,
    BenefitStep,
    HeldBenefit,
    HeldBenefitUnknown,
    MemberBenefit,
    Step,
    append_only_ddl,
    held_by,
    held_of,
)
from loyalty.benefits.limits import BenefitLimitReached, BenefitTaken
from loyalty.benefits.stock import BenefitOutOfStock, asset_of
from loyalty.benefits.using import open_packet, reverse, show

__all__ = [
    "Benefit",
    "BenefitInvalid",
    "BenefitKind",
    "BenefitLimitReached",
    "BenefitNotForTier",
    "BenefitNotOpen",
    "BenefitOutOfStock",
    "BenefitPrice",
    "BenefitPriceChanged",
    "BenefitState",
    "BenefitStateForbids",
    "BenefitStatus",
    "BenefitStep",
    "BenefitSuspicious",
    "BenefitTaken",
    "BenefitUnknown",
    "HeldBenefit",
    "HeldBenefitUnknown",
    "MemberBenefit",
    "NewBenefit",
    "PointsShort",
    "Step",
    "append_only_ddl",
    "asset_of",
    "escrow",
    "get",
    "grant",
    "held_by",
    "held_of",
    "obtain",
    "open_packet",
    "reverse",
    "show",
    "show_code",
    "write_out",
]

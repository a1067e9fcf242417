"""Where the shopper's pages stand, and where their forms go."""

import re

SIGN_IN_ACTION = "/web/sign-in"
CLAIM_ACTION = "/web/claim"
CONFIRM_ACTION = "/web/confirm"
SIGN_OUT_ACTION = "/web/sign-out"
SIGN_OUT_EVERYWHERE_ACTION = "/web/sign-out-everywhere"
REPORT_ACTION = "/web/package-report"
OBTAIN_ACTION = "/web/obtain"
SHOW_CODE_ACTION = "/web/show-code"
OPEN_ACTION = "/web/open"
ADDRESS_ACTION = "/web/address"
CHECK_IN_ACTION = "/web/check-in"
PLAY_ACTION = "/web/play"
SHARE_ACTION = "/web/share"
JOIN_ACTION = "/web/join"
MAKE_PACKET_ACTION = "/web/packet"
OPEN_SHARE_ACTION = "/web/packet-share"
CONSENT_ACTION = "/web/consent"
PROVE_ACTION = "/web/prove"
ERASE_ACTION = "/web/erase"
MERGE_ACTION = "/web/merge"

ME_PATH = "/me"
POINTS_PATH = "/me/points"
BENEFITS_PATH = "/me/benefits"
SHOP_PATH = "/me/shop"
EARN_PATH = "/me/earn"
PRIVACY_PATH = "/me/privacy"
EXPORT_PATH = "/v1/me/export"
DRAWS_PATH = "/draws"
PACKAGES_PATH = "/packages"
PACKET_PATH = "/packet"
REFERRAL_PATH = "/r"
TRACE_PATH = "/trace"

# Where a sign-in may lead back to: pages of ours that one can be sent a link of, and nothing else.
_ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_RETURNS = re.compile(rf"/r/[0-9a-z]{{16}}|/(?:packet|draws)/{_ID}|/me(?:/(?:points|shop|earn|benefits|privacy))?")


def returns_to(path: str) -> str:
    """The page to show after a sign-in: the one that was asked for, if it is one of ours, else the member's own."""
    return path if _RETURNS.fullmatch(path) else ME_PATH

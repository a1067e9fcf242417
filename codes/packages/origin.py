"""Origin: whether a manifest's key may speak for its order, as a trust bundle tells it.

A bundle holds the keys of many issuers, and those that were revoked: a right signature alone does not say whose it is.
"""

from codes.manifest import Manifest, ManifestInvalid
from offline_sdk.bundle import Bundle
from offline_sdk.code_text import ITEM_DIGITS, ORDER_DIGITS, SIGNATURE_BYTES, CodeText, Profile
from offline_sdk.errors import Malformed
from offline_sdk.revocation import RevocationIndex


def require_entitled(contents: Manifest, trusted: Bundle) -> None:
    """Raises ManifestInvalid unless the key that signed may sign for this GTIN and order, and neither is revoked."""
    refused = ManifestInvalid(
        f"the trust bundle does not let key number {contents.kid} speak for this order",
        hint="Print nothing. Ask the brand whether it made these files, and keep them for whoever has to find out.",
    )
    try:
        gtin, order = contents.content["gtin"], contents.content["order"]
        serial = f"{order:0{ORDER_DIGITS}d}{0:0{ITEM_DIGITS}d}"
        code = CodeText(Profile.OUTER, contents.kid, gtin, serial, bytes(SIGNATURE_BYTES))
    except (KeyError, TypeError, ValueError, Malformed):
        raise refused from None
    # The company prefix begins after the indicator digit, as it does for codes (GS1 General Specifications, 2.1).
    entitled = any(
        key.kid == code.kid and gtin.startswith(key.gtin_prefixes, 1) and key.order_min <= order <= key.order_max
        for key in trusted.keys
    )
    if not entitled or RevocationIndex(trusted.revocations).what_is_revoked(code) in ("key", "order"):
        raise refused

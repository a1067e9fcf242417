"""Origin: which key's word a print house takes for which order."""

from typing import Any

import nacl.signing
import pytest

from codes.manifest import Manifest, ManifestInvalid
from codes.packages.origin import require_entitled
from offline_sdk import Bundle, BundleKey
from offline_sdk.revocation import Revocations
from tests.codes.conftest import GTIN
from tests.codes.packages.conftest import KID

OTHER_GTIN = "09506000134352"


def entitled(revocations: Revocations | None = None, **content: Any) -> None:
    public = bytes(nacl.signing.SigningKey(bytes(range(32))).verify_key)
    keys = (
        BundleKey(KID, public, "Example Dairy", (GTIN[1:8],), order_min=3, order_max=9),
        BundleKey(KID + 1, public, "Example Ice", (OTHER_GTIN[1:8],)),
    )
    bundle = Bundle("test.example", 1, 1, 2, keys, revocations or Revocations())
    require_entitled(Manifest({"kid": KID, "gtin": GTIN, "order": 3, **content}), bundle)


def test_a_key_speaks_for_its_own_orders() -> None:
    entitled()
    entitled(order=9)
    entitled(Revocations.collect(keys=[KID + 1], orders=[(GTIN, 4, 9)], items=[(GTIN, 3, 0)]))


@pytest.mark.parametrize(
    "content",
    [
        {"gtin": OTHER_GTIN},
        {"kid": KID + 1},
        {"kid": KID + 2},
        {"order": 2},
        {"order": 10},
        {"order": 100_000},
        {"order": "3"},
        {"gtin": GTIN[:-1]},
        {"gtin": None},
    ],
)
def test_a_key_speaks_for_nothing_else(content: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        entitled(**content)


@pytest.mark.parametrize("revoked", [{"keys": [KID]}, {"orders": [(GTIN, 1, 3)]}])
def test_what_was_revoked_speaks_no_more(revoked: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        entitled(Revocations.collect(**revoked))

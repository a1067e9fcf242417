"""Documents: the genuine roots, bundles and deltas that fuzzing starts from, and what a bundle that loads must be."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from offline_sdk import Algorithm, Bundle, BundleKey, DocumentType, Revocations, Root, Verifier
from offline_sdk.code_text import ITEM_MAX
from tests.fuzz.target import PUBLISHERS, must
from tests.offline_sdk.named_keys import (
    DOMAIN,
    EXPIRES,
    ISSUED,
    NOW,
    Key,
    delta_of,
    key,
    keys,
    published,
    root_of,
    signed,
)

_GTIN_A, _GTIN_B = "06901234567892", "09506000134352"
PUBLISHER: Final = key("publisher 1")
SIGNERS: Final = [one.signer for one in PUBLISHERS]
ROOT_KEYS: Final = keys("root 1", "root 2", "root 3")
NEW_ROOT_KEYS: Final = keys("root 2", "root 3", "p256 root 4")
NEW_PUBLISHERS: Final = keys("publisher 3")
ANYONE: Final = keys("root 1", "root 2", "root 3", "p256 root 4", "stranger")
"""Who may sign roots while fuzzing."""


def _code_key(kid: int, name: str, *prefixes: str, **limits: int) -> BundleKey:
    by = key(name)
    return BundleKey(kid, by.public, f"Issuer {kid}", prefixes, algorithm=by.algorithm, **limits)


_KEYS: Final = (
    _code_key(0, "code 1", "690123456", "9506000"),
    _code_key(1, "code 2", "690123456", order_min=5, order_max=40, not_before=ISSUED, not_after=EXPIRES),
    _code_key(2, "p256 code 3", "6", "95060001"),
)
_ITEMS: Final = [(_GTIN_A, 30, item) for item in (0, 1, 2, 63, 64, 499_999_999, 999_999_999)]
_RUN: Final = [(_GTIN_B, 7, item) for item in range(1000, 1080)]


def _bundles() -> tuple[Bundle, ...]:
    first = Bundle(DOMAIN, 1, ISSUED, EXPIRES, _KEYS[:1])
    second = Bundle(
        DOMAIN,
        2,
        ISSUED + 60,
        EXPIRES,
        _KEYS,
        Revocations.collect([77], [(_GTIN_A, 10, 20), (_GTIN_B, 0, 0)], [*_ITEMS, *_RUN]),
        prev=first.fingerprint,
    )
    third = Bundle(
        DOMAIN,
        3,
        ISSUED + 120,
        EXPIRES,
        (_KEYS[0], _code_key(1, "code 5", "690123456"), _code_key(99_999, "code 4", "95")),
        Revocations.collect(
            [77, 78], [(_GTIN_A, 10, 21)], [*_ITEMS[1:], *_RUN[10:], (_GTIN_A, 31, 5), (_GTIN_A, 30, 3)]
        ),
        prev=second.fingerprint,
    )
    later = Bundle(DOMAIN, 9, ISSUED + 180, EXPIRES, third.keys, third.revocations, prev=bytes(32))
    return first, second, third, later


BUNDLES: Final = _bundles()
ODD_BUNDLES: Final = (
    Bundle("other.example", 10, ISSUED, EXPIRES, _KEYS, prev=bytes(32)),
    Bundle(DOMAIN, 10, ISSUED, NOW, _KEYS, prev=bytes(32)),
    Bundle(DOMAIN, 3, ISSUED, EXPIRES, _KEYS, prev=bytes(32)),
)
"""Right in themselves, and not to be taken: another domain's, an expired one, one that follows upon another."""
BUNDLE_DOCUMENTS: Final = tuple(published(bundle, by) for bundle in BUNDLES for by in PUBLISHERS)
DELTAS: Final = tuple(
    delta_of(base, target, PUBLISHER) for base in BUNDLES for target in BUNDLES if base.seq < target.seq
)
DELTA_DOCUMENTS: Final = tuple(signed(DocumentType.DELTA, delta.payload(), PUBLISHER) for delta in DELTAS)


def _roots() -> tuple[tuple[Root, tuple[Key, ...]], ...]:
    return (
        (root_of(1, ROOT_KEYS, 2, PUBLISHERS), ROOT_KEYS[:2]),
        (root_of(2, ROOT_KEYS, 2, PUBLISHERS, expires=NOW - 1), ROOT_KEYS),
        (root_of(3, NEW_ROOT_KEYS, 2, PUBLISHERS[:1]), keys("root 1", "root 2", "root 3")),
        (root_of(4, NEW_ROOT_KEYS, 3, NEW_PUBLISHERS), NEW_ROOT_KEYS),
    )


ROOTS: Final = _roots()
FORKS: Final = tuple(root_of(version, ROOT_KEYS, 1, PUBLISHERS) for version in (2, 3))
"""Another history after the first root."""
ROOT_DOCUMENTS: Final = tuple(signed(DocumentType.ROOT, root.payload(), *by) for root, by in ROOTS)
TEXTS: Final = tuple(
    f"https://id.example.cn/{profile}{kid:05d}{0:0155d}/01/{gtin}/21/{serial}"
    for profile, kid, gtin, serial in ((1, 0, _GTIN_A, "00030000000000"), (2, 2, _GTIN_B, "00007000001000"))
)


def examine(bundle: Bundle, payload: bytes) -> None:
    """Require that everything in a bundle that loaded answers, and that it has one form."""
    must(bundle.payload() == payload, "a bundle that loads is what was signed, to the byte")
    json.dumps(bundle.as_json())
    verifier = Verifier(bundle, now=datetime.fromtimestamp(NOW, UTC))
    for text in TEXTS:
        must(verifier.check(text).error in ("UnknownKey", "BadSignature"), "an all-zero signature is never right")
    for group in bundle.revocations.items:
        items = list(group.items)
        must(len(items) == len(group.items) and 0 <= items[0] <= items[-1] <= ITEM_MAX, "items are in their range")
        must(all(a < b for a, b in pairwise(items)), "items ascend")
        must(items[0] in group.items and items[-1] in group.items, "items are found")
    must(all(one.algorithm in set(Algorithm) for one in bundle.keys), "algorithms are registered")
    must(_ascend(one.kid for one in bundle.keys), "keys ascend")


def _ascend(values: Iterable[int]) -> bool:
    return all(a < b for a, b in pairwise(values))

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from offline_sdk import (
    Bundle,
    BundleKey,
    BundleMismatch,
    BundleUntrusted,
    Delta,
    DocumentType,
    ItemSet,
    OrderRange,
    Revocations,
    RevokedItems,
    Signer,
    TrustMalformed,
    seal,
    to_be_signed,
)
from offline_sdk.algorithms import Algorithm
from offline_sdk.bundle import SEQ_MAX, TIME_MAX
from offline_sdk.errors import TrustError, TrustTruncated

GTIN = "06901234567892"
OTHER_GTIN = "09506000134352"
PUBLIC = bytes.fromhex("10091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122")
PRIVATE = SigningKey(bytes(range(32)))
PUBLISHER = Signer(Algorithm.ED25519, bytes(PRIVATE.verify_key))
KEY = BundleKey(1, PUBLIC, "Fanxing Demo Dairy", ("690123456",))
BASE = Bundle(
    "demo.example",
    41,
    1_789_990_000,
    1_792_582_000,
    (KEY, BundleKey(2, PUBLIC, "gone", ("69012",)), BundleKey(3, PUBLIC, "before", ("69012",))),
    Revocations.collect(
        keys=[8, 9],
        orders=[(GTIN, 3, 5), (OTHER_GTIN, 1, 1)],
        items=[(GTIN, 1, 7), (GTIN, 1, 8), (GTIN, 6, 1), (OTHER_GTIN, 1, 5)],
    ),
    bytes.fromhex("c0" * 32),
)
TARGET = Bundle(
    "demo.example",
    42,
    1_790_000_000,
    1_792_592_000,
    (KEY, BundleKey(3, PUBLIC, "after", ("69012",)), BundleKey(4, PUBLIC, "new", ("69012",))),
    Revocations.collect(
        keys=[2, 9],
        orders=[(GTIN, 3, 6), (OTHER_GTIN, 1, 1)],
        items=[(GTIN, 1, 7), (GTIN, 1, 9), (GTIN, 2, 0), (OTHER_GTIN, 1, 5)],
    ),
    BASE.fingerprint,
)
# The delta from BASE to TARGET, by the publisher whose private seed is the bytes 0 to 31. It may never change.
GOLDEN_HEX = (
    "d2845838a301320378286170706c69636174696f6e2f766e642e66616e78696e672e74727573742d64656c74612b63626f72"
    "044856475aa75463474ca05901aaad0102026c64656d6f2e6578616d706c65031829045820d802a1752befe7792b4dc697f0"
    "f09a4607abc4269434c5ff1384c3ebfa84548d05182a061a6ab13b80071a6ad8c8800882a70103023203582010091cb3c34c"
    "b12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d51220465616674657205816536393031320800091a0001869fa7"
    "0104023203582010091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d512204636e6577058165363930"
    "31320800091a0001869f0981020aa30181020281836e303639303132333435363738393203060382846e3036393031323334"
    "3536373839320101450900000001846e303639303132333435363738393202014500000000010ba30181080281836e303639"
    "303132333435363738393203050382846e30363930313233343536373839320101450800000001846e303639303132333435"
    "363738393206014501000000010c4856475aa75463474c0d584093de1a96e9befb6d86c7627d123595f2cb74bb1575918190"
    "ef03cf7b8711f336ec8a432865c7bcaa4fbfaacce8d33113386670abac6ee73d3c1c1b9b9c766b005840953a9e8fc1eeeb23"
    "b51e0e3e17125b1cc8137c697c7d3b148c385e1515835d70c0f07c972a78c785845ee9b739915077cb5dbfdec0be18cbcb63"
    "4b952fdba703"
)


def signed(type_: DocumentType, payload: bytes) -> bytes:
    return seal(type_, payload, {PUBLISHER: PRIVATE.sign(to_be_signed(type_, payload, PUBLISHER)).signature})


def published(bundle: Bundle) -> bytes:
    return signed(DocumentType.BUNDLE, bundle.payload())


def between(base: Bundle, target: Bundle) -> Delta:
    return Delta.between(base, target, PUBLISHER, published(target)[-64:])


DELTA = between(BASE, TARGET)


def test_golden_delta_is_written_read_and_applied() -> None:
    document = signed(DocumentType.DELTA, DELTA.payload())
    assert document.hex() == GOLDEN_HEX
    assert Delta.load(document, [PUBLISHER]) == DELTA
    assert DELTA.apply(BASE) == published(TARGET)


def test_documentation_prints_the_golden_delta_and_its_two_bundles() -> None:
    page = "".join((Path(__file__).parents[2] / "docs" / "trust-bundle.md").read_text("utf-8").split())
    for document in (GOLDEN_HEX, published(BASE).hex(), published(TARGET).hex()):
        assert document in page


def test_delta_holds_what_changes_and_nothing_else() -> None:
    assert [key.issuer for key in DELTA.keys_put] == ["after", "new"]
    assert DELTA.keys_removed == (2,)
    assert DELTA.added == Revocations.collect([2], [(GTIN, 3, 6)], [(GTIN, 1, 9), (GTIN, 2, 0)])
    assert DELTA.removed == Revocations.collect([8], [(GTIN, 3, 5)], [(GTIN, 1, 8), (GTIN, 6, 1)])


few = st.integers(0, 6)
gtins = st.sampled_from([GTIN, OTHER_GTIN])
contents = st.builds(
    lambda keys, revoked, orders, items: (
        tuple(BundleKey(kid, PUBLIC, issuer, ("690",)) for kid, issuer in sorted(keys.items())),
        Revocations.collect(revoked, orders, items),
    ),
    st.dictionaries(few, st.sampled_from(["a", "b"])),
    st.lists(few),
    st.lists(st.tuples(gtins, few, few).map(lambda span: (span[0], min(span[1:]), max(span[1:]))), max_size=4),
    st.lists(st.tuples(gtins, st.integers(0, 2), few | st.integers(0, 999_999_999)), max_size=12),
)


@settings(deadline=None)  # the set of a revoked item costs time once
@given(contents, contents, st.integers(1, 3))
def test_applying_gives_the_very_document_that_was_published(before: Any, after: Any, steps: int) -> None:
    base = Bundle("d", 1, 10, 20, keys=before[0], revocations=before[1])
    target = Bundle(
        "d", 1 + steps, 11, 21, keys=after[0], revocations=after[1], prev=base.fingerprint if steps == 1 else bytes(32)
    )
    document = signed(DocumentType.DELTA, between(base, target).payload())
    assert Delta.load(document, [PUBLISHER]).apply(base) == published(target)


def test_delta_may_skip_bundles() -> None:
    skipping = dataclasses.replace(TARGET, seq=50, prev=bytes(32))
    delta = between(BASE, skipping)
    assert cbor2.loads(delta.payload())[14] == bytes(32)
    assert Delta.load(signed(DocumentType.DELTA, delta.payload()), [PUBLISHER]).apply(BASE) == published(skipping)
    # From one bundle to the next, the one before the next is the base, and said once.
    assert 14 not in cbor2.loads(DELTA.payload())


def test_large_group_changes_by_one_item() -> None:
    held, wanted = ItemSet.of(range(0, 60_000, 3)), ItemSet.of([*range(0, 60_000, 3), 60_001])
    base = dataclasses.replace(BASE, revocations=Revocations(items=(RevokedItems(GTIN, 1, held),)))
    target = dataclasses.replace(
        TARGET, revocations=Revocations(items=(RevokedItems(GTIN, 1, wanted),)), prev=base.fingerprint
    )
    delta = between(base, target)
    assert list(delta.added.items[0].items) == [60_001]
    assert len(delta.payload()) < 500
    assert delta.apply(base) == published(target)
    back = dataclasses.replace(target, seq=43, revocations=base.revocations, prev=target.fingerprint)
    assert between(target, back).apply(target) == published(back)


@pytest.mark.parametrize(
    "base",
    [
        dataclasses.replace(BASE, domain="other.example"),
        dataclasses.replace(BASE, seq=40),
        dataclasses.replace(BASE, seq=43),
        dataclasses.replace(BASE, issued=BASE.issued + 1),
        dataclasses.replace(BASE, prev=bytes(32)),
        TARGET,
    ],
    ids=["domain", "earlier", "later", "same seq, other content", "other history", "target"],
)
def test_delta_of_another_base_is_a_mismatch(base: Bundle) -> None:
    with pytest.raises(BundleMismatch):
        DELTA.apply(base)


@pytest.mark.parametrize(
    "change",
    [
        {"keys_put": (KEY,)},
        {"keys_removed": (5,)},
        {"keys_removed": (3,)},
        {"added": Revocations(keys=(9,))},
        {"added": Revocations(keys=(8,))},
        {"removed": Revocations(keys=(7,))},
        {"added": Revocations(orders=(OrderRange(GTIN, 3, 5),))},
        {"removed": Revocations(orders=(OrderRange(GTIN, 3, 4),))},
        {"added": Revocations.collect(items=[(GTIN, 1, 7)])},
        {"added": Revocations.collect(items=[(GTIN, 1, 8)])},
        {"removed": Revocations.collect(items=[(GTIN, 1, 9)])},
        {"removed": Revocations.collect(items=[(GTIN, 9, 9)])},
        {"removed": Revocations.collect(items=[(GTIN, 6, 1), (GTIN, 6, 2)])},
    ],
    ids=lambda change: repr(change)[:60],
)
def test_delta_that_does_not_fit_its_base_is_a_mismatch(change: dict[str, Any]) -> None:
    # The publisher has signed it all the same.
    nonsense = dataclasses.replace(DELTA, **change)
    loaded = Delta.load(signed(DocumentType.DELTA, nonsense.payload()), [PUBLISHER])
    assert loaded == nonsense
    with pytest.raises(BundleMismatch):
        loaded.apply(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"signature": bytes(64)},
        {"expires": TARGET.expires + 1},
        {"issued": TARGET.issued + 1},
        {"keys_put": ()},
        {"keys_removed": ()},
        {"added": Revocations()},
        {"removed": Revocations.collect([8], [(GTIN, 3, 5)], [(GTIN, 1, 8)])},
        {"publisher": Signer(Algorithm.ED25519, PUBLIC)},
    ],
    ids=lambda change: repr(change)[:60],
)
def test_result_that_the_publisher_did_not_sign_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((BundleUntrusted, TrustMalformed)):
        dataclasses.replace(DELTA, **change).apply(BASE)
    with pytest.raises(BundleUntrusted):
        dataclasses.replace(DELTA, signature=bytes(64)).apply(BASE)


def test_ranges_that_overlap_in_the_result_are_malformed() -> None:
    added = dataclasses.replace(DELTA.added, orders=(OrderRange(GTIN, 4, 9),))
    removed = dataclasses.replace(DELTA.removed, orders=())
    with pytest.raises(TrustMalformed, match="overlap"):
        dataclasses.replace(DELTA, added=added, removed=removed).apply(BASE)


@pytest.mark.parametrize(
    "target",
    [
        dataclasses.replace(TARGET, domain="other.example"),
        dataclasses.replace(TARGET, seq=41),
        dataclasses.replace(TARGET, seq=40),
        dataclasses.replace(TARGET, seq=1, prev=None),
        dataclasses.replace(TARGET, prev=bytes(32)),
    ],
    ids=["domain", "same seq", "earlier", "first", "other history"],
)
def test_there_is_no_delta_to_a_bundle_that_does_not_follow(target: Bundle) -> None:
    with pytest.raises(BundleMismatch):
        between(BASE, target)


@pytest.mark.parametrize(
    "change",
    [
        {"domain": ""},
        {"base_seq": 0},
        {"base_seq": 42},
        {"base_seq": SEQ_MAX},
        {"base_fingerprint": bytes(31)},
        {"prev": bytes(32)},
        {"prev": None},
        {"seq": 41},
        {"seq": SEQ_MAX + 1},
        {"issued": -1},
        {"expires": DELTA.issued},
        {"expires": TIME_MAX + 1},
        {"keys_put": (KEY, KEY)},
        {"keys_put": [KEY]},
        {"keys_removed": (2, 2)},
        {"keys_removed": (3, 2)},
        {"keys_removed": (True,)},
        {"keys_removed": (100_000,)},
        {"keys_removed": (-1,)},
        {"keys_removed": tuple(range(10_001))},
        {"added": None},
        {"removed": None},
        {"publisher": PUBLIC},
        {"signature": bytes(63)},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_field_out_of_range_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(TrustMalformed):
        dataclasses.replace(DELTA, **change)


def test_limits_are_met() -> None:
    dataclasses.replace(DELTA, base_seq=1)
    dataclasses.replace(DELTA, base_seq=SEQ_MAX - 1, seq=SEQ_MAX, prev=DELTA.base_fingerprint)
    dataclasses.replace(DELTA, expires=TIME_MAX, keys_removed=tuple(range(10_000)))


WRONG_VALUES = (..., None, 2.0, "x", b"x", -1, 2**70, [None], {1: 1})


@pytest.mark.parametrize(
    ("field", "value"),
    # A domain "x" is a domain: that is refused at the base.
    [(field, value) for field in range(1, 15) for value in WRONG_VALUES if (field, value) not in ((2, "x"), (14, ...))],
    ids=repr,
)
def test_signed_payload_with_a_wrong_field_is_malformed(field: int, value: Any) -> None:
    content = cbor2.loads(DELTA.payload())
    if value is ...:
        del content[field]
    else:
        content[field] = value
    with pytest.raises(TrustMalformed):
        Delta.load(signed(DocumentType.DELTA, cbor2.dumps(content)), [PUBLISHER])


def test_signed_payload_with_an_unknown_field_is_malformed() -> None:
    content = cbor2.loads(DELTA.payload()) | {15: 0}
    with pytest.raises(TrustMalformed):
        Delta.load(signed(DocumentType.DELTA, cbor2.dumps(content)), [PUBLISHER])


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p + b"\x00",
        lambda p: b"\xb8\x0d" + p[1:],
        lambda p: cbor2.dumps(dict(reversed(cbor2.loads(p).items()))),
        lambda p: cbor2.dumps(cbor2.loads(p) | {14: DELTA.base_fingerprint}),  # what field 4 says already
        lambda p: b"",
        lambda p: b"\xf6",
    ],
)
def test_signed_payload_in_another_encoding_is_malformed(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(TrustMalformed):
        Delta.load(signed(DocumentType.DELTA, change(DELTA.payload())), [PUBLISHER])


def test_delta_of_another_publisher_is_untrusted() -> None:
    document = signed(DocumentType.DELTA, DELTA.payload())
    stranger = Signer(Algorithm.ED25519, PUBLIC)
    for publishers in ([], [stranger]):
        with pytest.raises(BundleUntrusted):
            Delta.load(document, publishers)


def test_delta_to_a_bundle_of_a_publisher_who_is_gone_is_untrusted() -> None:
    stranger = Signer(Algorithm.ED25519, PUBLIC)
    document = signed(DocumentType.DELTA, dataclasses.replace(DELTA, publisher=stranger).payload())
    with pytest.raises(BundleUntrusted, match="another publisher"):
        Delta.load(document, [PUBLISHER])
    assert Delta.load(document, [PUBLISHER, stranger]).publisher == stranger


def test_flipped_or_cut_delta_is_refused() -> None:
    document = signed(DocumentType.DELTA, DELTA.payload())
    for at in range(len(document)):
        flipped = bytearray(document)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((BundleUntrusted, TrustMalformed, TrustTruncated)):
            Delta.load(bytes(flipped), [PUBLISHER])
        with pytest.raises(TrustTruncated):
            Delta.load(document[:at], [PUBLISHER])


def test_a_bundle_is_no_delta_and_a_delta_no_bundle() -> None:
    with pytest.raises(TrustMalformed, match="not one document of the type"):
        Delta.load(published(TARGET), [PUBLISHER])
    with pytest.raises(TrustMalformed, match="not one document of the type"):
        Bundle.load(signed(DocumentType.DELTA, DELTA.payload()), [PUBLISHER])


@given(st.binary(max_size=300))
def test_no_signed_payload_raises_anything_but_our_errors(payload: bytes) -> None:
    with pytest.raises(TrustError):
        Delta.load(signed(DocumentType.DELTA, payload), [PUBLISHER])

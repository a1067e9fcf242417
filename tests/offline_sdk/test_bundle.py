import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from offline_sdk import (
    Algorithm,
    Bundle,
    BundleKey,
    BundleUntrusted,
    DocumentType,
    ItemSet,
    OrderRange,
    Revocations,
    RevokedItems,
    Signer,
    TrustMalformed,
    bundle,
    seal,
    to_be_signed,
)
from offline_sdk.errors import TrustError, TrustTruncated

GTIN = "06901234567892"
OTHER_GTIN = "09506000134352"
PUBLIC = bytes.fromhex("10091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122")
KEY = BundleKey(1, PUBLIC, "Fanxing Demo Dairy", ("690123456", "9506000"))
# The base point of P-256 (NIST SP 800-186, 3.2.1.3).
P256_PUBLIC = bytes.fromhex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
GOLDEN = Bundle(
    domain="demo.example",
    seq=42,
    issued=1_790_000_000,
    expires=1_792_592_000,
    keys=(
        KEY,
        BundleKey(7, P256_PUBLIC, "繁星示范", ("69012",), 1_780_000_000, 1_800_000_000, 1, 500, Algorithm.ESP256),
    ),
    revocations=Revocations(
        keys=(9,),
        orders=(OrderRange(GTIN, 3, 5),),
        items=(RevokedItems(GTIN, 1, ItemSet.of([160_391_752, 975_404_383])),),
    ),
    prev=bytes.fromhex("c0" * 32),
)
# The document of GOLDEN by the publisher whose private seed is the bytes 0 to 31. It may never change: scanners in the
# field must read tomorrow's bundles, and a bundle archived today must verify tomorrow. It is printed in
# docs/trust-bundle.md. A new version gets a new number and a new golden document beside this one.
GOLDEN_HEX = (
    "d2845839a301320378296170706c69636174696f6e2f766e642e66616e78696e672e74727573742d62756e646c652b63626f"
    "72044856475aa75463474ca0590124a80102026c64656d6f2e6578616d706c6503182a041a6ab13b80051a6ad8c8800682a7"
    "0101023203582010091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122047246616e78696e672044"
    "656d6f20446169727905826936393031323334353667393530363030300800091a0001869fa901070228035821036b17d1f2"
    "e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296046ce7b981e6989fe7a4bae88c830581653639303132"
    "061a6a18a500071a6b49d2000801091901f407a30181090281836e303639303132333435363738393203050381846e303639"
    "303132333435363738393201024848628ff9d537a211085820c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"
    "c0c0c0c0c0c0c058407d1412646a4c01205ae27fd0841ad8cd8418146aee7ae22e81b6c321a456d73be7ce0b9562c23cceba"
    "3586ea77267d27884a1f785206da5097c18fa7eb470f0d"
)
HEADER = {1: -19, 3: "application/vnd.fanxing.trust-bundle+cbor"}

Publish = Callable[[bytes], bytes]


def content_of(payload: bytes) -> dict[int, Any]:
    content: dict[int, Any] = cbor2.loads(payload)
    return content


def test_golden_document_is_written_and_read(publisher: Signer, publish: Publish) -> None:
    assert publish(GOLDEN.payload()).hex() == GOLDEN_HEX
    assert Bundle.load(bytes.fromhex(GOLDEN_HEX), [publisher]) == GOLDEN


def test_document_is_the_cose_sign1_of_the_standard(root: SigningKey, publisher: Signer) -> None:
    # Built here by RFC 9052 and a general encoder, apart from the code under test.
    tag = cbor2.loads(bytes.fromhex(GOLDEN_HEX))
    protected, unprotected, payload, signature = tag.value
    assert (tag.tag, unprotected) == (18, {})
    assert cbor2.loads(protected) == HEADER | {4: bytes.fromhex("56475aa75463474c")}
    root.verify_key.verify(cbor2.dumps(["Signature1", protected, b"", payload]), signature)
    assert cbor2.dumps(tag, canonical=True).hex() == GOLDEN_HEX
    assert to_be_signed(DocumentType.BUNDLE, payload, publisher) == cbor2.dumps(["Signature1", protected, b"", payload])


def test_flipping_any_bit_of_any_byte_is_refused(publisher: Signer) -> None:
    document = bytes.fromhex(GOLDEN_HEX)
    for at in range(len(document)):
        for bit in range(8):
            flipped = bytearray(document)
            flipped[at] ^= 1 << bit
            with pytest.raises((BundleUntrusted, TrustMalformed, TrustTruncated)):
                Bundle.load(bytes(flipped), [publisher])


def test_document_cut_off_anywhere_is_truncated(publisher: Signer) -> None:
    document = bytes.fromhex(GOLDEN_HEX)
    for end in range(len(document)):
        with pytest.raises(TrustTruncated):
            Bundle.load(document[:end], [publisher])


@pytest.mark.parametrize("change", [lambda d: b"\x00" + d, lambda d: d + b"\x00", lambda d: d + d])
def test_bytes_before_or_after_the_document_are_malformed(change: Callable[[bytes], bytes], publisher: Signer) -> None:
    with pytest.raises(TrustMalformed):
        Bundle.load(change(bytes.fromhex(GOLDEN_HEX)), [publisher])


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises((TrustMalformed, TrustTruncated)):
        Bundle.load(noise, [])


@pytest.mark.parametrize("type_", [DocumentType.DELTA, DocumentType.ROOT])
def test_document_of_another_type_is_malformed(type_: DocumentType, root: SigningKey, publisher: Signer) -> None:
    payload = GOLDEN.payload()
    signature = root.sign(to_be_signed(type_, payload, publisher)).signature
    with pytest.raises(TrustMalformed, match="not one document of the type"):
        Bundle.load(seal(type_, payload, {publisher: signature}), [publisher])


def test_bundle_of_another_publisher_is_untrusted(publisher: Signer) -> None:
    stranger = Signer(Algorithm.ED25519, bytes(SigningKey(bytes(range(1, 33))).verify_key))
    for publishers in ([stranger], []):
        with pytest.raises(BundleUntrusted):
            Bundle.load(bytes.fromhex(GOLDEN_HEX), publishers)
    assert Bundle.load(bytes.fromhex(GOLDEN_HEX), [stranger, publisher]) == GOLDEN


def test_signature_by_a_stranger_under_the_publishers_number_is_untrusted(publisher: Signer) -> None:
    stranger = SigningKey(bytes(range(1, 33)))
    payload = GOLDEN.payload()
    signature = stranger.sign(to_be_signed(DocumentType.BUNDLE, payload, publisher)).signature
    with pytest.raises(BundleUntrusted):
        Bundle.load(seal(DocumentType.BUNDLE, payload, {publisher: signature}), [publisher])


def test_signature_is_judged_before_the_payload_is_read(publisher: Signer) -> None:
    with pytest.raises(BundleUntrusted):
        Bundle.load(seal(DocumentType.BUNDLE, b"\xff not even CBOR", {publisher: bytes(64)}), [publisher])


FIVE = ItemSet.of([5]).packed()


def edit(**changes: Any) -> Callable[[dict[int, Any]], None]:
    """Change fields of the payload by path, as in edit(k6_0_1=…): content[6][0][1] = …; Ellipsis deletes."""

    def apply(content: dict[int, Any]) -> None:
        for path, value in changes.items():
            *parents, last = (int(step) for step in path[1:].split("_"))
            place: Any = content
            for step in parents:
                place = place[step]
            if value is ...:
                del place[last]
            else:
                place[last] = value

    return apply


@pytest.mark.parametrize(
    "change",
    [
        *[edit(**{f"k{field}": ...}) for field in range(1, 8)],
        *[edit(**{f"k6_0_{field}": ...}) for field in (1, 2, 3, 4, 5, 8, 9)],
        *[edit(**{f"k7_{field}": ...}) for field in (1, 2, 3)],
        edit(k8=...),
        *[edit(**{f"k{field}": None}) for field in range(1, 9)],
        *[edit(**{f"k6_1_{field}": None}) for field in range(1, 10)],
        *[edit(**{f"k7_{field}": None}) for field in (1, 2, 3)],
        edit(k8=bytes(31)),
        edit(k8="c0" * 32),
        edit(k9="unknown"),
        edit(k6_0_10="unknown"),
        edit(k7_4=[]),
        edit(k1=1),
        edit(k1=3),
        edit(k1=True),
        edit(k1=2.0),
        edit(k2=""),
        edit(k2=7),
        edit(k2=b"demo.example"),
        edit(k2="line\nbreak"),
        edit(k2="\x1b[2J"),
        edit(k3=0),
        edit(k3=1),
        edit(k3="42"),
        edit(k3=42.0),
        edit(k3=2**53),
        edit(k3=2**70),
        edit(k4=-1),
        edit(k4=True),
        edit(k5=1_790_000_000),
        edit(k5=253_402_300_800),
        edit(k6={}),
        edit(k6=[1]),
        edit(k6_0_1=7),
        edit(k6_0_1=8),
        edit(k6_0_1=100_000),
        edit(k6_0_2=-7),
        edit(k6_0_2=-8),
        edit(k6_0_2=-9),
        edit(k6_0_2=-19.0),
        edit(k6_0_2=[]),
        edit(k6_1_2=-19),
        edit(k6_0_2="EdDSA"),
        edit(k6_0_3=bytes(31)),
        edit(k6_0_3="00" * 32),
        edit(k6_0_4=7),
        edit(k6_0_5=[]),
        edit(k6_0_5="690"),
        edit(k6_0_5=["9506000", "690123456"]),
        edit(k6_0_5=["690", "690"]),
        edit(k6_0_5=["6901234567890"]),
        edit(k6_0_5=[""]),
        edit(k6_0_5=[690]),
        edit(k6_0_5=["٦"]),
        edit(k6_1_6=1_800_000_001),
        edit(k6_1_6=1.5),
        edit(k6_1_8=501),
        edit(k6_1_9=100_000),
        edit(k7_1=[9, 9]),
        edit(k7_1=[9, 8]),
        edit(k7_1=[100_000]),
        edit(k7_1=[-1]),
        edit(k7_1=[True]),
        edit(k7_2=[[GTIN, 3]]),
        edit(k7_2=[[GTIN, 5, 3]]),
        edit(k7_2=[[GTIN, 3, 5], [GTIN, 5, 6]]),
        edit(k7_2=[[GTIN, 3, 5], [GTIN, 1, 2]]),
        edit(k7_2=[[OTHER_GTIN, 3, 5], [GTIN, 3, 5]]),
        edit(k7_2=[["06901234567893", 3, 5]]),
        edit(k7_2=[GTIN]),
        edit(k7_3=[[GTIN, 1, 0, b""]]),
        edit(k7_3=[[GTIN, 1, 2]]),
        edit(k7_3=[[GTIN, 1, [5]]]),
        edit(k7_3=[[GTIN, 1, 1, FIVE, 0]]),
        edit(k7_3=[[GTIN, 1, 2, FIVE]]),
        edit(k7_3=[[GTIN, 1, True, FIVE]]),
        edit(k7_3=[[GTIN, 1, 1, FIVE.hex()]]),
        edit(k7_3=[[GTIN, 1, 1, FIVE + b"\x00"]]),
        edit(k7_3=[[GTIN, 1, 1, b"\xff" * 5]]),
        edit(k7_3=[[GTIN, 1, 1, FIVE], [GTIN, 1, 1, FIVE]]),
        edit(k7_3=[[GTIN, 2, 1, FIVE], [GTIN, 1, 1, FIVE]]),
        edit(k7_3=[[GTIN, 100_000, 1, FIVE]]),
        edit(k7_3=[["06901234567893", 1, 1, FIVE]]),
    ],
)
def test_signed_payload_with_a_wrong_field_is_malformed(
    change: Callable[[dict[int, Any]], None], publisher: Signer, publish: Publish
) -> None:
    content = content_of(GOLDEN.payload())
    change(content)
    with pytest.raises(TrustMalformed):
        Bundle.load(publish(cbor2.dumps(content)), [publisher])


def test_payload_left_as_it_was_is_accepted(publisher: Signer, publish: Publish) -> None:
    # The counterpart of the test above: it is the change that is refused there.
    assert Bundle.load(publish(cbor2.dumps(content_of(GOLDEN.payload()))), [publisher]) == GOLDEN


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p + b"\x00",
        lambda p: b"",
        lambda p: b"\xf6",
        lambda p: cbor2.dumps([]),
        lambda p: b"\x81" * 100_000,
        lambda p: b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        lambda p: b"\xc0\x61x",
        lambda p: b"\xd9\xd9\xf7" + p,  # a self-described CBOR tag around it
        lambda p: b"\xb8\x08" + p[1:],  # the map's length in two bytes
        lambda p: b"\xbf" + p[1:] + b"\xff",  # a map of indefinite length
        lambda p: p.replace(b"\xa8\x01\x02", b"\xa8\x01\x18\x02", 1),  # version 2 in two bytes
        lambda p: b"\xa9\x01\x02" + p[1:],  # the version twice
        lambda p: p.replace(b"\x03\x18\x2a", b"\x03\xc2\x41\x2a", 1),  # seq as a bignum
        lambda p: p.replace(b"\x03\x18\x2a", b"\x03\xfb" + bytes.fromhex("4045000000000000"), 1),  # seq as 42.0
        lambda p: p.replace(b"\x02\x6cdemo.example", b"\x02\x7f\x6cdemo.example\xff", 1),  # a text in chunks
        lambda p: p.replace(b"\x02\x6cdemo.example", b"\x02\x6c" + b"\xff" * 12, 1),  # a text that is not UTF-8
        lambda p: cbor2.dumps(dict(reversed(content_of(p).items()))),
        lambda p: cbor2.dumps(content_of(p) | {6: [dict(reversed(key.items())) for key in content_of(p)[6]]}),
        lambda p: cbor2.dumps(content_of(p) | {7: dict(reversed(content_of(p)[7].items()))}),
    ],
)
def test_signed_payload_in_another_encoding_is_malformed(
    change: Callable[[bytes], bytes], publisher: Signer, publish: Publish
) -> None:
    payload = GOLDEN.payload()
    changed = change(payload)
    assert changed != payload
    with pytest.raises(TrustMalformed):
        Bundle.load(publish(changed), [publisher])


@given(st.binary(max_size=200))
def test_no_payload_raises_anything_but_our_errors(payload: bytes) -> None:
    with pytest.raises(TrustError):
        Bundle.from_payload(payload)


# What a decoder makes of any CBOR, put in the place of any field.
cbor_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 12), inner, max_size=9),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.integers(0, 60), cbor_values), min_size=1, max_size=3))
def test_no_field_raises_anything_but_our_errors(changes: list[tuple[int, Any]]) -> None:
    content = content_of(GOLDEN.payload())
    for number, value in changes:
        places = list(places_in(content))
        parent, at = places[number % len(places)]
        parent[at] = value
    payload = cbor2.dumps(content)
    try:
        loaded = Bundle.from_payload(payload)
    except TrustError:
        return
    assert loaded.payload() == payload


def places_in(value: Any) -> Any:
    """Every (container, key or index) of a decoded payload."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for at, inner in list(steps):
        yield value, at
        yield from places_in(inner)


@pytest.mark.parametrize("payload_bytes", [0, 1, 22, 23, 24, 25, 255, 256, 65_535, 65_536])
def test_payload_of_any_length_is_taken_out_whole(payload_bytes: int, publisher: Signer, publish: Publish) -> None:
    # Each length gets past the envelope and the signature, and is refused only for not being a bundle.
    with pytest.raises(TrustMalformed, match="payload"):
        Bundle.load(publish(bytes(payload_bytes)), [publisher])


def key(**fields: Any) -> BundleKey:
    return dataclasses.replace(KEY, **fields)


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda n: key(kid=n), 99_999),
        (lambda n: key(issuer="x" * n), bundle.ISSUER_CHARS_MAX),
        (lambda n: key(gtin_prefixes=tuple(f"{i:04d}" for i in range(n))), bundle.GTIN_PREFIXES_MAX),
        (lambda n: key(gtin_prefixes=("1" * n,)), bundle.GTIN_PREFIX_DIGITS_MAX),
        (lambda n: key(not_before=n), bundle.TIME_MAX),
        (lambda n: key(not_after=n), bundle.TIME_MAX),
        (lambda n: key(order_min=n, order_max=max(n, 99_999)), 99_999),
        (lambda n: key(order_max=n), 99_999),
        (lambda n: dataclasses.replace(GOLDEN, domain="x" * n), bundle.DOMAIN_CHARS_MAX),
        (lambda n: dataclasses.replace(GOLDEN, seq=n), bundle.SEQ_MAX),
        (lambda n: dataclasses.replace(GOLDEN, expires=n), bundle.TIME_MAX),
        (lambda n: dataclasses.replace(GOLDEN, keys=tuple(key(kid=i) for i in range(n))), bundle.KEYS_MAX),
    ],
)
def test_limit_is_met_exactly(make: Callable[[int], object], limit: int) -> None:
    make(limit - 1)
    make(limit)
    with pytest.raises(TrustMalformed):
        make(limit + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: key(kid=-1),
        lambda: key(issuer="\ud800"),
        lambda: key(not_before=-1),
        lambda: key(not_before=5, not_after=4),
        lambda: key(order_min=5, order_max=4),
        lambda: key(gtin_prefixes=["690"]),
        lambda: key(public=bytearray(PUBLIC)),
        lambda: key(algorithm=Algorithm.ESP256),
        lambda: key(algorithm=-19),
        lambda: key(public=P256_PUBLIC),
        lambda: key(public=b"\x04" + P256_PUBLIC[1:], algorithm=Algorithm.ESP256),
        lambda: dataclasses.replace(GOLDEN, seq=0),
        lambda: dataclasses.replace(GOLDEN, seq=1),
        lambda: dataclasses.replace(GOLDEN, prev=None),
        lambda: dataclasses.replace(GOLDEN, prev=bytes(33)),
        lambda: dataclasses.replace(GOLDEN, keys=[KEY]),  # type: ignore[arg-type]
        lambda: dataclasses.replace(GOLDEN, keys=(KEY, KEY)),
        lambda: dataclasses.replace(GOLDEN, revocations=None),  # type: ignore[arg-type]
    ],
)
def test_field_out_of_range_is_malformed(make: Callable[[], object]) -> None:
    with pytest.raises(TrustMalformed):
        make()


def test_window_of_one_second_and_range_of_one_order_are_accepted() -> None:
    assert key(not_before=5, not_after=5, order_min=9, order_max=9).order_max == 9


def test_first_bundle_has_none_before_it(publisher: Signer, publish: Publish) -> None:
    first = dataclasses.replace(GOLDEN, seq=1, prev=None)
    assert Bundle.load(publish(first.payload()), [publisher]).prev is None


def test_next_bundle_names_the_fingerprint_of_the_one_before() -> None:
    assert GOLDEN.fingerprint == hashlib.sha256(GOLDEN.payload()).digest()
    following = dataclasses.replace(GOLDEN, seq=43, prev=GOLDEN.fingerprint)
    assert content_of(following.payload())[8] == hashlib.sha256(GOLDEN.payload()).digest()


def test_bundle_without_keys_is_a_bundle(publisher: Signer, publish: Publish) -> None:
    empty = Bundle("demo.example", 1, 0, 1, ())
    assert Bundle.load(publish(empty.payload()), [publisher]) == empty


def test_json_shows_every_field() -> None:
    assert GOLDEN.as_json() == {
        "seq": 42,
        "issued": "2026-09-21T14:13:20Z",
        "expires": "2026-10-21T14:13:20Z",
        "prev_hex": "c0" * 32,
        "domain": "demo.example",
        "keys": [
            {
                "kid": 1,
                "alg": "Ed25519",
                "public_hex": PUBLIC.hex(),
                "issuer": "Fanxing Demo Dairy",
                "gtin_prefixes": ["690123456", "9506000"],
                "not_before": None,
                "not_after": None,
                "order_min": 0,
                "order_max": 99_999,
            },
            {
                "kid": 7,
                "alg": "P-256",
                "public_hex": P256_PUBLIC.hex(),
                "issuer": "繁星示范",
                "gtin_prefixes": ["69012"],
                "not_before": "2026-05-28T20:26:40Z",
                "not_after": "2027-01-15T08:00:00Z",
                "order_min": 1,
                "order_max": 500,
            },
        ],
        "revocations": {
            "keys": [9],
            "orders": [{"gtin": GTIN, "order_min": 3, "order_max": 5}],
            "items": [{"gtin": GTIN, "order": 1, "items": [160_391_752, 975_404_383]}],
        },
    }


def test_documentation_prints_the_golden_document() -> None:
    page = (Path(__file__).parents[2] / "docs" / "trust-bundle.md").read_text("utf-8")
    assert GOLDEN_HEX in "".join(page.split())

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from offline_sdk import (
    Bundle,
    BundleKey,
    BundleMalformed,
    BundleUntrusted,
    OrderRange,
    Revocations,
    RevokedItems,
    VerifyError,
    bundle,
    format_root,
    read_root,
    revocation,
    seal,
    to_be_signed,
)

GTIN = "06901234567892"
OTHER_GTIN = "09506000134352"
PUBLIC = bytes.fromhex("10091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122")
KEY = BundleKey(1, PUBLIC, "Fanxing Demo Dairy", ("690123456", "9506000"))
GOLDEN = Bundle(
    domain="demo.example",
    seq=42,
    issued=1_790_000_000,
    expires=1_792_592_000,
    keys=(KEY, BundleKey(7, PUBLIC, "繁星示范", ("69012",), 1_780_000_000, 1_800_000_000, 1, 500)),
    revocations=Revocations(
        keys=(9,), orders=(OrderRange(GTIN, 3, 5),), items=(RevokedItems(GTIN, 1, (160_391_752, 975_404_383)),)
    ),
)
# The document of GOLDEN under the root whose private seed is the bytes 0 to 31. It may never change: scanners in the
# field must read tomorrow's bundles, and a bundle archived today must verify tomorrow. It is printed in
# docs/trust-bundle.md. A new version gets a new number and a new golden document beside this one.
GOLDEN_HEX = (
    "d2845839a301270378296170706c69636174696f6e2f766e642e66616e78696e672e74727573742d62756e646c652b63626f"
    "72044856475aa75463474ca0590101a70101026c64656d6f2e6578616d706c6503182a041a6ab13b80051a6ad8c8800682a7"
    "0101022703582010091cb3c34cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122047246616e78696e672044"
    "656d6f20446169727905826936393031323334353667393530363030300800091a0001869fa90107022703582010091cb3c3"
    "4cb12b700c62a34e1ac0e5e2c1d4e2eca9cbe93d20f518ae6d5122046ce7b981e6989fe7a4bae88c83058165363930313206"
    "1a6a18a500071a6b49d2000801091901f407a30181090281836e303639303132333435363738393203050381836e30363930"
    "3132333435363738393201821a098f62481a3a237d5f584018177c44f1c30472db3574b1d219475d3725202d6e7d8417c6f2"
    "e3d2e1e76ab4bf9cb9e4fa467e1962a3ab7136d7ad73ff080d0671abe6d2d9b21df6259edc0e"
)
HEADER = {1: -8, 3: "application/vnd.fanxing.trust-bundle+cbor"}

Publish = Callable[[bytes], bytes]


def content_of(payload: bytes) -> dict[int, Any]:
    content: dict[int, Any] = cbor2.loads(payload)
    return content


def test_golden_document_is_written_and_read(root_public: bytes, publish: Publish) -> None:
    assert publish(GOLDEN.payload()).hex() == GOLDEN_HEX
    assert Bundle.load(bytes.fromhex(GOLDEN_HEX), root_public) == GOLDEN


def test_document_is_the_cose_sign1_of_the_standard(root: SigningKey, root_public: bytes) -> None:
    # Built here by RFC 9052 and a general encoder, apart from the code under test.
    tag = cbor2.loads(bytes.fromhex(GOLDEN_HEX))
    protected, unprotected, payload, signature = tag.value
    assert (tag.tag, unprotected) == (18, {})
    assert cbor2.loads(protected) == HEADER | {4: bytes.fromhex("56475aa75463474c")}
    root.verify_key.verify(cbor2.dumps(["Signature1", protected, b"", payload]), signature)
    assert cbor2.dumps(tag, canonical=True).hex() == GOLDEN_HEX
    assert to_be_signed(payload, root_public) == cbor2.dumps(["Signature1", protected, b"", payload])


def test_flipping_any_bit_of_any_byte_is_refused(root_public: bytes) -> None:
    document = bytes.fromhex(GOLDEN_HEX)
    for at in range(len(document)):
        for bit in range(8):
            flipped = bytearray(document)
            flipped[at] ^= 1 << bit
            with pytest.raises((BundleUntrusted, BundleMalformed)):
                Bundle.load(bytes(flipped), root_public)


def test_cutting_off_or_adding_bytes_is_refused(root_public: bytes) -> None:
    document = bytes.fromhex(GOLDEN_HEX)
    for end in range(len(document)):
        with pytest.raises((BundleUntrusted, BundleMalformed)):
            Bundle.load(document[:end], root_public)
    for changed in (document + b"\x00", b"\x00" + document, document + document):
        with pytest.raises(BundleMalformed):
            Bundle.load(changed, root_public)


@given(st.binary(max_size=400))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(BundleMalformed):
        Bundle.load(noise, PUBLIC)


@pytest.mark.parametrize("document", [None, "", 7, bytearray(bytes.fromhex(GOLDEN_HEX)), []])
def test_anything_but_bytes_is_malformed(document: Any, root_public: bytes) -> None:
    with pytest.raises(BundleMalformed):
        Bundle.load(document, root_public)


def test_bundle_of_another_root_is_untrusted() -> None:
    stranger = bytes(SigningKey(bytes(range(1, 33))).verify_key)
    with pytest.raises(BundleUntrusted, match="another root"):
        Bundle.load(bytes.fromhex(GOLDEN_HEX), stranger)


def test_signature_by_a_stranger_under_the_roots_number_is_untrusted(root_public: bytes) -> None:
    stranger = SigningKey(bytes(range(1, 33)))
    forged = seal(GOLDEN.payload(), root_public, stranger.sign(to_be_signed(GOLDEN.payload(), root_public)).signature)
    with pytest.raises(BundleUntrusted, match="signature does not match"):
        Bundle.load(forged, root_public)


def test_signature_is_judged_before_the_payload_is_read(root_public: bytes) -> None:
    with pytest.raises(BundleUntrusted):
        Bundle.load(seal(b"\xff not even CBOR", root_public, bytes(64)), root_public)


@pytest.mark.parametrize("header", [{1: -7}, {3: "application/json"}, {1: -8, 3: HEADER[3]}, {5: 1}])
def test_document_with_another_protected_header_is_malformed(
    header: dict[int, Any], root: SigningKey, root_public: bytes
) -> None:
    kid = {} if header == HEADER else {4: bundle.root_kid(root_public)}
    protected = cbor2.dumps(HEADER | kid | header)
    payload = GOLDEN.payload()
    signature = root.sign(cbor2.dumps(["Signature1", protected, b"", payload])).signature
    document = cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature]))
    with pytest.raises(BundleMalformed):
        Bundle.load(document, root_public)


@pytest.mark.parametrize(
    "change",
    [
        lambda p, u, c, s: cbor2.dumps([p, u, c, s]),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(98, [p, u, c, s])),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(18, [p, {4: b"12345678"}, c, s])),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(18, [p, u, c, s, 0])),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(18, [p, u, c])),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(18, [p, u, None, s])),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(18, [p, u, c, s + b"\x00"])),
        lambda p, u, c, s: cbor2.dumps(cbor2.CBORTag(18, [p, u, c, s[:-1]])),
        lambda p, u, c, s: b"\xd8\x12" + cbor2.dumps([p, u, c, s]),
        lambda p, u, c, s: b"\xd2\x9f" + b"".join(map(cbor2.dumps, (p, u, c, s))) + b"\xff",
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x5a" + len(c).to_bytes(4, "big") + c + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x5f" + cbor2.dumps(c) + b"\xff" + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0" + cbor2.dumps(c) + b"\x59\x00\x40" + s,
    ],
)
def test_envelope_in_another_form_is_malformed(change: Callable[..., bytes], root_public: bytes) -> None:
    protected, unprotected, payload, signature = cbor2.loads(bytes.fromhex(GOLDEN_HEX)).value
    with pytest.raises(BundleMalformed):
        Bundle.load(change(protected, unprotected, payload, signature), root_public)


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
        *[edit(**{f"k{field}": None}) for field in range(1, 8)],
        *[edit(**{f"k6_1_{field}": None}) for field in range(1, 10)],
        *[edit(**{f"k7_{field}": None}) for field in (1, 2, 3)],
        edit(k8="unknown"),
        edit(k6_0_10="unknown"),
        edit(k7_4=[]),
        edit(k1=2),
        edit(k1=True),
        edit(k1=1.0),
        edit(k2=""),
        edit(k2=7),
        edit(k2=b"demo.example"),
        edit(k2="line\nbreak"),
        edit(k2="\x1b[2J"),
        edit(k3=0),
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
        edit(k7_3=[[GTIN, 1, []]]),
        edit(k7_3=[[GTIN, 1, [2, 1]]]),
        edit(k7_3=[[GTIN, 1, [1, 1]]]),
        edit(k7_3=[[GTIN, 1, [-1]]]),
        edit(k7_3=[[GTIN, 1, [10**9]]]),
        edit(k7_3=[[GTIN, 1, [True]]]),
        edit(k7_3=[[GTIN, 1, 5]]),
        edit(k7_3=[[GTIN, 1, [5]], [GTIN, 1, [6]]]),
        edit(k7_3=[[GTIN, 2, [5]], [GTIN, 1, [6]]]),
        edit(k7_3=[[GTIN, 100_000, [5]]]),
    ],
)
def test_signed_payload_with_a_wrong_field_is_malformed(
    change: Callable[[dict[int, Any]], None], root_public: bytes, publish: Publish
) -> None:
    content = content_of(GOLDEN.payload())
    change(content)
    with pytest.raises(BundleMalformed):
        Bundle.load(publish(cbor2.dumps(content)), root_public)


def test_payload_left_as_it_was_is_accepted(root_public: bytes, publish: Publish) -> None:
    # The counterpart of the test above: it is the change that is refused there.
    assert Bundle.load(publish(cbor2.dumps(content_of(GOLDEN.payload()))), root_public) == GOLDEN


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
        lambda p: b"\xb8\x07" + p[1:],  # the map's length in two bytes
        lambda p: b"\xbf" + p[1:] + b"\xff",  # a map of indefinite length
        lambda p: p.replace(b"\xa7\x01\x01", b"\xa7\x01\x18\x01", 1),  # version 1 in two bytes
        lambda p: b"\xa8\x01\x01" + p[1:],  # the version twice
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
    change: Callable[[bytes], bytes], root_public: bytes, publish: Publish
) -> None:
    payload = GOLDEN.payload()
    changed = change(payload)
    assert changed != payload
    with pytest.raises(BundleMalformed):
        Bundle.load(publish(changed), root_public)


@given(st.binary(max_size=200))
def test_no_signed_payload_raises_anything_but_our_errors(payload: bytes) -> None:
    root = SigningKey(bytes(range(32)))
    public = bytes(root.verify_key)
    document = seal(payload, public, root.sign(to_be_signed(payload, public)).signature)
    with pytest.raises(VerifyError):
        Bundle.load(document, public)


@pytest.mark.parametrize("payload_bytes", [0, 1, 22, 23, 24, 25, 255, 256, 65_535, 65_536])
def test_payload_of_any_length_is_taken_out_whole(payload_bytes: int, root_public: bytes, publish: Publish) -> None:
    # Each length gets past the envelope and the signature, and is refused only for not being a bundle.
    with pytest.raises(BundleMalformed, match="payload"):
        Bundle.load(publish(bytes(payload_bytes)), root_public)


def test_document_is_at_most_16_mib(root_public: bytes) -> None:
    overhead = len(seal(bytes(65_536), root_public, bytes(64))) - 65_536
    largest = seal(bytes(bundle.DOCUMENT_BYTES_MAX - overhead), root_public, bytes(64))
    assert len(largest) == bundle.DOCUMENT_BYTES_MAX
    with pytest.raises(BundleUntrusted):
        Bundle.load(largest, root_public)
    with pytest.raises(BundleMalformed, match="longer than"):
        Bundle.load(largest + b"\x00", root_public)
    with pytest.raises(BundleMalformed, match="longer than"):
        seal(bytes(bundle.DOCUMENT_BYTES_MAX - overhead + 1), root_public, bytes(64))


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
        (lambda n: Revocations(keys=tuple(range(n))), revocation.REVOKED_KEYS_MAX),
        (lambda n: Revocations(items=(RevokedItems(GTIN, 1, tuple(range(n))),)), revocation.REVOKED_ITEMS_MAX),
        (
            lambda n: Revocations(
                items=(RevokedItems(GTIN, 1, tuple(range(n - 5))), RevokedItems(GTIN, 2, (1, 2, 3, 4, 5)))
            ),
            revocation.REVOKED_ITEMS_MAX,
        ),
        (lambda n: RevokedItems(GTIN, n, (1,)), 99_999),
        (lambda n: RevokedItems(GTIN, 1, (n,)), 999_999_999),
        (lambda n: OrderRange(GTIN, 0, n), 99_999),
    ],
)
def test_limit_is_met_exactly(make: Callable[[int], object], limit: int) -> None:
    make(limit - 1)
    make(limit)
    with pytest.raises(BundleMalformed):
        make(limit + 1)


def test_revoked_order_ranges_are_at_most_100_000() -> None:
    # One GTIN has only 100,000 order numbers, so a second one is needed to pass the limit.
    spans = [OrderRange(GTIN, order, order) for order in range(100_000)]
    Revocations(orders=tuple(spans))
    with pytest.raises(BundleMalformed):
        Revocations(orders=(*spans, OrderRange(OTHER_GTIN, 0, 0)))


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
        lambda: dataclasses.replace(GOLDEN, seq=0),
        lambda: dataclasses.replace(GOLDEN, keys=[KEY]),  # type: ignore[arg-type]
        lambda: dataclasses.replace(GOLDEN, keys=(KEY, KEY)),
        lambda: dataclasses.replace(GOLDEN, revocations=None),  # type: ignore[arg-type]
    ],
)
def test_field_out_of_range_is_malformed(make: Callable[[], object]) -> None:
    with pytest.raises(BundleMalformed):
        make()


def test_window_of_one_second_and_range_of_one_order_are_accepted() -> None:
    assert key(not_before=5, not_after=5, order_min=9, order_max=9).order_max == 9


# The points of small order and their non-canonical encodings ("Taming the many EdDSAs", 2020, table 1), and y = p + 2.
UNSAFE_KEYS = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "efffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("public_hex", UNSAFE_KEYS)
def test_unsafe_public_key_is_refused_as_key_and_as_root(public_hex: str) -> None:
    public = bytes.fromhex(public_hex)
    with pytest.raises(BundleMalformed, match="small order"):
        key(public=public)
    with pytest.raises(BundleUntrusted):
        Bundle.load(bytes.fromhex(GOLDEN_HEX), public)
    with pytest.raises(BundleUntrusted):
        read_root(public_hex.encode() + b"\n")
    with pytest.raises(BundleUntrusted):
        format_root(public)


@pytest.mark.parametrize("root", [None, b"", bytes(31), PUBLIC.hex(), bytearray(PUBLIC)])
def test_root_that_is_not_32_bytes_is_untrusted(root: Any) -> None:
    with pytest.raises(BundleUntrusted):
        Bundle.load(bytes.fromhex(GOLDEN_HEX), root)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65), None])
def test_sealing_needs_a_signature_of_64_bytes(signature: Any, root_public: bytes) -> None:
    with pytest.raises(BundleMalformed):
        seal(GOLDEN.payload(), root_public, signature)


def test_root_file_is_written_and_read(root_public: bytes) -> None:
    content = format_root(root_public)
    # Never change: root files are kept by hand and on paper.
    assert content == b"03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8\n"
    assert read_root(content) == root_public


@pytest.mark.parametrize(
    "change",
    [
        lambda c: b"",
        lambda c: c[:-1],
        lambda c: c + b"\n",
        lambda c: c[:-1] + b"\r\n",
        lambda c: c.upper(),
        lambda c: b" " + c,
        lambda c: b"0" + c,
        lambda c: c[1:],
        lambda c: b"0x" + c[2:],
        lambda c: b"\xef\xbb\xbf" + c,
        lambda c: c.decode(),
        lambda c: None,
    ],
)
def test_root_file_in_another_form_is_untrusted(change: Callable[[bytes], Any], root_public: bytes) -> None:
    with pytest.raises(BundleUntrusted):
        read_root(change(format_root(root_public)))


def test_collecting_revocations_sorts_merges_and_deduplicates() -> None:
    collected = Revocations.collect(
        keys=[9, 3, 9],
        orders=[(OTHER_GTIN, 1, 1), (GTIN, 7, 9), (GTIN, 1, 3), (GTIN, 2, 5), (GTIN, 6, 6), (GTIN, 20, 20)],
        items=[(GTIN, 2, 5), (GTIN, 1, 9), (GTIN, 1, 3), (GTIN, 1, 9), (OTHER_GTIN, 1, 0)],
    )
    assert collected == Revocations(
        keys=(3, 9),
        orders=(OrderRange(GTIN, 1, 9), OrderRange(GTIN, 20, 20), OrderRange(OTHER_GTIN, 1, 1)),
        items=(RevokedItems(GTIN, 1, (3, 9)), RevokedItems(GTIN, 2, (5,)), RevokedItems(OTHER_GTIN, 1, (0,))),
    )


def test_bundle_without_keys_is_a_bundle(root_public: bytes, publish: Publish) -> None:
    empty = Bundle("demo.example", 1, 0, 1, ())
    assert Bundle.load(publish(empty.payload()), root_public) == empty


def test_json_shows_every_field() -> None:
    assert GOLDEN.as_json() == {
        "seq": 42,
        "issued": "2026-09-21T14:13:20Z",
        "expires": "2026-10-21T14:13:20Z",
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
                "alg": "Ed25519",
                "public_hex": PUBLIC.hex(),
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

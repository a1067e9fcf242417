from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from offline_sdk import Algorithm, DocumentType, Signer, TrustMalformed, cose, seal, to_be_signed
from offline_sdk.cose import Envelope, countersign, read, right_signers
from offline_sdk.errors import TrustTruncated
from offline_sdk.p256 import P256_ORDER

PRIVATE = [SigningKey(bytes([number] * 32)) for number in range(30)]
SIGNERS = [Signer(Algorithm.ED25519, bytes(private.verify_key)) for private in PRIVATE]
P256 = ec.derive_private_key(20_260_501, ec.SECP256R1())
P256_SIGNER = Signer(Algorithm.ESP256, P256.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
BUNDLE, DELTA, ROOT = DocumentType.BUNDLE, DocumentType.DELTA, DocumentType.ROOT


def sign(number: int, type_: DocumentType, payload: bytes) -> bytes:
    signature: bytes = PRIVATE[number].sign(to_be_signed(type_, payload, SIGNERS[number])).signature
    return signature


def sign_p256(type_: DocumentType, payload: bytes) -> bytes:
    r, s = decode_dss_signature(P256.sign(to_be_signed(type_, payload, P256_SIGNER), ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def document(type_: DocumentType, payload: bytes, *numbers: int) -> bytes:
    return seal(type_, payload, {SIGNERS[number]: sign(number, type_, payload) for number in numbers})


def one(content: bytes) -> Envelope:
    (envelope,) = read(content)
    return envelope


FILE = document(ROOT, b"root", 1, 2) + document(BUNDLE, b"bundle", 3) + document(DELTA, b"delta", 3)


def test_documents_are_read_in_their_order() -> None:
    documents = read(FILE)
    assert [(each.type, each.payload) for each in documents] == [
        (ROOT, b"root"),
        (BUNDLE, b"bundle"),
        (DELTA, b"delta"),
    ]
    assert b"".join(each.raw for each in documents) == FILE
    assert [right_signers(each, SIGNERS) for each in documents] == [
        {SIGNERS[1], SIGNERS[2]},
        {SIGNERS[3]},
        {SIGNERS[3]},
    ]


def test_root_document_is_the_cose_sign_of_the_standard() -> None:
    # Built here by RFC 9052 and a general encoder, apart from the code under test.
    content = seal(ROOT, b"root", {SIGNERS[1]: sign(1, ROOT, b"root"), P256_SIGNER: sign_p256(ROOT, b"root")})
    tag = cbor2.loads(content)
    protected, unprotected, payload, signatures = tag.value
    assert (tag.tag, unprotected, payload) == (98, {}, b"root")
    assert cbor2.loads(protected) == {3: "application/vnd.fanxing.trust-root+cbor"}
    told = [(cbor2.loads(header), empty, len(signature)) for header, empty, signature in signatures]
    signers = sorted([SIGNERS[1], P256_SIGNER], key=lambda signer: signer.kid)
    assert told == [({1: int(signer.algorithm), 4: signer.kid}, {}, 64) for signer in signers]
    assert cbor2.dumps(tag, canonical=True) == content
    header = signatures[signers.index(SIGNERS[1])][0]
    assert to_be_signed(ROOT, b"root", SIGNERS[1]) == cbor2.dumps(["Signature", protected, header, b"", b"root"])


@pytest.mark.parametrize("type_", list(DocumentType))
def test_p256_signs_every_type(type_: DocumentType) -> None:
    envelope = one(seal(type_, b"content", {P256_SIGNER: sign_p256(type_, b"content")}))
    assert right_signers(envelope, [*SIGNERS, P256_SIGNER]) == {P256_SIGNER}
    assert right_signers(envelope, SIGNERS) == frozenset()


@pytest.mark.parametrize("type_", list(DocumentType))
@pytest.mark.parametrize("other", list(DocumentType))
def test_signature_counts_for_its_own_type_alone(type_: DocumentType, other: DocumentType) -> None:
    envelope = one(seal(other, b"content", {SIGNERS[1]: sign(1, type_, b"content")}))
    assert right_signers(envelope, SIGNERS) == ({SIGNERS[1]} if other is type_ else set())


@given(st.integers(0, len(FILE) * 8 - 1))
def test_flipped_bit_is_malformed_truncated_or_signed_by_fewer(bit: int) -> None:
    flipped = bytearray(FILE)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        documents = read(bytes(flipped))
    except (TrustMalformed, TrustTruncated):
        return
    assert sum(len(right_signers(each, SIGNERS)) for each in documents) < 4


def test_file_cut_off_between_documents_has_fewer_and_within_one_is_truncated() -> None:
    ends = [len(FILE), *(FILE.index(each.raw) for each in read(FILE))]
    for end in range(len(FILE)):
        if end in ends and end:
            assert len(read(FILE[:end])) < 3
        else:
            with pytest.raises(TrustTruncated):
                read(FILE[:end])


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises((TrustMalformed, TrustTruncated)):
        read(noise)


@pytest.mark.parametrize("content", [None, "", 7, bytearray(FILE), []], ids=["none", "text", "int", "array", "list"])
def test_anything_but_bytes_is_malformed(content: Any) -> None:
    with pytest.raises(TrustMalformed):
        read(content)


BUNDLE_PARTS = cbor2.loads(document(BUNDLE, b"bundle", 3)).value
ROOT_PARTS = cbor2.loads(document(ROOT, b"root", 1, 2)).value


def cose_sign1(*parts: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(18, list(parts)))


def cose_sign(*parts: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(98, list(parts)))


@pytest.mark.parametrize(
    "change",
    [
        lambda p, u, c, s: cbor2.dumps([p, u, c, s]),
        lambda *parts: cbor2.dumps(cbor2.CBORTag(98, list(parts))),
        lambda p, u, c, s: cose_sign1(p, {4: b"12345678"}, c, s),
        lambda p, u, c, s: cose_sign1(p, u, c, s, 0),
        lambda p, u, c, s: cose_sign1(p, u, c),
        lambda p, u, c, s: cose_sign1(p, u, None, s),
        lambda p, u, c, s: cose_sign1(p, u, "bundle", s),
        lambda p, u, c, s: cose_sign1(p, u, c, s + b"\x00"),
        lambda p, u, c, s: cose_sign1(p, u, c, s[:-1]),
        lambda p, u, c, s: cose_sign1({}, u, c, s),
        lambda p, u, c, s: cose_sign1(b"", u, c, s),
        lambda p, u, c, s: cose_sign1(p[:-1], u, c, s),
        lambda p, u, c, s: cose_sign1(p + b"\x00", u, c, s),
        *(
            lambda p, u, c, s, header=header: cose_sign1(cbor2.dumps(cbor2.loads(p) | header), u, c, s)
            for header in ({1: -7}, {1: -8}, {3: "application/json"}, {3: str(ROOT)}, {5: 1}, {4: "12345678"})
        ),
        lambda p, u, c, s: cose_sign1(cbor2.dumps(dict(reversed(cbor2.loads(p).items()))), u, c, s),
        lambda p, u, c, s: b"\xd8\x12" + cbor2.dumps([p, u, c, s]),
        lambda p, u, c, s: b"\xd2\x9f" + b"".join(map(cbor2.dumps, (p, u, c, s))) + b"\xff",
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x5a" + bytes([0, 0, 0, len(c)]) + c + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x5b" + bytes([0] * 7 + [len(c)]) + c + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x58" + bytes([len(c)]) + c + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x5f" + cbor2.dumps(c) + b"\xff" + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0\x5c" + c + cbor2.dumps(s),
        lambda p, u, c, s: b"\xd2\x84" + cbor2.dumps(p) + b"\xa0" + cbor2.dumps(c) + b"\x59\x00\x40" + s,
    ],
)
def test_bundle_in_another_form_is_malformed(change: Callable[..., bytes]) -> None:
    assert cose_sign1(*BUNDLE_PARTS) == document(BUNDLE, b"bundle", 3)
    with pytest.raises(TrustMalformed):
        read(change(*BUNDLE_PARTS))


@pytest.mark.parametrize(
    "change",
    [
        lambda p, u, c, s: cose_sign1(p, u, c, s[0][2]),
        lambda p, u, c, s: cose_sign(p, {4: b"12345678"}, c, s),
        lambda p, u, c, s: cose_sign(b"", u, c, s),
        lambda p, u, c, s: cose_sign(cbor2.dumps({3: str(BUNDLE)}), u, c, s),
        lambda p, u, c, s: cose_sign(p, u, c, s[::-1]),
        lambda p, u, c, s: cose_sign(p, u, c, [s[0], s[0]]),
        lambda p, u, c, s: cose_sign(p, u, c, {}),
        lambda p, u, c, s: cose_sign(p, u, c, [s[0][:2], s[1]]),
        lambda p, u, c, s: cose_sign(p, u, c, [[s[0][0], {1: 1}, s[0][2]], s[1]]),
        lambda p, u, c, s: cose_sign(p, u, c, [[s[0][0], {}, s[0][2][:-1]], s[1]]),
        lambda p, u, c, s: cose_sign(p, u, c, [[cbor2.dumps(cbor2.loads(s[0][0]) | {1: -8}), {}, s[0][2]], s[1]]),
        lambda p, u, c, s: cose_sign(p, u, c, [[s[0][0][:-1], {}, s[0][2]], s[1]]),
    ],
)
def test_root_document_in_another_form_is_malformed(change: Callable[..., bytes]) -> None:
    assert cose_sign(*ROOT_PARTS) == document(ROOT, b"root", 1, 2)
    with pytest.raises(TrustMalformed):
        read(change(*ROOT_PARTS))


@pytest.mark.parametrize("payload_bytes", [0, 1, 22, 23, 24, 25, 255, 256, 65_535, 65_536])
def test_payload_of_any_length_is_taken_out_whole(payload_bytes: int) -> None:
    payload = bytes(payload_bytes)
    envelope = one(document(BUNDLE, payload, 3))
    assert envelope.payload == payload
    assert right_signers(envelope, SIGNERS) == {SIGNERS[3]}


def test_root_document_has_up_to_23_signatures() -> None:
    assert right_signers(one(document(ROOT, b"root")), SIGNERS) == frozenset()
    for count in (22, 23):
        assert len(right_signers(one(document(ROOT, b"root", *range(count))), SIGNERS)) == count
    with pytest.raises(TrustMalformed, match="at most 23"):
        document(ROOT, b"root", *range(24))
    parts = [cbor2.loads(document(ROOT, b"root", number)).value[3][0] for number in range(24)]
    with pytest.raises(TrustMalformed, match="0 to 23"):
        read(cose_sign(*ROOT_PARTS[:3], parts))


def test_countersigning_adds_a_signature_or_replaces_the_signers_own() -> None:
    envelope = one(document(ROOT, b"root", 1))
    both = one(countersign(envelope, SIGNERS[2], sign(2, ROOT, b"root")))
    assert both.raw == document(ROOT, b"root", 1, 2)
    spoilt = one(countersign(both, SIGNERS[1], bytes(64)))
    assert right_signers(spoilt, SIGNERS) == {SIGNERS[2]}
    assert countersign(spoilt, SIGNERS[1], sign(1, ROOT, b"root")) == both.raw
    with pytest.raises(TrustMalformed):
        countersign(envelope, SIGNERS[2], bytes(63))


def test_document_has_at_most_16_mib() -> None:
    room = cose.DOCUMENT_BYTES_MAX - (len(document(BUNDLE, bytes(65_536), 3)) - 65_536)
    for less in (1, 0):
        content = seal(BUNDLE, bytes(room - less), {SIGNERS[3]: bytes(64)})
        assert len(content) == cose.DOCUMENT_BYTES_MAX - less
        assert len(one(content).payload) == room - less
    with pytest.raises(TrustMalformed, match="at most 16777216 bytes"):
        seal(BUNDLE, bytes(room + 1), {SIGNERS[3]: bytes(64)})
    longer = content.replace(b"\x5a" + room.to_bytes(4, "big"), b"\x5a" + (room + 1).to_bytes(4, "big") + b"\0", 1)
    with pytest.raises(TrustMalformed, match="at most 16777216 bytes"):
        read(longer)


def test_file_has_at_most_64_mib_and_10_000_documents() -> None:
    small = document(BUNDLE, b"", 3)
    for count in (cose.DOCUMENTS_MAX - 1, cose.DOCUMENTS_MAX):
        assert len(read(small * count)) == count
    with pytest.raises(TrustMalformed, match="at most 10000 documents"):
        read(small * (cose.DOCUMENTS_MAX + 1))
    with pytest.raises(TrustMalformed, match="it does not begin"):
        read(bytes(cose.TRUST_FILE_BYTES_MAX))
    with pytest.raises(TrustMalformed, match="at most 67108864 bytes"):
        read(bytes(cose.TRUST_FILE_BYTES_MAX + 1))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65), None, "00" * 64], ids=repr)
@pytest.mark.parametrize("type_", list(DocumentType))
def test_sealing_needs_signatures_of_64_bytes(type_: DocumentType, signature: Any) -> None:
    with pytest.raises(TrustMalformed):
        seal(type_, b"content", {SIGNERS[1]: signature})


@pytest.mark.parametrize("type_", [BUNDLE, DELTA])
def test_bundle_and_delta_have_one_signature(type_: DocumentType) -> None:
    for signatures in ({}, {SIGNERS[1]: bytes(64), SIGNERS[2]: bytes(64)}):
        with pytest.raises(TrustMalformed):
            seal(type_, b"content", signatures)


@pytest.mark.parametrize("public", [b"", bytes(32), bytes(31), P256_SIGNER.public, None], ids=repr)
def test_signer_has_a_safe_key(public: Any) -> None:
    with pytest.raises(TrustMalformed):
        Signer(Algorithm.ED25519, public)


def test_signer_has_a_registered_algorithm() -> None:
    with pytest.raises(TrustMalformed):
        Signer(-19, SIGNERS[1].public)  # type: ignore[arg-type]

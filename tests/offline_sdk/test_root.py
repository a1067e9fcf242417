import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import cbor2
import pytest

from offline_sdk import Algorithm, Root, Signer, cose, follow, format_pin, read_pin
from offline_sdk.cose import SIGNATURES_MAX
from offline_sdk.errors import BundleMismatch, ForeignRoot, ThresholdMissed, TrustMalformed
from offline_sdk.root import PUBLISHERS_MAX, ROOT_KEYS_MAX, ROOT_VERSION_MAX
from tests.offline_sdk.trust_domain import ISSUED, root, root_document, signer, signers

ROOT = root()
P256_GENERATOR = bytes.fromhex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")


def read(*documents: bytes) -> tuple[cose.Envelope, ...]:
    return cose.read(b"".join(documents))


def test_payload_is_pinned_to_the_byte() -> None:
    # Never change this: devices hold its fingerprint. docs/trust-root.md shows it.
    one = root(keys="a", threshold=1, publishers="p")
    assert one.payload().hex() == (
        "a801020" "26c64656d6f2e6578616d706c650301041a6ab13b80051a6c926f00"
        f"068182325820{signer('a').public.hex()}0701088182325820{signer('p').public.hex()}"
    )  # fmt: skip
    assert one.fingerprint == hashlib.sha256(one.payload()).digest()


def test_worked_example_of_the_document_is_this_one() -> None:
    document = root_document(root(keys="a", threshold=1, publishers="p"), "a")
    text = (Path(__file__).parents[2] / "docs" / "trust-root.md").read_text("utf-8")
    assert document.hex() in re.sub(r"\s", "", text)


@pytest.mark.parametrize(
    "domain", ["a", "~", "\xa1", "\xae", "繁星", "\u2010", "\u2030", "\u2070", "\ufefe", "\U0001fae9", "\U000e0100"]
)
def test_name_holds_what_can_be_shown_whatever_the_unicode_version(domain: str) -> None:
    assert Root.from_payload(root(domain=domain).payload()).domain == domain


@pytest.mark.parametrize(
    "character",
    [
        *"\0\n\x1f\x7f\x9f\xa0\xad\u061c\u1680\u180e\u2000\u200b\u200f\u2028\u202e\u202f\u205f\u206f\u3000",
        *"\ue000\uf8ff\ufeff\ufff9\ufffb\ufffe\uffff\U000e0000\U000e00ff\U000f0000\U0010ffff",
    ],
    ids=ascii,
)
def test_name_holds_nothing_that_hides_turns_or_breaks_a_line(character: str) -> None:
    with pytest.raises(TrustMalformed, match="printable"):
        root(domain=f"a{character}b")


def test_payload_is_read_back() -> None:
    mixed = dataclasses.replace(
        ROOT,
        publishers=tuple(sorted((signer("p"), Signer(Algorithm.ESP256, P256_GENERATOR)), key=lambda one: one.kid)),
    )
    for one in (ROOT, mixed, root(version=ROOT_VERSION_MAX)):
        assert Root.from_payload(one.payload()) == one


@pytest.mark.parametrize(
    "fields",
    [
        {"domain": ""},
        {"domain": "\n"},
        {"version": 0},
        {"version": ROOT_VERSION_MAX + 1},
        {"version": True},
        {"issued": -1},
        {"expires": ISSUED},
        {"threshold": 0},
        {"threshold": 4},
        {"keys": ()},
        {"publishers": ()},
        {"keys": (signer("a"), signer("a"))},
        {"keys": tuple(reversed(signers("abc")))},
        {"publishers": list(signers("pq"))},
        {"publishers": tuple(reversed(signers("pq")))},
    ],
    ids=str,
)
def test_field_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TrustMalformed):
        dataclasses.replace(ROOT, **fields)


def test_number_of_keys_and_publishers_at_and_above_its_limit() -> None:
    many = signers([f"key {number}" for number in range(PUBLISHERS_MAX + 1)])
    assert (ROOT_KEYS_MAX, PUBLISHERS_MAX) == (11, 16)
    assert 2 * ROOT_KEYS_MAX <= SIGNATURES_MAX
    full = dataclasses.replace(ROOT, keys=many[:11], threshold=11, publishers=many[:16])
    assert Root.from_payload(full.payload()) == full
    for fields in ({"keys": many[:12]}, {"publishers": many}, {"keys": many[:11], "threshold": 12}):
        with pytest.raises(TrustMalformed):
            dataclasses.replace(ROOT, **fields)


@pytest.mark.parametrize(
    "change",
    [
        {1: 1},
        {1: 3},
        {9: 0},
        {2: None},
        {6: {}},
        {6: [[-8, signer("a").public]]},
        {6: [[True, signer("a").public]]},
        {6: [[-19, signer("a").public, 0]]},
        {6: [[-19, bytes(32)]]},
        {6: [[-19, "a"]]},
        {6: [[-9, signer("a").public]]},
        {8: [signer("a").public]},
    ],
    ids=lambda change: str(change)[:20],
)
def test_payload_of_another_form_is_refused(change: dict[int, Any]) -> None:
    with pytest.raises(TrustMalformed):
        Root.from_payload(cbor2.dumps(cbor2.loads(ROOT.payload()) | change))


def test_payload_has_one_encoding() -> None:
    payload = ROOT.payload()
    content = cbor2.loads(payload)
    del content[8]
    for other in (payload + b"\x00", b"", b"\xff", b"\xb8\x08" + payload[1:], cbor2.dumps(content), cbor2.dumps([])):
        with pytest.raises(TrustMalformed):
            Root.from_payload(other)


def test_pin_is_one_line_of_lower_case_hex() -> None:
    line = format_pin(ROOT.fingerprint)
    assert (len(line), read_pin(line)) == (65, ROOT.fingerprint)
    for wrong in (
        b"",
        line[:-1],
        line + b"\n",
        line.upper(),
        line[:-1] + b"\r\n",
        b" " + line,
        line[1:],
        line.decode(),
    ):
        with pytest.raises(ForeignRoot):
            read_pin(wrong)  # type: ignore[arg-type]
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ForeignRoot):
            format_pin(wrong)


def chain() -> list[bytes]:
    """Four versions in which keys, threshold and publishers all change."""
    return [
        root_document(ROOT),
        root_document(root(2, keys="a b d", threshold=3), "a b d"),
        root_document(root(3, keys="d e", threshold=1, publishers="r"), "a b d"),
        root_document(root(4, keys="e f", threshold=2, publishers="r"), "d e f"),
    ]


def test_chain_is_followed_from_whichever_version_is_pinned() -> None:
    documents = read(*chain())
    for pinned in documents:
        last = follow(documents, hashlib.sha256(pinned.payload).digest())
        assert (last.version, last.threshold) == (4, 2)


def test_chain_is_followed_from_what_is_held() -> None:
    documents = read(*chain())
    second = follow(documents[:2], ROOT.fingerprint)
    for offered in (documents, documents[1:], documents[2:]):
        assert follow(offered, ROOT.fingerprint, second).version == 4
    for offered in (documents[:2], documents[:1], documents[1:2], ()):
        assert follow(offered, ROOT.fingerprint, second) == second


def test_document_that_was_taken_is_passed_over_unread() -> None:
    first, second, *_ = chain()
    [envelope] = cose.read(second)
    forged = cose.seal(cose.DocumentType.ROOT, envelope.payload, {signer("a"): bytes(64)})
    assert follow(read(first, second, forged), ROOT.fingerprint).version == 2
    with pytest.raises(ForeignRoot):
        follow(read(first, forged, second), ROOT.fingerprint)


def test_same_document_twice_is_one() -> None:
    first, second, *_ = chain()
    assert follow(read(first, first, second, second), ROOT.fingerprint).version == 2


def test_threshold_below_at_and_above() -> None:
    first = root_document(ROOT, "a b")
    wanted = root(2, keys="x y z")
    for by in ("a b x y", "a b c x y", "a b x y z"):
        assert follow(read(first, root_document(wanted, by)), ROOT.fingerprint).version == 2
    for by in ("a x y", "a b x"):
        with pytest.raises(ThresholdMissed):
            follow(read(first, root_document(wanted, by)), ROOT.fingerprint)
    for by in ("x y z", "p q"):
        with pytest.raises(ForeignRoot):
            follow(read(first, root_document(wanted, by)), ROOT.fingerprint)


def test_payload_is_not_read_before_someone_known_vouches_for_it() -> None:
    noise = cose.seal(cose.DocumentType.ROOT, b"\xff noise", {signer("a"): bytes(64)})
    with pytest.raises(ForeignRoot):
        follow(read(root_document(ROOT), noise), ROOT.fingerprint)


def test_wrong_or_strange_signature_beside_enough_right_ones_is_refused() -> None:
    first, second = root_document(ROOT), root_document(root(2), "a b c")
    broken = second[:-1] + bytes([second[-1] ^ 1])
    for documents in (
        read(first, broken),
        read(root_document(ROOT, "a b x")),
        read(first, root_document(root(2), "a b x")),
    ):
        with pytest.raises(TrustMalformed):
            follow(documents, ROOT.fingerprint)


def test_pinned_version_above_1_may_bear_signatures_of_the_unknown_keys_before_it() -> None:
    second = root(2, keys="x y", publishers="p")
    assert follow(read(root_document(second, "a b x y")), second.fingerprint) == second


def test_no_root_document_or_not_the_pinned_one() -> None:
    with pytest.raises(ForeignRoot):
        follow((), ROOT.fingerprint)
    with pytest.raises(ForeignRoot):
        follow(read(*chain()), bytes(32))


def test_other_domain_gap_and_fork() -> None:
    first = root_document(ROOT)
    with pytest.raises(BundleMismatch):
        follow(read(first, root_document(root(2, domain="other.example"))), ROOT.fingerprint)
    with pytest.raises(ForeignRoot, match="missing"):
        follow(read(first, root_document(root(3))), ROOT.fingerprint)
    with pytest.raises(BundleMismatch, match="two histories"):
        follow(read(first, root_document(root(1, publishers="x"))), ROOT.fingerprint)

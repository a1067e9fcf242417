"""The published vectors: each case from its JSON alone, its stages by general libraries, its verdict by the SDK."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from struct import pack
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from offline_sdk import (
    Action,
    Algorithm,
    Bundle,
    CodeText,
    Delta,
    ItemSet,
    Policy,
    Signer,
    TrustError,
    TrustStore,
    Verifier,
)
from offline_sdk.revocation import RevocationIndex
from offline_sdk.trust_store import Memory
from tests.fuzz.code_texts import base_is_right
from tests.offline_sdk import make_vectors, plain_json

FOLDER = make_vectors.FOLDER
VECTORS = {str(path.relative_to(FOLDER).with_suffix("")): path for path in sorted(FOLDER.glob("*/*.json"))}
BYTES_MAX = 1_500_000
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# The rules of docs/code-text.md once more, from scratch.
PATH = re.compile(r"/([12])([0-9]{5})([0-9]{155})/01/([0-9]{14})/21/([0-9]{5})([0-9]{9})", re.ASCII)


_Y_OF_ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
SMALL_ORDER_R = {
    bytes.fromhex(text)
    for text in (
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "00" * 32,
        "00" * 31 + "80",
        _Y_OF_ORDER_8,
        _Y_OF_ORDER_8[:-2] + "85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
}


def of_kind(kind: str) -> list[str]:
    return [name for name, path in VECTORS.items() if json.loads(path.read_bytes())["kind"] == kind]


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(VECTORS[name].read_bytes())
    return content


def signature_is_right(alg: int, public: bytes, message: bytes, signature: bytes) -> bool:
    """By OpenSSL, with the strictness that the format adds."""
    first, second = signature[:32], signature[32:]
    if len(public) != {-19: 32, -9: 33}.get(alg):
        return False
    try:
        if alg == -19:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
            # What OpenSSL takes besides: an R of small order (docs/trust-bundle.md, Algorithms).
            return int.from_bytes(second, "little") < ED25519_ORDER and first not in SMALL_ORDER_R
        r, s = int.from_bytes(first, "big"), int.from_bytes(second, "big")
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return s <= P256_ORDER // 2


def signers(content: list[dict[str, Any]]) -> list[Signer]:
    return [Signer(Algorithm(one["alg"]), bytes.fromhex(one["public_hex"])) for one in content]


def policy(content: dict[str, Any]) -> Policy:
    assert content["clock_tolerance_s"] == 300
    return Policy(
        timedelta(seconds=content["stale_after_s"]),
        Action(content["on_stale"]),
        Action(content["on_expired"]),
        Action(content["on_clock_suspect"]),
    )


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def error_of(action: Any) -> str | None:
    try:
        action()
    except TrustError as error:
        return error.code
    return None


def check_parts(stages: dict[str, Any]) -> None:
    """The parts of a document: cut by a general CBOR decoder, signatures by OpenSSL."""
    document = bytes.fromhex(stages["document_hex"])
    public = [(part["alg"], bytes.fromhex(part["public_hex"])) for part in stages["signatures"] if part["public_hex"]]
    again = plain_json.envelope(document, public)
    assert again["payload_sha256_hex"] == stages["payload_sha256_hex"]
    assert (again["tag"], again["content_type"]) == (stages["tag"], stages["content_type"])
    for part, same in zip(stages["signatures"], again["signatures"], strict=True):
        message = bytes.fromhex(same["sig_structure_hex"])
        assert hashlib.sha256(message).hexdigest() == part["sig_structure_sha256_hex"]
        assert part.get("sig_structure_hex", message.hex()) == message.hex()
        assert part["signature_hex"] == same["signature_hex"]
        assert part["kid_hex"] == same["kid_hex"]
        right = bool(part["public_hex"]) and signature_is_right(
            part["alg"], bytes.fromhex(part["public_hex"]), message, bytes.fromhex(part["signature_hex"])
        )
        assert right == part["right"]
    if stages["content"] is not None:
        payload = bytes.fromhex(stages["payload_hex"])
        assert stages["content"] == plain_json.content(stages["content_type"], payload)
        # Deterministic CBOR is what the general encoder writes when it is told to.
        assert cbor2.dumps(cbor2.loads(payload), canonical=True) == payload


def test_the_files_are_exactly_what_the_generator_writes() -> None:
    made = make_vectors.files()
    on_disk = {f"{name}.json": path.read_bytes() for name, path in VECTORS.items() if "/large-" not in name}
    assert on_disk == made, "run: python -m tests.offline_sdk.make_vectors"


@pytest.mark.slow
def test_the_large_files_are_exactly_what_the_generator_writes() -> None:
    made = make_vectors.files(large=True)
    assert {f"{name}.json": path.read_bytes() for name, path in VECTORS.items()} == made


def test_the_files_stay_small_and_each_kind_is_there() -> None:
    assert sum(path.stat().st_size for path in VECTORS.values()) < BYTES_MAX
    for kind in ("text", "bundle", "item-set", "revocations", "clock", "update", "delta", "large-bundle"):
        assert of_kind(kind), kind


@pytest.mark.parametrize("name", of_kind("text"))
def test_text(name: str) -> None:
    case = load(name)
    trust = load(case["trust"]["bundle_file"].removesuffix(".json"))
    content, stages, expected = trust["bundle"]["content"], case["stages"], case["expected"]
    found = PATH.fullmatch(case["text"][-198:])
    if stages is None:
        assert expected["error"] == "Malformed"
        assert found is None or not (
            base_is_right(case["text"][:-198])
            and int(found[3]) < 2**512
            and sum(int(digit) * (3, 1)[at % 2] for at, digit in enumerate(found[4])) % 10 == 0
        )
    else:
        assert found is not None
        assert base_is_right(case["text"][:-198])
        profile, kid, signature, gtin, order, item = found.groups()
        serial = f"{order}{item}"
        message = pack(">16sBIQB14s", b"fanxing/code/v1\0", int(profile), int(kid), int(gtin), 14, serial.encode())
        key = next((one for one in content["keys"] if one["kid"] == int(kid)), None)
        signed = int(signature).to_bytes(64, "big")
        right = key is not None and signature_is_right(key["alg"], bytes.fromhex(key["public_hex"]), message, signed)
        assert stages == {
            "base": case["text"][:-198],
            "profile": int(profile),
            "kid": int(kid),
            "signature_hex": signed.hex(),
            "gtin": gtin,
            "serial": serial,
            "order": int(order),
            "item": int(item),
            "message_hex": message.hex(),
            "alg": key["alg"] if key else None,
            "public_hex": key["public_hex"] if key else None,
            "signature_right": right,
            "in_scope": in_scope(key, gtin, int(order), case["clock"]["now"]) if key and right else None,
            "revoked": what_is_revoked(content["revocations"], int(kid), gtin, int(order), int(item))
            if right
            else None,
        }
        assert expected["error"] == error_by_rules(stages, content, case)
    bundle = Bundle.load(bytes.fromhex(trust["bundle"]["document_hex"]), signers(trust["publishers"]))
    verifier = Verifier(
        bundle,
        policy(case["policy"]),
        at(case["clock"]["now"]),
        seen=case["clock"]["seen"],
        root_expires=case["trust"]["root_expires"],
    )
    assert verifier.check(case["text"]).as_json() == expected


def in_scope(key: dict[str, Any], gtin: str, order: int, now: int) -> bool:
    return (
        any(gtin[1:].startswith(prefix) for prefix in key["gtin_prefixes"])
        and key.get("not_before", now) <= now <= key.get("not_after", now)
        and key["order_min"] <= order <= key["order_max"]
    )


def what_is_revoked(revocations: dict[str, Any], kid: int, gtin: str, order: int, item: int) -> str | None:
    if kid in revocations["keys"]:
        return "key"
    spans = [span for span in revocations["orders"] if span["gtin"] == gtin]
    if any(span["order_min"] <= order <= span["order_max"] for span in spans):
        return "order"
    groups = [group for group in revocations["items"] if (group["gtin"], group["order"]) == (gtin, order)]
    return "item" if any(item in group["items"] for group in groups) else None


def error_by_rules(stages: dict[str, Any], content: dict[str, Any], case: dict[str, Any]) -> str | None:
    if stages["public_hex"] is None:
        return "UnknownKey"
    if not stages["signature_right"]:
        return "BadSignature"
    if not stages["in_scope"]:
        return "KeyOutOfScope"
    if stages["revoked"]:
        return "Revoked"
    expired = case["clock"]["now"] >= min(content["expires"], case["trust"]["root_expires"])
    return "BundleExpired" if expired else None


@pytest.mark.parametrize("name", of_kind("bundle"))
def test_bundle(name: str) -> None:
    case = load(name)
    document, publishers = bytes.fromhex(case["bundle"]["document_hex"]), signers(case["publishers"])
    if "signatures" in case["bundle"]:
        check_parts(case["bundle"])
    if case["expected"]["error"] is not None:
        assert error_of(lambda: Bundle.load(document, publishers)) == case["expected"]["error"]
        return
    bundle = Bundle.load(document, publishers)
    assert bundle.payload().hex() == case["bundle"]["payload_hex"]
    assert bundle.fingerprint.hex() == case["bundle"]["payload_sha256_hex"]
    assert any(part["right"] for part in case["bundle"]["signatures"])


@pytest.mark.parametrize("name", of_kind("item-set"))
def test_item_set(name: str) -> None:
    case = load(name)
    packed = bytes.fromhex(case["packed_hex"])
    if case["expected"]["error"] is not None:
        assert error_of(lambda: ItemSet.read(case["n"], packed)) == case["expected"]["error"]
        return
    content, items = case["set"], case["set"]["items"]
    assert plain_json.item_set(case["n"], packed) == content
    assert len(items) == case["n"]
    assert all(a < b for a, b in pairwise(items))
    assert content["lower_hex"] + content["upper_hex"] == case["packed_hex"]
    assert ItemSet.of(items).packed() == packed
    read = ItemSet.read(case["n"], packed)
    assert list(read) == items
    for query in case["queries"]:
        assert query["held"] == (query["item"] in items) == (query["item"] in read)


@pytest.mark.parametrize("name", of_kind("revocations"))
def test_revocations(name: str) -> None:
    case = load(name)
    content = case["revocations"]
    revocations = make_revocations(content)
    for query in case["queries"]:
        kid, gtin, order, item = query["kid"], query["gtin"], query["order"], query["item"]
        code = CodeText(1, kid, gtin, f"{order:05d}{item:09d}", bytes(64))
        assert query["revoked"] == what_is_revoked(content, kid, gtin, order, item)
        assert query["revoked"] == RevocationIndex(revocations).what_is_revoked(code)


def make_revocations(content: dict[str, Any]) -> Any:
    from offline_sdk import Revocations

    orders = [(span["gtin"], span["order_min"], span["order_max"]) for span in content["orders"]]
    items = [(group["gtin"], group["order"], item) for group in content["items"] for item in group["items"]]
    return Revocations.collect(content["keys"], orders, items)


@pytest.mark.parametrize("name", of_kind("clock"))
def test_clock(name: str) -> None:
    case = load(name)
    check_parts(case["trust"]["bundle"])
    content, limits = case["trust"]["bundle"]["content"], case["policy"]
    bundle = Bundle.load(bytes.fromhex(case["trust"]["bundle"]["document_hex"]), signers(case["trust"]["publishers"]))
    time = [0.0]
    root_expires = case["trust"]["root_expires"]
    verifier = Verifier(bundle, policy(limits), lambda: at(time[0]), seen=case["seen"], root_expires=root_expires)
    expires, seen = min(content["expires"], root_expires), case["seen"]
    for step in case["steps"]:
        time[0] = step["now"]
        verdict = verifier.check(case["text"])
        assert (verdict.verdict, verdict.error) == (step["verdict"], step["error"])
        assert (verdict.bundle_state, verdict.clock_suspect) == (step["bundle_state"], step["clock_suspect"])
        assert verifier.seen == step["seen_after"] == max(seen, step["now"])
        floor = max(seen, content["issued"])
        effective = max(step["now"], floor)
        assert (step["floor"], step["effective"]) == (floor, effective)
        assert step["clock_suspect"] == (step["now"] < floor - limits["clock_tolerance_s"])
        stale = effective >= content["issued"] + limits["stale_after_s"]
        assert step["bundle_state"] == ("expired" if effective >= expires else "stale" if stale else "fresh")
        assert step["verdict"] == severest(step, limits)
        seen = max(seen, step["now"])


def severest(step: dict[str, Any], limits: dict[str, Any]) -> str:
    actions = [limits[f"on_{step['bundle_state']}"]] if step["bundle_state"] != "fresh" else []
    actions += [limits["on_clock_suspect"]] if step["clock_suspect"] else []
    return "refused" if "refuse" in actions else "ask" if "ask" in actions else "genuine"


@pytest.mark.parametrize("name", of_kind("update"))
def test_update(name: str, tmp_path: Path) -> None:
    case = load(name)
    expected = case["expected"]
    check_offered(case)
    (tmp_path / "memory.json").write_bytes(Memory(**case["held"]["memory"]).written())
    if case["held"]["trust_file_hex"]:
        (tmp_path / "trust.cbor").write_bytes(bytes.fromhex(case["held"]["trust_file_hex"]))
    store = TrustStore(tmp_path, bytes.fromhex(case["pin_hex"])).open()
    came = error_of(lambda: store.update(bytes.fromhex(case["offered_hex"]), at(case["clock"]["now"])))
    assert came == expected["error"]
    kept = (tmp_path / "trust.cbor").read_bytes() if (tmp_path / "trust.cbor").exists() else b""
    assert hashlib.sha256(kept).hexdigest() == expected["trust_file_sha256_hex"]
    memory = json.loads((tmp_path / "memory.json").read_bytes())
    assert {name: memory[name] for name in ("root_version", "root", "seq", "bundle")} == {
        name: expected["memory"][name] for name in ("root_version", "root", "seq", "bundle")
    }
    roots, bundles = contents(kept)
    assert (roots[-1]["version"] if roots else 0, bundles[-1]["seq"] if bundles else 0) == (
        expected["root_version"],
        expected["seq"],
    )


def check_offered(case: dict[str, Any]) -> None:
    """The documents of the file, cut by a general decoder, and who signed them, by OpenSSL."""
    if case["offered"] is None:
        return
    raw = documents(bytes.fromhex(case["offered_hex"]))
    for document, stages in zip(raw, case["offered"], strict=True):
        public = [(one["alg"], bytes.fromhex(one["public_hex"])) for one in stages["signatures"] if one["public_hex"]]
        again = plain_json.envelope(document, public)
        parts = [{**part, **same} for part, same in zip(stages["signatures"], again["signatures"], strict=True)]
        check_parts({**again, "signatures": parts, "content": stages["content"]})
        assert stages["payload_sha256_hex"] == again["payload_sha256_hex"]


def documents(content: bytes) -> list[bytes]:
    from io import BytesIO

    stream, found = BytesIO(content), []
    while stream.tell() < len(content):
        start = stream.tell()
        cbor2.CBORDecoder(stream, read_size=1).decode()
        found.append(content[start : stream.tell()])
    return found


def contents(trust_file: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    envelopes = [plain_json.envelope(document, []) for document in documents(trust_file)]
    said = {
        kind: [
            plain_json.content(kind, bytes.fromhex(one["payload_hex"]))
            for one in envelopes
            if one["content_type"] == kind
        ]
        for kind in (plain_json.ROOT, plain_json.BUNDLE)
    }
    return said[plain_json.ROOT], said[plain_json.BUNDLE]


@pytest.mark.parametrize("name", of_kind("delta"))
def test_delta(name: str) -> None:
    case = load(name)
    publishers, document = signers(case["publishers"]), bytes.fromhex(case["delta"]["document_hex"])
    base = Bundle.load(bytes.fromhex(case["base_hex"]), publishers)
    if "signatures" in case["delta"]:
        check_parts(case["delta"])
    if case["expected"]["error"] is not None:
        assert error_of(lambda: Delta.load(document, publishers).apply(base)) == case["expected"]["error"]
        return
    assert Delta.load(document, publishers).apply(base).hex() == case["result_hex"]
    # And once more on the plain content, as sets.
    delta, result = case["delta"]["content"], contents(bytes.fromhex(case["result_hex"]))[1][0]
    held = contents(bytes.fromhex(case["base_hex"]))[1][0]
    put = {one["kid"]: one for one in delta["keys_put"]}
    kept = {one["kid"]: one for one in held["keys"] if one["kid"] not in delta["keys_removed"]}
    assert result["keys"] == [one for _kid, one in sorted({**kept, **put}.items())]
    assert facts(result["revocations"]) == facts(held["revocations"]) - facts(delta["removed"]) | facts(delta["added"])
    assert delta["base_sha256_hex"] == base.fingerprint.hex()


def facts(revocations: dict[str, Any]) -> set[tuple[Any, ...]]:
    orders = {("order", *span.values()) for span in revocations["orders"]}
    items = {("item", one["gtin"], one["order"], item) for one in revocations["items"] for item in one["items"]}
    return {("key", kid) for kid in revocations["keys"]} | orders | items

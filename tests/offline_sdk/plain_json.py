"""Plain JSON of trust documents: envelopes, payloads and verdicts as the test vectors show them.

Read with cbor2 and hashlib alone, so that nothing of the SDK's own reading gets into a vector.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import cbor2

ROOT: Final = "application/vnd.fanxing.trust-root+cbor"
BUNDLE: Final = "application/vnd.fanxing.trust-bundle+cbor"
DELTA: Final = "application/vnd.fanxing.trust-delta+cbor"
_UNIVERSE: Final = 10**9


def envelope(document: bytes, signers: Iterable[tuple[int, bytes]]) -> dict[str, Any]:
    """A document's parts in hex, with what each signature covers; `signers` are (alg, public key) that are known."""
    by_kid = {hashlib.sha256(public).digest()[:8]: public for _alg, public in signers}
    message = cbor2.loads(document)
    protected, _unprotected, payload, signed = message.value
    several = message.tag == 98
    signatures = [(part[0], part[2]) for part in signed] if several else [(protected, signed)]
    return {
        "document_hex": document.hex(),
        "tag": message.tag,
        "content_type": cbor2.loads(protected)[3],
        "protected_hex": protected.hex(),
        "payload_hex": payload.hex(),
        "payload_sha256_hex": hashlib.sha256(payload).hexdigest(),
        "signatures": [
            {
                "protected_hex": header.hex(),
                "alg": cbor2.loads(header)[1],
                "kid_hex": cbor2.loads(header)[4].hex(),
                "public_hex": by_kid[cbor2.loads(header)[4]].hex() if cbor2.loads(header)[4] in by_kid else None,
                "sig_structure_hex": cbor2.dumps(
                    ["Signature", protected, header, b"", payload] if several else ["Signature1", header, b"", payload]
                ).hex(),
                "signature_hex": signature.hex(),
            }
            for header, signature in signatures
        ],
    }


def content(content_type: str, payload: bytes) -> dict[str, Any]:
    """What a right payload says."""
    return {ROOT: root, BUNDLE: bundle, DELTA: delta}[content_type](cbor2.loads(payload))


def bundle(fields: dict[int, Any]) -> dict[str, Any]:
    return {
        "version": fields[1],
        "domain": fields[2],
        "seq": fields[3],
        "issued": fields[4],
        "expires": fields[5],
        "keys": [key(one) for one in fields[6]],
        "revocations": revocations(fields[7]),
        **({"prev_hex": fields[8].hex()} if 8 in fields else {}),
    }


def key(fields: dict[int, Any]) -> dict[str, Any]:
    names = {
        1: "kid",
        2: "alg",
        4: "issuer",
        5: "gtin_prefixes",
        6: "not_before",
        7: "not_after",
        8: "order_min",
        9: "order_max",
    }
    return {"public_hex": fields[3].hex(), **{name: fields[at] for at, name in names.items() if at in fields}}


def revocations(fields: dict[int, Any]) -> dict[str, Any]:
    return {
        "keys": fields[1],
        "orders": [{"gtin": gtin, "order_min": low, "order_max": high} for gtin, low, high in fields[2]],
        "items": [{"gtin": gtin, "order": order, **item_set(n, packed)} for gtin, order, n, packed in fields[3]],
    }


def item_set(n: int, packed: bytes) -> dict[str, Any]:
    """The parts of a packed item set, and its items read one bit after the other."""
    low_bits = max(0, (_UNIVERSE // n).bit_length() - 1)
    cut = (n * low_bits + 7) // 8
    lower, upper = int.from_bytes(packed[:cut], "little"), packed[cut:]
    items: list[int] = []
    bucket = 0
    for at in range(8 * len(upper)):
        if len(items) < n and upper[at >> 3] >> (at & 7) & 1:
            items.append(bucket << low_bits | lower >> (len(items) * low_bits) & ((1 << low_bits) - 1))
        else:
            bucket += 1
    return {
        "n": n,
        "low_bits": low_bits,
        "buckets": ((_UNIVERSE - 1) >> low_bits) + 1,
        "lower_hex": packed[:cut].hex(),
        "upper_hex": upper.hex(),
        "items": items,
    }


def root(fields: dict[int, Any]) -> dict[str, Any]:
    return {
        "format": fields[1],
        "domain": fields[2],
        "version": fields[3],
        "issued": fields[4],
        "expires": fields[5],
        "keys": [signer(*pair) for pair in fields[6]],
        "threshold": fields[7],
        "publishers": [signer(*pair) for pair in fields[8]],
    }


def signer(alg: int, public: bytes) -> dict[str, Any]:
    return {"alg": alg, "public_hex": public.hex(), "kid_hex": hashlib.sha256(public).digest()[:8].hex()}


def delta(fields: dict[int, Any]) -> dict[str, Any]:
    return {
        "version": fields[1],
        "domain": fields[2],
        "base_seq": fields[3],
        "base_sha256_hex": fields[4].hex(),
        "seq": fields[5],
        "issued": fields[6],
        "expires": fields[7],
        "keys_put": [key(one) for one in fields[8]],
        "keys_removed": fields[9],
        "added": revocations(fields[10]),
        "removed": revocations(fields[11]),
        "publisher_kid_hex": fields[12].hex(),
        "signature_hex": fields[13].hex(),
        **({"prev_hex": fields[14].hex()} if 14 in fields else {}),
    }

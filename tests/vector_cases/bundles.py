"""Bundles: trust bundles in their one form, and all the ways of not being in it; and the largest, by their recipes."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import cbor2

from offline_sdk import Bundle, BundleKey, DocumentType, ItemSet, OrderRange, Revocations, RevokedItems
from offline_sdk.bundle import TIME_MAX
from tests.offline_sdk.named_keys import DOMAIN, EXPIRES, ISSUED, high_s, key, published, signed, unreduced_s
from tests.vector_cases.common import (
    GTIN_A,
    GTIN_B,
    PUBLISHER,
    PUBLISHERS,
    Vectors,
    document_json,
    error_of,
    named,
    signers_json,
)

_P256_PUBLISHER: Final = key("p256 publisher 2")
_SEQ_MAX: Final = 2**53 - 1
_P25519: Final = 2**255 - 19
_P256_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER_8_Y: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SIGNERS: Final = [one.signer for one in PUBLISHERS]


def code_key(kid: int, name: str, *prefixes: str, **limits: Any) -> BundleKey:
    """A key of a bundle."""
    by = key(name)
    return BundleKey(kid, by.public, limits.pop("issuer", f"Issuer {kid}"), prefixes, algorithm=by.algorithm, **limits)


FIRST: Final = Bundle(DOMAIN, 1, ISSUED, EXPIRES, (code_key(1, "code 1", "690123456"),))
FULL: Final = Bundle(
    DOMAIN,
    2,
    ISSUED + 60,
    EXPIRES,
    (
        code_key(0, "code 1", "690123456", "9506000", issuer="Fanxing Demo Dairy"),
        code_key(
            7,
            "p256 code 2",
            "69012",
            issuer="繁星示范",
            not_before=ISSUED,
            not_after=EXPIRES,
            order_min=1,
            order_max=500,
        ),
        code_key(99_999, "code 3", *map(str, range(10)), order_min=99_999),
    ),
    Revocations.collect(
        [9, 10],
        [(GTIN_A, 3, 5), (GTIN_B, 0, 99_999)],
        [(GTIN_A, 1, 975_404_383), (GTIN_A, 1, 160_391_752), (GTIN_A, 2, 0)],
    ),
    prev=FIRST.fingerprint,
)


def vectors() -> Vectors:
    taken: set[str] = set()
    for note, document, error in (*_right(), *_envelopes(), *_signatures(), *_payloads()):
        yield f"bundles/{named(note, taken)}", bundle_vector(note, document, error)


def bundle_vector(note: str, document: bytes, error: str | None) -> dict[str, Any]:
    """A document, its parts, and what `Bundle.load` makes of it."""
    came = error_of(lambda: Bundle.load(document, SIGNERS))
    assert came == error, (note, came)
    try:
        stages = document_json(document, readable=error is None)
    # Anything may be wrong with bytes that are no document; then there are no stages to show.
    except Exception:
        stages = {"document_hex": document.hex()}
    return {
        "kind": "bundle",
        "note": note,
        "publishers": signers_json(PUBLISHERS),
        "bundle": stages,
        "expected": {"error": error},
    }


_Case = tuple[str, bytes, str | None]


_OFF_CURVE: Final = BundleKey(1, b"\x02" + bytes(31), "No point of the curve", ("690123456",))
# Unassigned, new, outside the basic plane, and the first and last ones of ranges that may stand in names.
_NAME: Final = "\u0378\U0001fae9\U0001f9ca !~\u00a1\ufffd"
_NAMED: Final = BundleKey(1, key("code 1").public, _NAME, ("690123456",))


def _right() -> list[_Case]:
    edges = Bundle(
        "d" * 100,
        _SEQ_MAX,
        TIME_MAX - 1,
        TIME_MAX,
        (
            code_key(
                99_999, "code 1", "0", "999999999999", issuer="i" * 200, not_before=0, not_after=TIME_MAX, order_max=0
            ),
        ),
        prev=bytes(32),
    )
    named = replace(FIRST, domain=_NAME, keys=(_NAMED,))
    earliest = Bundle("d", 1, 0, 1, (code_key(0, "code 1", "0", issuer="i", not_before=0, not_after=0),))
    touching = Revocations((0, 99_999), (OrderRange(GTIN_A, 0, 0), OrderRange(GTIN_A, 1, 99_999)))
    return [
        ("right smallest", published(Bundle("d", 1, 0, 1, ()), PUBLISHER), None),
        ("right one key", published(FIRST, PUBLISHER), None),
        ("right everything", published(FULL, PUBLISHER), None),
        ("right signed with P-256", published(FULL, _P256_PUBLISHER), None),
        ("right highest values", published(edges, PUBLISHER), None),
        ("right lowest values", published(earliest, PUBLISHER), None),
        ("right Ed25519 key off the curve", published(replace(FIRST, keys=(_OFF_CURVE,)), PUBLISHER), None),
        (
            "right names of any printable characters",
            published(named, PUBLISHER),
            None,
        ),
        ("right order ranges that touch", published(Bundle(DOMAIN, 1, 0, 1, (), touching), PUBLISHER), None),
    ]


def _envelopes() -> list[_Case]:
    document = published(FIRST, PUBLISHER)
    message = cbor2.loads(document)
    protected, _unprotected, payload, signature = message.value
    wrong, cut = "TrustMalformed", "TrustTruncated"

    def enveloped(*parts: object, tag: int = 18) -> bytes:
        return cbor2.dumps(cbor2.CBORTag(tag, list(parts)))

    def headed(header: bytes) -> bytes:
        return enveloped(header, {}, payload, signature)

    ascending = {1: -19, 3: str(DocumentType.BUNDLE), 4: PUBLISHER.signer.kid}
    at = document.index(payload)
    return [
        ("empty", b"", cut),
        *(
            (f"cut after {count} bytes", document[:count], cut)
            for count in (1, 2, 4, 62, at - 1, at, at + 40, len(document) - 1)
        ),
        ("one byte after it", document + b"\0", wrong),
        ("twice", document * 2, wrong),
        ("JSON", b'{"keys": []}', wrong),
        ("no tag", document[1:], wrong),
        ("tag 98", enveloped(protected, {}, payload, signature, tag=98), wrong),
        ("tag 18 in two bytes", b"\xd8\x12" + document[1:], wrong),
        ("five parts", enveloped(protected, {}, payload, signature, b""), wrong),
        ("three parts", enveloped(protected, {}, payload), wrong),
        ("array of indefinite length", b"\xd2\x9f" + document[2:] + b"\xff", wrong),
        ("unprotected header not empty", enveloped(protected, {4: b"x"}, payload, signature), wrong),
        ("payload detached", enveloped(protected, {}, None, signature), wrong),
        ("payload length not shortest", document[: at - 2] + b"\x59\0" + document[at - 1 :], wrong),
        (
            "payload in chunks",
            document[: at - 2]
            + b"\x5f"
            + document[at - 2 : at + len(payload)]
            + b"\xff"
            + document[at + len(payload) :],
            wrong,
        ),
        ("signature of 63 bytes", enveloped(protected, {}, payload, signature[:63]), wrong),
        ("signature of 65 bytes", enveloped(protected, {}, payload, signature + b"\0"), wrong),
        ("protected header empty", headed(b""), wrong),
        ("protected header in another order", headed(cbor2.dumps(dict(reversed(ascending.items())))), wrong),
        ("algorithm -8, EdDSA", headed(cbor2.dumps({**ascending, 1: -8})), wrong),
        ("algorithm -7, ES256", headed(cbor2.dumps({**ascending, 1: -7})), wrong),
        ("algorithm unknown", headed(cbor2.dumps({**ascending, 1: -1000})), wrong),
        ("content type of a delta", headed(cbor2.dumps({**ascending, 3: str(DocumentType.DELTA)})), wrong),
        ("content type unknown", headed(cbor2.dumps({**ascending, 3: "application/cbor"})), wrong),
        ("signer's number of 7 bytes", headed(cbor2.dumps({**ascending, 4: bytes(7)})), wrong),
        ("a header too many", headed(cbor2.dumps({**ascending, 5: 0})), wrong),
        ("signer's number unknown", headed(cbor2.dumps({**ascending, 4: bytes(8)})), "BundleUntrusted"),
        ("algorithm of another signer", headed(cbor2.dumps({**ascending, 1: -9})), "BundleUntrusted"),
    ]


def _signatures() -> list[_Case]:
    ed, p256 = published(FIRST, PUBLISHER), published(FIRST, _P256_PUBLISHER)
    untrusted = "BundleUntrusted"
    renamed = signed(DocumentType.BUNDLE, FIRST.payload(), key("stranger"))
    renamed = renamed.replace(key("stranger").signer.kid, PUBLISHER.signer.kid)
    return [
        ("signed by a stranger", published(FIRST, key("stranger")), untrusted),
        ("signed by a stranger under a publisher's number", renamed, untrusted),
        ("signature of another bundle", published(FULL, PUBLISHER)[:-64] + ed[-64:], untrusted),
        ("signature bit changed", ed[:-1] + bytes([ed[-1] ^ 1]), untrusted),
        ("payload bit changed", ed.replace(b"Issuer 1", b"Issuer 3"), untrusted),
        ("signature all zero", ed[:-64] + bytes(64), untrusted),
        ("Ed25519 S plus L", ed[:-64] + unreduced_s(ed[-64:]), untrusted),
        ("P-256 s above n/2", p256[:-64] + high_s(p256[-64:]), untrusted),
        ("payload not CBOR and signed by a stranger", signed(DocumentType.BUNDLE, b"\xff", key("stranger")), untrusted),
    ]


def _payloads() -> list[_Case]:
    raw = FIRST.payload()
    changed = {**_encodings(raw), **_keys(), **_fields(), **_revocations()}
    return [
        (f"payload {note}", signed(DocumentType.BUNDLE, payload, PUBLISHER), "TrustMalformed")
        for note, payload in changed.items()
    ]


def _edited(edit: Callable[[dict[int, Any]], object], bundle: Bundle = FIRST) -> bytes:
    fields = cbor2.loads(bundle.payload())
    edit(fields)
    return cbor2.dumps(fields)


def _key_with(field: int, value: object) -> bytes:
    return _edited(lambda fields: fields[6][0].update({field: value}))


def _field_with(field: int, value: object) -> bytes:
    return _edited(lambda fields: fields.update({field: value}))


def _without(field: int) -> bytes:
    return _edited(lambda fields: fields.pop(field))


def _encodings(raw: bytes) -> dict[str, bytes]:
    fields = cbor2.loads(raw)
    return {
        "empty": b"",
        "no CBOR": b"\xff",
        "an array": cbor2.dumps(list(fields.values())),
        "one byte after it": raw + b"\0",
        "cut": raw[:-1],
        "version in two bytes": raw[:2] + b"\x18\x02" + raw[3:],
        "version as a float": cbor2.dumps({**fields, 1: 2.0}),
        "fields in another order": cbor2.dumps(dict(reversed(fields.items()))),
        "a field twice": b"\xa8" + raw[1:] + b"\x01\x02",
        "map of indefinite length": b"\xbf" + raw[1:] + b"\xff",
        "domain in chunks": raw.replace(cbor2.dumps(DOMAIN), b"\x7f" + cbor2.dumps(DOMAIN) + b"\xff"),
        "time with a tag": raw.replace(cbor2.dumps(ISSUED), b"\xc1" + cbor2.dumps(ISSUED)),
        "seq as a bignum": raw.replace(b"\x03\x01\x04", b"\x03\xc2\x41\x01\x04"),
        "seq true": cbor2.dumps({**fields, 3: True}),
        "a field unknown": cbor2.dumps({**fields, 9: 0}),
        "not before null": _key_with(6, None),
        "prev null": cbor2.dumps({**fields, 8: None}),
        "domain not UTF-8": raw.replace(DOMAIN.encode(), b"\xff" + DOMAIN.encode()[1:]),
        "tag that the decoder knows": b"\xd8\x1c" + raw,
        "deeply nested": b"\x81" * 500 + b"\x80",
    }  # fmt: skip


def _keys() -> dict[str, bytes]:
    def little(y: int) -> bytes:
        return y.to_bytes(32, "little")

    ed, p256 = key("code 1").public, key("p256 code 2").public
    bad_ed = {
        "the neutral point": little(1),
        "y is 0": little(0),
        "y is p - 1, order 2": little(_P25519 - 1),
        "y of order 8": little(_ORDER_8_Y),
        "other y of order 8": little(_P25519 - _ORDER_8_Y),
        "the neutral point with the sign set": little(1 | 1 << 255),
        "y is p": little(_P25519),
        "y is p + 1": little(_P25519 + 1),
        "y is 2 to the 255th - 1": little(2**255 - 1),
        "y of order 8 with the sign set": little(_ORDER_8_Y | 1 << 255),
        "31 bytes": ed[:31],
        "33 bytes": ed + b"\0",
        "empty": b"",
        "a P-256 key": p256,
    }
    off = next(x for x in range(1, 50) if pow(x**3 - 3 * x + _b256(), (_P256_P - 1) // 2, _P256_P) != 1)
    bad_p256 = {
        "infinity": b"\0" * 33,
        "infinity in one byte": b"\0",
        "prefix 04": b"\4" + p256[1:],
        "prefix 05": b"\5" + p256[1:],
        "prefix 00": b"\0" + p256[1:],
        "off the curve": b"\2" + off.to_bytes(32, "big"),
        "x is p": b"\2" + _P256_P.to_bytes(32, "big"),
        "x above p": b"\2" + b"\xff" * 32,
        "32 bytes": p256[:32],
        "an Ed25519 key": ed,
        "uncompressed": b"\4" + bytes(64),
    }

    def with_key(alg: int, public: object) -> bytes:
        return _edited(lambda fields: fields[6][0].update({2: alg, 3: public}))

    return {
        **{f"Ed25519 key {note}": with_key(-19, public) for note, public in bad_ed.items()},
        **{f"P-256 key {note}": with_key(-9, public) for note, public in bad_p256.items()},
        **{f"key of algorithm {alg}": with_key(alg, ed) for alg in (-8, -7, 0, 19)},
        "key in text": with_key(-19, ed.hex()),
    }


def _b256() -> int:
    return 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def _fields() -> dict[str, bytes]:
    doubled = _edited(lambda fields: fields[6].append(fields[6][0]))
    falling = _edited(lambda fields: fields[6].reverse(), FULL)
    return {
        **{f"version {number}": _field_with(1, number) for number in (0, 1, 3)},
        **{f"seq {number}": _field_with(3, number) for number in (-1, 0, 2**53)},
        **{f"without field {field}": _without(field) for field in range(1, 8)},
        "domain empty": _edited(lambda fields: fields.update({2: ""})),
        "domain of 101 characters": _edited(lambda fields: fields.update({2: "d" * 101})),
        "domain with a line end": _edited(lambda fields: fields.update({2: "d\n"})),
        "expires at issued": _edited(lambda fields: fields.update({5: ISSUED})),
        "expires after the year 9999": _edited(lambda fields: fields.update({5: TIME_MAX + 1})),
        "issued before 1970": _edited(lambda fields: fields.update({4: -1})),
        "seq 1 with prev": _edited(lambda fields: fields.update({8: bytes(32)})),
        "seq 2 without prev": _edited(lambda fields: fields.update({3: 2})),
        "prev of 31 bytes": _edited(lambda fields: fields.update({3: 2, 8: bytes(31)})),
        "a key twice": doubled,
        "keys that fall": falling,
        "key number 100000": _key_with(1, 100_000),
        "key number -1": _key_with(1, -1),
        "issuer empty": _key_with(4, ""),
        "issuer of 201 characters": _key_with(4, "i" * 201),
        "issuer with an escape": _key_with(4, "\x1b[31m"),
        "no prefix": _key_with(5, []),
        "prefix empty": _key_with(5, [""]),
        "prefix of 13 digits": _key_with(5, ["1" * 13]),
        "prefix of full-width digits": _key_with(5, ["６９"]),
        "prefix as a number": _key_with(5, [690]),
        "prefixes that fall": _key_with(5, ["7", "6"]),
        "a prefix twice": _key_with(5, ["6", "6"]),
        "1001 prefixes": _key_with(5, [f"{number:04d}" for number in range(1001)]),
        "not after below not before": _edited(lambda fields: fields[6][0].update({6: 10, 7: 9})),
        "order_max 100000": _key_with(9, 100_000),
        "order_min above order_max": _edited(lambda fields: fields[6][0].update({8: 6, 9: 5})),
        "order_min missing": _edited(lambda fields: fields[6][0].pop(8)),
    }


def _revocations() -> dict[str, bytes]:
    def revoking(keys: object, orders: object, items: object) -> bytes:
        return _edited(lambda fields: fields.update({7: {1: keys, 2: orders, 3: items}}))

    packed = ItemSet.of([5]).packed()
    return {
        "revoked keys that fall": revoking([2, 1], [], []),
        "revoked key twice": revoking([1, 1], [], []),
        "revoked key 100000": revoking([100_000], [], []),
        "revoked orders that overlap": revoking([], [[GTIN_A, 1, 5], [GTIN_A, 5, 6]], []),
        "revoked orders that fall": revoking([], [[GTIN_A, 5, 6], [GTIN_A, 1, 2]], []),
        "revoked orders, GTINs that fall": revoking([], [[GTIN_B, 1, 1], [GTIN_A, 1, 1]], []),
        "revoked orders from above to below": revoking([], [[GTIN_A, 2, 1]], []),
        "revoked order of a wrong GTIN": revoking([], [["06901234567891", 1, 2]], []),
        "revoked order of a GTIN of 13 digits": revoking([], [["6901234567892", 1, 2]], []),
        "revoked order 100000": revoking([], [[GTIN_A, 1, 100_000]], []),
        "revoked items in no order of orders": revoking([], [], [[GTIN_A, 2, 1, packed], [GTIN_A, 1, 1, packed]]),
        "revoked items of one order twice": revoking([], [], [[GTIN_A, 1, 1, packed], [GTIN_A, 1, 1, packed]]),
        "revoked items counted wrongly": revoking([], [], [[GTIN_A, 1, 2, packed]]),
        "revoked items none": revoking([], [], [[GTIN_A, 1, 0, b""]]),
        "revoked items as numbers": revoking([], [], [[GTIN_A, 1, [5]]]),
        "revocations without a field": _edited(lambda fields: fields[7].pop(3)),
    }


def large() -> Vectors:
    """The largest bundles; a file tells how to make one, and its SHA-256."""
    everyone = [f"{number:04d}" for number in range(1_000)]
    step = 249
    recipes: dict[str, tuple[str, Callable[[], Bundle]]] = {
        "large 10000 keys": (
            'keys 0 to 9999, each with the public key given, issuer "Issuer KID", GTIN prefix "69"; no revocations',
            lambda: _large(tuple(code_key(kid, "code 1", "69") for kid in range(10_000))),
        ),
        "large 1000 prefixes": (
            'key 1 with the public key given, issuer "Issuer 1", GTIN prefixes "0000" to "0999"; no revocations',
            lambda: _large((code_key(1, "code 1", *everyone),)),
        ),
        "large 10000 revoked keys and 100000 order ranges": (
            "no keys; revoked keys 0 to 9999; of GTIN 06901234567892 each order 0 to 99999 as a range of its own",
            lambda: _large(
                (), Revocations(tuple(range(10_000)), tuple(OrderRange(GTIN_A, at, at) for at in range(100_000)))
            ),
        ),
        "large 4000000 items in one order": (
            f"no keys; of GTIN 06901234567892, order 1, the items 0, {step}, {2 * step} and so on, 4,000,000 of them",
            lambda: _large(
                (), Revocations(items=(RevokedItems(GTIN_A, 1, ItemSet.of(range(0, 4_000_000 * step, step))),))
            ),
        ),
    }
    for note, (recipe, make) in recipes.items():
        bundle = make()
        document = published(bundle, PUBLISHER)
        yield (
            f"bundles/{named(note, set())}",
            {
                "kind": "large-bundle",
                "note": note,
                "recipe": f"domain {DOMAIN}, seq 1, issued {ISSUED}, expires {EXPIRES}; {recipe}",
                "public_hex": key("code 1").public.hex(),
                "publisher": signers_json((PUBLISHER,))[0],
                "publisher_secret_hex": PUBLISHER.secret.hex(),
                "payload_bytes": len(bundle.payload()),
                "payload_sha256_hex": bundle.fingerprint.hex(),
                "document_bytes": len(document),
                "document_sha256_hex": hashlib.sha256(document).hexdigest(),
            },
        )


def _large(keys: tuple[BundleKey, ...], revocations: Revocations | None = None) -> Bundle:
    return Bundle(DOMAIN, 1, ISSUED, EXPIRES, keys, revocations or Revocations())

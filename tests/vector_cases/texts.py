"""Texts: code texts with every stage of judging them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from offline_sdk import Algorithm, Bundle, BundleKey, CodeText, Malformed, Policy, Revocations, Verifier, parse
from offline_sdk.algorithms import signature_is_right
from offline_sdk.code_text import encode_message, encode_text
from offline_sdk.revocation import RevocationIndex
from tests.offline_sdk.named_keys import (
    DOMAIN,
    ED25519_ORDER,
    EXPIRES,
    ISSUED,
    NOW,
    P256_ORDER,
    ROOT_EXPIRES,
    Key,
    high_s,
    key,
    published,
    unreduced_s,
)
from tests.vector_cases.bundles import bundle_vector
from tests.vector_cases.common import (
    GTIN_A,
    GTIN_A_CASE,
    GTIN_B,
    PUBLISHER,
    Vectors,
    moment,
    named,
    policy_json,
)

BUNDLE_NAME: Final = "bundles/right-bundle-of-the-texts"
_FIRST_VECTORS: Final = Path(__file__).parents[1] / "vectors" / "code-text-v1.json"
_BASE: Final = "https://id.example.cn"
_TEXT_CHARS_MAX: Final = 1_000
_ED, _P256, _OTHER = key("code 1"), key("p256 code 2"), key("code 3")
_NOT_BEFORE, _NOT_AFTER = NOW, NOW + 100
_LAST_ITEM: Final = 999_999_999


def _bundle(first: dict[str, Any]) -> Bundle:
    known = [
        BundleKey(one["kid"], bytes.fromhex(one["public_hex"]), "Fanxing Demo Dairy", ("690123456", "9506000"))
        for one in first["keys"]
    ]
    limited = [
        BundleKey(20, _ED.public, "Prefix of 1 digit", ("6",)),
        BundleKey(21, _ED.public, "Prefix of 12 digits", ("690123456789",)),
        BundleKey(22, _ED.public, "Orders", ("690123456",), order_min=100, order_max=200),
        BundleKey(23, _ED.public, "Times", ("690123456",), not_before=_NOT_BEFORE, not_after=_NOT_AFTER),
        BundleKey(24, _P256.public, "P-256 繁星", ("690123456",), algorithm=Algorithm.ESP256),
        BundleKey(25, _ED.public, "Revoked", ("690123456",)),
        BundleKey(26, _ED.public, "Prefix 16", ("16",)),
        BundleKey(27, _ED.public, "Two prefixes", ("690", "9506000")),
        BundleKey(0, _ED.public, "Zero", ("690123456",)),
    ]
    items = [(GTIN_A, 30, item) for item in (0, 2, _LAST_ITEM)]
    items += [(GTIN_A, 31, 500_000_000), *((GTIN_A, 32, item) for item in range(1_000, 1_200))]
    revocations = Revocations.collect([25], [(GTIN_A, 40, 42), (GTIN_A, 99_998, 99_999), (GTIN_B, 0, 0)], items)
    ordered = tuple(sorted([*known, *limited], key=lambda one: one.kid))
    return Bundle(DOMAIN, 1, ISSUED, EXPIRES, ordered, revocations)


class _Cases:
    """Texts judged by one bundle."""

    def __init__(self) -> None:
        first = json.loads(_FIRST_VECTORS.read_text("utf-8"))
        self.first = first
        self.bundle = _bundle(first)
        self.taken: set[str] = set()

    def vector(self, note: str, text: str, error: str | None, now: int = NOW) -> tuple[str, dict[str, Any]]:
        verifier = Verifier(self.bundle, Policy(), moment(now), root_expires=ROOT_EXPIRES)
        verdict = verifier.check(text)
        assert verdict.error == error, (note, verdict)
        stages = self._stages(text, verdict.error)
        return f"texts/{named(note, self.taken)}", {
            "kind": "text",
            "note": note,
            "text": text,
            "trust": {"bundle_file": f"{BUNDLE_NAME}.json", "root_expires": ROOT_EXPIRES},
            "clock": {"now": now, "seen": 0},
            "policy": policy_json(Policy()),
            "stages": stages,
            "expected": verdict.as_json(),
        }

    def _stages(self, text: str, error: str | None) -> dict[str, Any] | None:
        try:
            code = parse(text)
        except Malformed:
            return None
        by = next((one for one in self.bundle.keys if one.kid == code.kid), None)
        right = by is not None and signature_is_right(by.algorithm, by.public, code.message(), code.signature)
        return {
            "base": text[: -len(code.text(_BASE)) + len(_BASE)],
            "profile": code.profile,
            "kid": code.kid,
            "signature_hex": code.signature.hex(),
            "gtin": code.gtin,
            "serial": code.serial,
            "order": code.order,
            "item": code.item_number,
            "message_hex": code.message().hex(),
            "alg": None if by is None else int(by.algorithm),
            "public_hex": None if by is None else by.public.hex(),
            "signature_right": right,
            "in_scope": error != "KeyOutOfScope" if right else None,
            "revoked": RevocationIndex(self.bundle.revocations).what_is_revoked(code) if right else None,
        }


def vectors() -> Vectors:
    cases = _Cases()
    yield BUNDLE_NAME, bundle_vector("the bundle that judges all texts", published(cases.bundle, PUBLISHER), None)
    for one in cases.first["valid"]:
        yield cases.vector(f"valid {one['note']}", one["text"], None)
    for one in cases.first["invalid"]:
        if len(one["text"]) <= _TEXT_CHARS_MAX:
            yield cases.vector(f"invalid {one['note']}", one["text"], one["error"])
    for part in (_signatures, _prefixes, _orders_and_times, _revoked, _bases, _precedence, _malleated):
        for note, text, error, *now in part():
            yield cases.vector(note, text, error, *now)


def _text(kid: int, by: Key = _ED, gtin: str = GTIN_A, order: int = 1, item: int = 7, profile: int = 1) -> str:
    return _with(kid, by.sign(_message(kid, gtin, order, item, profile)), gtin, order, item, profile)


def _message(kid: int, gtin: str = GTIN_A, order: int = 1, item: int = 7, profile: int = 1) -> bytes:
    return encode_message(profile, kid, gtin, f"{order:05d}{item:09d}")


def _with(
    kid: int, signature: bytes, gtin: str = GTIN_A, order: int = 1, item: int = 7, profile: int = 1, base: str = _BASE
) -> str:
    return encode_text(base, profile, kid, signature, gtin, f"{order:05d}{item:09d}")


_Case = tuple[Any, ...]


def _with_neutral_r(by: Key, message: bytes) -> bytes:
    """What a cofactored or a careless verifier takes: S = k·a solves S·B = R + k·A for R = 0."""
    scalar = bytearray(hashlib.sha512(by.secret).digest()[:32])
    scalar[0] &= 0xF8
    scalar[31] = scalar[31] & 0x7F | 0x40
    neutral = b"\x01" + bytes(31)
    k = int.from_bytes(hashlib.sha512(neutral + by.public + message).digest(), "little")
    return neutral + (k * int.from_bytes(scalar, "little") % ED25519_ORDER).to_bytes(32, "little")


def _signatures() -> list[_Case]:
    ed, p256 = _ED.sign(_message(20)), _P256.sign(_message(24))
    zero, order = bytes(32), P256_ORDER.to_bytes(32, "big")
    bad = "BadSignature"
    return [
        ("P-256 outer code", _with(24, p256), None),
        ("P-256 inner code", _text(24, _P256, profile=2), None),
        ("P-256 s above n/2, otherwise right", _with(24, high_s(p256)), bad),
        ("P-256 r is 0", _with(24, zero + p256[32:]), bad),
        ("P-256 s is 0", _with(24, p256[:32] + zero), bad),
        ("P-256 r and s are 0", _with(24, bytes(64)), bad),
        ("P-256 r is n", _with(24, order + p256[32:]), bad),
        ("P-256 s is n", _with(24, p256[:32] + order), bad),
        ("P-256 r and s exchanged", _with(24, p256[32:] + p256[:32]), bad),
        ("P-256 signature by another key", _text(24, key("p256 code 9")), bad),
        ("Ed25519 signature under a P-256 key number", _text(24, _ED), bad),
        ("P-256 signature under an Ed25519 key number", _text(20, _P256), bad),
        ("Ed25519 S plus L", _with(20, unreduced_s(ed)), bad),
        ("Ed25519 S is L", _with(20, ed[:32] + ED25519_ORDER.to_bytes(32, "little")), bad),
        ("Ed25519 S has its top bits set", _with(20, ed[:63] + bytes([ed[63] | 0xE0])), bad),
        ("Ed25519 R is the neutral point and S is right for it", _with(20, _with_neutral_r(_ED, _message(20))), bad),
        ("Ed25519 R is the neutral point and S is 0", _with(20, b"\x01" + bytes(63)), bad),
        ("Ed25519 R not canonical", _with(20, b"\xee" + b"\xff" * 30 + b"\x7f" + bytes(32)), bad),
        ("Ed25519 sign bit of R changed", _with(20, ed[:31] + bytes([ed[31] ^ 0x80]) + ed[32:]), bad),
        ("all bits of the signature set", _with(20, b"\xff" * 64), bad),
        ("signature of the same item under another key number", _with(0, ed), bad),
        ("key number 0", _text(0), None),
        ("key number just above a known one", _text(28), "UnknownKey"),
    ]


def _prefixes() -> list[_Case]:
    outside = "KeyOutOfScope"
    return [
        ("GTIN prefix of one digit", _text(20), None),
        ("GTIN outside a prefix of one digit", _text(20, gtin=GTIN_B), outside),
        ("GTIN prefix of twelve digits", _text(21), None),
        ("GTIN that differs in the last digit of the prefix", _text(21, gtin="06901234567885"), outside),
        ("GTIN with another indicator digit under the same prefix", _text(21, gtin=GTIN_A_CASE), None),
        ("prefix that matches only together with the indicator digit", _text(26, gtin=GTIN_A_CASE), outside),
        ("second of two prefixes", _text(27, gtin=GTIN_B), None),
    ]


def _orders_and_times() -> list[_Case]:
    outside = "KeyOutOfScope"
    return [
        ("order one below the lowest of the key", _text(22, order=99), outside),
        ("order the lowest of the key", _text(22, order=100), None),
        ("order the highest of the key", _text(22, order=200), None),
        ("order one above the highest of the key", _text(22, order=201), outside),
        ("time one second before not before", _text(23), outside, _NOT_BEFORE - 1),
        ("time at not before", _text(23), None, _NOT_BEFORE),
        ("time at not after", _text(23), None, _NOT_AFTER),
        ("time one second after not after", _text(23), outside, _NOT_AFTER + 1),
    ]


def _revoked() -> list[_Case]:
    revoked = "Revoked"
    orders = [
        (39, None),
        (40, revoked),
        (42, revoked),
        (43, None),
        (99_997, None),
        (99_998, revoked),
        (99_999, revoked),
    ]
    items = [
        (30, 0, revoked), (30, 1, None), (30, 2, revoked), (30, 3, None), (30, _LAST_ITEM - 1, None),
        (30, _LAST_ITEM, revoked), (31, 499_999_999, None), (31, 500_000_000, revoked), (31, 500_000_001, None),
        (32, 999, None), (32, 1_000, revoked), (32, 1_100, revoked), (32, 1_199, revoked), (32, 1_200, None),
        (33, 500_000_000, None),
    ]  # fmt: skip
    return [
        ("revoked key", _text(25), revoked),
        *(
            (f"revocation of orders 40 to 42 and the last two, order {one}", _text(20, order=one), error)
            for one, error in orders
        ),
        *(
            (f"revocation of single items, order {order} item {item}", _text(20, order=order, item=item), error)
            for order, item, error in items
        ),
        ("revoked order of another GTIN", _text(20, gtin=GTIN_A_CASE, order=40), None),
        ("revoked item of another GTIN", _text(20, gtin=GTIN_A_CASE, order=30, item=0), None),
        ("revoked item, inner code", _text(20, order=30, item=0, profile=2), revoked),
        ("order 0 revoked", _text(27, gtin=GTIN_B, order=0), revoked),
        ("order 1 beside the revoked order 0", _text(27, gtin=GTIN_B), None),
    ]


def _bases() -> list[_Case]:
    sixty_three = "a" * 63
    longest = ".".join([sixty_three] * 3 + ["a" * 61])
    right = [
        "HTTPS://ID.EXAMPLE.CN", "http://a.cn:1", "https://a.cn:65535", "https://255.255.255.255", "https://0.0.0.0",
        f"https://{sixty_three}.cn", f"https://{longest}", f"https://{longest}:65535", "https://localhost",
        "https://xn--a-b.cn", "https://1.2.3.a4", "HTTP://A1-B2.CN:8080",
    ]  # fmt: skip
    wrong = [
        "https://a.cn:0",
        "https://a.cn:65536",
        "https://a.cn:080",
        "https://a.cn:",
        "https://a.cn:100000",
        "https://256.1.1.1",
        "https://01.2.3.4",
        "https://1.2.3",
        "https://a.1",
        "https://a.0x7f",
        f"https://{sixty_three}a.cn",
        f"https://a{longest}",
        "https://-a.cn",
        "https://a-.cn",
        "https://a..cn",
        "https://.a.cn",
        "https://a.cn.",
        "https://a_b.cn",
        "https://a.cn/x",
        "https://[::1]",
        "HTTPS://id.example.cn",
        "https://ID.EXAMPLE.CN",
        "https:/a.cn",
        "//a.cn",
        "https://é.cn",
        "https://a.cn:6553\u0661",
        "https://user@a.cn",
        "\ufeffhttps://a.cn",
        " https://a.cn",
    ]
    signature = _ED.sign(_message(20))
    return [
        *((f"base {one[:40]}", _with(20, signature, base=one), None) for one in right),
        *((f"base wrong {one[:40]}", _with(20, signature, base=one), "Malformed") for one in wrong),
    ]


def _precedence() -> list[_Case]:
    forged = _with(20, _OTHER.sign(_message(20, order=40)), order=40)
    return [
        ("forged and revoked and expired", forged, "BadSignature", EXPIRES),
        ("out of scope and revoked", _text(21, gtin=GTIN_B, order=0), "KeyOutOfScope"),
        ("out of scope by order and bundle expired", _text(22, order=99), "KeyOutOfScope", EXPIRES),
        ("revoked and bundle expired", _text(20, order=40), "Revoked", EXPIRES),
        ("unknown key and bundle expired", _text(28), "UnknownKey", EXPIRES),
        ("bundle expired and nothing else", _text(20), "BundleExpired", EXPIRES),
        ("malformed and bundle expired", _text(20) + " ", "Malformed", EXPIRES),
    ]


def _malleated() -> list[_Case]:
    text = _text(20)
    code: CodeText = parse(text)
    assert replace(code, profile=2).signature == code.signature
    changes = {
        "line end CRLF": text + "\r\n",
        "space before": " " + text,
        "no-break space after": text + "\u00a0",
        "zero-width space after": text + "\u200b",
        "lone surrogate after": text + "\ud800",
        "question mark alone": text + "?",
        "number sign alone": text + "#",
        "semicolon": text + ";",
        "dot segment": text.replace("/01/", "/./01/"),
        "percent-encoded slash": text.replace("/01/", "%2F01/"),
        "backslash for a slash": text.replace("/01/", "\\01/"),
        "lot after the serial": text + "/10/A",
        "GTIN written as 01 in words": text.replace("/01/", "/gtin/"),
        "marks exchanged": text.replace("/01/", "/xx/").replace("/21/", "/01/").replace("/xx/", "/21/"),
        "leading zero of the signature left out": text.replace(
            text[len(_BASE) + 1 : len(_BASE) + 8], text[len(_BASE) + 1 : len(_BASE) + 7]
        ),
        "one zero more before the signature": text[: len(_BASE) + 7] + "0" + text[len(_BASE) + 7 :],
        "superscript digit": text[:-1] + "\u00b2",
        "Devanagari digit": text[:-1] + "\u0967",
        "comma in the serial": text[:-4] + "," + text[-3:],
        "text twice": text + text,
        "path alone": text[len(_BASE) :],
        "466 characters": "https://" + "a" * 268 + text[len(_BASE) :],
    }
    return [(f"malleated {note}", changed, "Malformed") for note, changed in changes.items()]

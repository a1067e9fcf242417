"""Code texts: a text is genuine exactly when a key signed it, within its scope, and nothing of it was revoked."""

import re
from datetime import UTC, datetime
from random import Random
from struct import Struct
from typing import Final

from offline_sdk import Algorithm, Bundle, BundleKey, Malformed, Revocations, Verifier, parse, segments
from offline_sdk.code_text import encode_message, encode_text
from offline_sdk.gtin import check_digit
from tests.fuzz import published
from tests.fuzz.mutation import changed_bytes, changed_text
from tests.fuzz.target import RAW, SIGNED, Target, mode_of, must
from tests.offline_sdk.named_keys import DOMAIN, EXPIRES, ISSUED, NOW, high_s, key, unreduced_s

_BASE: Final = "https://id.example.cn"
_PATH_CHARS: Final = 198
_DIGITS: Final = re.compile("[0-9]+")
_KEYS: Final = {
    0: key("code 1"),
    1: key("code 2"),
    2: key("p256 code 3"),
    3: key("code 4"),
    4: key("code 5"),
    99_999: key("code 1"),
}
_KIDS: Final = (*_KEYS, 5)
_ORDER_RANGES: Final = (("06901234567892", 10, 20), ("06901234567892", 99_999, 99_999), ("09506000134352", 0, 0))
_ITEMS: Final = frozenset(
    ("06901234567892", 30, item) for item in (0, 1, 2, 63, 64, 499_999_999, 999_999_998, 999_999_999)
)
_PREFIXES: Final = {0: ("690123456", "9506000"), 1: ("690123456",), 2: ("6", "95060001"), 99_999: ("6",)}
_LIMITED: Final = {1: (5, 40)}
_BUNDLE: Final = Bundle(
    DOMAIN,
    1,
    ISSUED,
    EXPIRES,
    (
        BundleKey(0, _KEYS[0].public, "Zero", _PREFIXES[0]),
        BundleKey(1, _KEYS[1].public, "One", _PREFIXES[1], order_min=5, order_max=40),
        BundleKey(2, _KEYS[2].public, "Two", _PREFIXES[2], algorithm=Algorithm.ESP256),
        BundleKey(3, _KEYS[3].public, "Over", ("6",), not_after=NOW - 1),
        BundleKey(4, _KEYS[4].public, "Coming", ("6",), not_before=NOW + 1),
        BundleKey(99_999, _KEYS[99_999].public, "Last", _PREFIXES[99_999]),
    ),
    Revocations.collect([99_999], _ORDER_RANGES, _ITEMS),
)
_VERIFIER: Final = Verifier(_BUNDLE, now=datetime.fromtimestamp(NOW, UTC))

# How it is signed, profile, which key number, GTIN without its check digit, order, item.
_FIELDS: Final = Struct(">BBBQII")
_STRANGER_BIT, _MALLEATE_BIT = 1, 2
_GTINS: Final = (
    690123456789,
    9506000134350 // 10,
    950600013435,
    1690123456789,
    9506000099999,
    9506000100000,
    0,
    10**13 - 1,
)
_ORDERS: Final = (0, 4, 5, 9, 10, 20, 21, 30, 40, 41, 99_998, 99_999)
_ITEM_NUMBERS: Final = (
    0,
    1,
    2,
    3,
    63,
    64,
    499_999_998,
    499_999_999,
    500_000_000,
    999_999_997,
    999_999_998,
    999_999_999,
)


def _signed_text(fields: bytes) -> tuple[str, str | None]:
    """A well-formed text of these fields, and the error that it deserves by the plainest of rules."""
    flags, profile, kid, first13, order, item = _FIELDS.unpack(fields.ljust(_FIELDS.size, b"\0")[: _FIELDS.size])
    kid, profile, order, item = _KIDS[kid % len(_KIDS)], 1 + profile % 2, order % 10**5, item % 10**9
    digits = f"{first13 % 10**13:013d}"
    gtin, serial = digits + check_digit(digits), f"{order:05d}{item:09d}"
    by = key("stranger") if flags & _STRANGER_BIT or kid not in _KEYS else _KEYS[kid]
    signature = by.sign(encode_message(profile, kid, gtin, serial))
    if flags & _MALLEATE_BIT:
        signature = high_s(signature) if by.algorithm is Algorithm.ESP256 else unreduced_s(signature)
    text = encode_text(_BASE, profile, kid, signature, gtin, serial)
    if kid not in _KEYS:
        return text, "UnknownKey"
    if flags & (_STRANGER_BIT | _MALLEATE_BIT):
        return text, "BadSignature"
    low, high = _LIMITED.get(kid, (0, 99_999))
    if not any(gtin[1:].startswith(one) for one in _PREFIXES.get(kid, ())) or not low <= order <= high:
        return text, "KeyOutOfScope"
    spans = [span for span in _ORDER_RANGES if span[0] == gtin and span[1] <= order <= span[2]]
    return text, "Revoked" if kid == 99_999 or spans or (gtin, order, item) in _ITEMS else None


_SAMPLES: Final = tuple(
    _signed_text(_FIELDS.pack(0, profile, at, gtin, order, item))
    for profile, at, gtin, order, item in (
        (0, 0, _GTINS[0], 1, 975_404_383), (1, 0, _GTINS[0], 1, 975_404_383), (0, 1, _GTINS[0], 40, 999_999_999),
        (0, 2, _GTINS[0], 7, 0), (1, 2, _GTINS[1] * 10, 7, 5), (0, 5, _GTINS[0], 2, 2), (0, 3, _GTINS[0], 2, 2),
        (0, 0, _GTINS[0], 15, 1), (0, 0, _GTINS[0], 30, 64), (0, 6, _GTINS[0], 30, 65),
    )
)  # fmt: skip
_TEXTS: Final = tuple(text for text, _error in _SAMPLES)
_GENUINE_PATHS: Final = frozenset(text[-_PATH_CHARS:] for text, error in _SAMPLES if error is None)


def base_is_right(base: str) -> bool:
    """The rules of docs/code-text.md, spelled out without a pattern."""
    if base != base.lower() and base != base.upper():
        return False
    scheme, mark, rest = base.lower().partition("://")
    host, colon, port = rest.partition(":")
    if scheme not in ("http", "https") or not mark or not base.isascii() or len(host) > 253:
        return False
    if colon and not (port.isdigit() and port[0] != "0" and int(port) <= 65_535 and len(port) <= 5):
        return False
    labels = host.split(".")
    if len(labels) == 4 and all(one.isdigit() for one in labels):
        return all(str(int(one)) == one and int(one) <= 255 for one in labels)
    letters = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
    return labels[-1][:1].isalpha() and all(
        1 <= len(one) <= 63 and letters.issuperset(one) and one[0] != "-" != one[-1] for one in labels
    )


def _check(data: bytes) -> str:
    mode, rest = mode_of(data, 2)
    if mode == SIGNED:
        text, expected = _signed_text(rest)
    else:
        text = rest.decode("utf-8", "surrogatepass") if _is_text(rest) else rest.decode("latin-1")
        genuine = text[-_PATH_CHARS:] in _GENUINE_PATHS and base_is_right(text[:-_PATH_CHARS])
        expected = None if genuine else "anything"
    verdict = _VERIFIER.check(text)
    must(verdict.is_genuine == (expected is None), "a text is genuine when and only when its fields were signed")
    must(expected in (verdict.error, "anything"), "the verdict names what is wrong")
    must((verdict.error is None) == (verdict.verdict == "genuine"), "verdict and error agree")
    try:
        code = parse(text)
    except Malformed:
        must(verdict.error == "Malformed" and verdict.gtin is None, "what cannot be parsed is Malformed")
    else:
        must(verdict.error != "Malformed", "what can be parsed is not Malformed")
        must(code.text(text[:-_PATH_CHARS]) == text, "a text has one form")
        must("".join(segments(text)) == text, "the segments are the text")
    return f"{verdict.error} {_DIGITS.sub('', verdict.message)}"


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _mutate(data: bytes, dice: Random) -> bytes:
    mode, rest = mode_of(data, 2)
    if mode == SIGNED and dice.random() < 0.9:
        flags = dice.choice((0, 0, 0, 0, 0, 0, 1, 2, 3))
        return bytes([SIGNED]) + _FIELDS.pack(
            flags,
            dice.randrange(2),
            dice.randrange(len(_KIDS)),
            _pick(_GTINS, 13, dice),
            _pick(_ORDERS, 5, dice),
            _pick(_ITEM_NUMBERS, 9, dice),
        )
    if _is_text(rest) and dice.random() < 0.9:
        text = changed_text(rest.decode("utf-8", "surrogatepass") or _BASE, _TEXTS, dice)
        return bytes([RAW]) + text.encode("utf-8", "surrogatepass")
    return bytes([RAW]) + changed_bytes(rest, tuple(text.encode() for text in _TEXTS), dice)


def _pick(borders: tuple[int, ...], digits: int, dice: Random) -> int:
    return dice.choice(borders) if dice.random() < 0.8 else dice.randrange(10**digits)


TARGET: Final = Target(
    "code_text",
    (
        *(bytes([RAW]) + text.encode("utf-8", "surrogatepass") for text in (*_TEXTS, *published.malformed_texts())),
        *(bytes([SIGNED, 0, 0, kid]).ljust(1 + _FIELDS.size, b"\0") for kid in range(len(_KIDS))),
    ),
    _mutate,
    _check,
)

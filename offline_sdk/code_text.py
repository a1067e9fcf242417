"""Code text: the one place where the text of an item's code is encoded and decoded.

    https://HOST/PKKKKKSSS…SSS/01/GTIN/21/SERIAL

docs/code-text.md describes the format to the byte. A text is canonical or it is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import Final

from .errors import CodeLabel, Malformed
from .gtin import GTIN_DIGITS, check_digit_is_right
from .gtin import is_valid as gtin_is_valid

PROFILE_DIGITS: Final = 1
KID_DIGITS: Final = 5
KID_MAX: Final = 10**KID_DIGITS - 1
SIGNATURE_BYTES: Final = 64
SIGNATURE_DIGITS: Final = 155  # the decimal digits of 2^512 - 1
SIGNED_DIGITS: Final = PROFILE_DIGITS + KID_DIGITS + SIGNATURE_DIGITS
ORDER_DIGITS: Final = 5
ORDER_MAX: Final = 10**ORDER_DIGITS - 1
ITEM_DIGITS: Final = 9
ITEM_MAX: Final = 10**ITEM_DIGITS - 1
SERIAL_DIGITS: Final = ORDER_DIGITS + ITEM_DIGITS
GTIN_MARK: Final = "/01/"  # GS1 Application Identifier 01: GTIN
SERIAL_MARK: Final = "/21/"  # GS1 Application Identifier 21: serial number
PATH_CHARS: Final = 1 + SIGNED_DIGITS + len(GTIN_MARK) + GTIN_DIGITS + len(SERIAL_MARK) + SERIAL_DIGITS
LABEL_CHARS_MAX: Final = 63  # RFC 1035, 2.3.4
HOST_CHARS_MAX: Final = 253  # RFC 1035, 2.3.4: 255 octets on the wire are 253 characters of text
PORT_MAX: Final = 65_535
BASE_URL_CHARS_MAX: Final = len("https://") + HOST_CHARS_MAX + len(":65535")
TEXT_CHARS_MAX: Final = BASE_URL_CHARS_MAX + PATH_CHARS
MESSAGE_PREFIX: Final = b"fanxing/code/v1\x00"

# prefix, u8 profile, u32 key number, u64 GTIN, u8 length of the serial, the serial; big-endian, no padding.
_MESSAGE: Final = Struct(f">{len(MESSAGE_PREFIX)}sBIQB{SERIAL_DIGITS}s")
MESSAGE_BYTES: Final = _MESSAGE.size

# [0-9] and not \d: \d also matches the digits of other scripts, and int() would read them.
_PATH: Final = re.compile(
    f"/([12])([0-9]{{{KID_DIGITS}}})([0-9]{{{SIGNATURE_DIGITS}}})"
    f"{GTIN_MARK}([0-9]{{{GTIN_DIGITS}}}){SERIAL_MARK}([0-9]{{{SERIAL_DIGITS}}})"
)
_SIGNED_HEAD: Final = re.compile(f"/([12])([0-9]{{{KID_DIGITS}}})")
_SIGNED_HEAD_CHARS: Final = 1 + PROFILE_DIGITS + KID_DIGITS
_MARKED_GTIN: Final = re.compile(f"{GTIN_MARK}([0-9]{{{GTIN_DIGITS}}}){SERIAL_MARK}")
_GTIN_FROM_END: Final = len(GTIN_MARK) + GTIN_DIGITS + len(SERIAL_MARK) + SERIAL_DIGITS
_SIGNATURE_FROM_END: Final = _GTIN_FROM_END + SIGNATURE_DIGITS
_SERIAL: Final = re.compile(f"[0-9]{{{SERIAL_DIGITS}}}")
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def _base_url_form(scheme: str, letters: str) -> str:
    label = f"[{letters}0-9](?:[{letters}0-9-]{{0,{LABEL_CHARS_MAX - 2}}}[{letters}0-9])?"
    # The last label starts with a letter: browsers read a host whose last label is a number ("1.2.3", "a.0x7f") as an
    # IPv4 address and rewrite it (WHATWG URL, "ends in a number checker"), so such a text would not stay itself.
    last_label = f"[{letters}](?:[{letters}0-9-]{{0,{LABEL_CHARS_MAX - 2}}}[{letters}0-9])?"
    return f"{scheme}://((?:{label}\\.)*{last_label}|{_OCTET}(?:\\.{_OCTET}){{3}})(?::([1-9][0-9]{{0,4}}))?"


_BASE_URL: Final = re.compile(_base_url_form("https?", "a-z"))
_UPPER_CASE_BASE_URL: Final = re.compile(_base_url_form("HTTPS?", "A-Z"))
_BASE_URLS_REMEMBERED: Final = 256
_HEADS_REMEMBERED: Final = 1024
_ONE_IN_FRONT: Final = 10**SIGNATURE_DIGITS
_SIGNATURES: Final = 2 ** (8 * SIGNATURE_BYTES)


_GTIN_WRONG: Final = "the GTIN is not 14 digits with a right check digit; read the code again"
_BASE_URL_WRONG: Final = (
    "the part before the path is not http:// or https://, a host and at most a port 1 to 65535, all lower-case or all "
    "upper-case; write it like https://id.example.cn, without a path or a slash at its end"
)


class Profile(IntEnum):
    """Which of an item's codes a text is."""

    OUTER = 1
    """Printed outside, public: proves origin."""
    INNER = 2
    """Covered until bought, a secret: pays rewards."""


@dataclass(frozen=True, slots=True)
class CodeText:
    """The fields of one code text; building one with a field out of range raises Malformed.

    `profile` 1 or 2; `kid` 0..99999; `gtin` 14 digits with a right check digit; `serial` 14 digits;
    `signature` 64 bytes, R then S as the key's algorithm has them, not verified here and left out of the repr.
    """

    profile: int
    kid: int
    gtin: str
    serial: str
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _is_int(self.profile) or self.profile not in (1, 2):
            raise Malformed("the profile is not 1 (outer) or 2 (inner)")
        if not _is_int(self.kid) or not 0 <= self.kid <= KID_MAX:
            raise Malformed(f"the key number is not a whole number from 0 to {KID_MAX}")
        if not gtin_is_valid(self.gtin):
            raise Malformed(_GTIN_WRONG)
        if not isinstance(self.serial, str) or _SERIAL.fullmatch(self.serial) is None:
            raise Malformed(f"the serial is not {SERIAL_DIGITS} digits")
        if not isinstance(self.signature, bytes) or len(self.signature) != SIGNATURE_BYTES:
            raise Malformed(f"the signature is not {SIGNATURE_BYTES} bytes")

    @property
    def order(self) -> int:
        """The order number, 0..99999: the first five digits of the serial."""
        return int(self.serial[:ORDER_DIGITS])

    @property
    def item_number(self) -> int:
        """The item number within the order, 0..999,999,999: the last nine digits of the serial."""
        return int(self.serial[ORDER_DIGITS:])

    @property
    def label(self) -> CodeLabel:
        """The fields without the signature: safe to log and to show."""
        return CodeLabel(self.profile, self.kid, self.gtin, self.serial)

    def message(self) -> bytes:
        """The 44 bytes that the signature covers; scheme and host are not among them."""
        return _message_head(self.profile, self.kid, self.gtin) + self.serial.encode()

    def text(self, base_url: str) -> str:
        """The code text under this base URL; raises Malformed when `check_base_url` does."""
        return encode_text(check_base_url(base_url), self.profile, self.kid, self.signature, self.gtin, self.serial)


def parse(text: str) -> CodeText:
    """Read a code text, or raise Malformed for anything that is not exactly canonical, of whatever type.

    Time is linear in the length, and a text longer than TEXT_CHARS_MAX is refused before it is looked at.
    The signature is read, not verified: see `Verifier`.
    """
    if not isinstance(text, str):
        raise Malformed("not a text; pass the characters read from the code as str")
    chars = len(text)
    if chars > TEXT_CHARS_MAX:
        raise Malformed(f"longer than any code text ({TEXT_CHARS_MAX} characters); this is not an item code")
    # What a scanner meets again and again, the text up to the key number and the GTIN between its marks, is looked up;
    # what is new in each text is digits, which bytes tell soonest. Whatever is not right is then asked what is wrong.
    if chars > PATH_CHARS and text.isascii():
        signed, gtin_mark = chars - _SIGNATURE_FROM_END, chars - _GTIN_FROM_END
        head, gtin = _head(text[:signed]), _gtin(text[gtin_mark:-SERIAL_DIGITS])
        digits, serial = text[signed:gtin_mark].encode(), text[-SERIAL_DIGITS:]
        if head is not None and gtin is not None and digits.isdigit() and serial.isdigit():
            number = int(digits)
            if number < _SIGNATURES:
                return _assemble(*head, gtin, serial, number.to_bytes(SIGNATURE_BYTES, "big"))
    raise Malformed(_what_is_wrong(text))


def _what_is_wrong(text: str) -> str:
    found = _PATH.fullmatch(text, len(text) - PATH_CHARS)
    if found is None:
        return (
            "not /, 161 digits, /01/, 14 digits, /21/, 14 digits after the host, and nothing more; "
            "pass the text exactly as the code holds it"
        )
    if not _base_url_is_right(text[:-PATH_CHARS]):
        return _BASE_URL_WRONG
    if int(found[3]) >= _SIGNATURES:
        return "the signature digits stand for a number above 2^512 - 1; this is not an item code"
    return _GTIN_WRONG


@lru_cache(maxsize=_HEADS_REMEMBERED)
def _head(before_signature: str) -> tuple[int, int] | None:
    """Profile and key number of the part of a text before its signature, or None when that is not canonical."""
    found = _SIGNED_HEAD.fullmatch(before_signature, max(0, len(before_signature) - _SIGNED_HEAD_CHARS))
    if found is None or not _base_url_is_right(before_signature[:-_SIGNED_HEAD_CHARS]):
        return None
    return int(found[1]), int(found[2])


@lru_cache(maxsize=_HEADS_REMEMBERED)
def _gtin(marked: str) -> str | None:
    """The GTIN of the part of a text from one mark to the other, or None when that is not canonical."""
    found = _MARKED_GTIN.fullmatch(marked)
    return found[1] if found is not None and check_digit_is_right(found[1]) else None


@lru_cache(maxsize=_HEADS_REMEMBERED)
def _message_head(profile: int, kid: int, gtin: str) -> bytes:
    return encode_message(profile, kid, gtin, "0" * SERIAL_DIGITS)[:-SERIAL_DIGITS]


def encode_message(profile: int, kid: int, gtin: str, serial: str) -> bytes:
    """Return the 44 bytes that are signed for an item.

    Made for the generation loop, so it trusts its arguments: pass only values that a CodeText would accept.
    """
    return _MESSAGE.pack(MESSAGE_PREFIX, profile, kid, int(gtin), SERIAL_DIGITS, serial.encode("ascii"))


def encode_text(base_url: str, profile: int, kid: int, signature: bytes, gtin: str, serial: str) -> str:
    """Return the code text of a signed item; it trusts its arguments as `encode_texts` does."""
    (text,) = encode_texts(base_url, profile, kid, gtin, (serial,), (signature,))
    return text


def encode_messages(profile: int, kid: int, gtin: str, serials: Sequence[str]) -> list[bytes]:
    """Return the 44 bytes that are signed for each item.

    Made for the generation loop, so it trusts its arguments: pass only values that a CodeText would accept.
    """
    head = _message_head(profile, kid, gtin)
    return [head + serial.encode("ascii") for serial in serials]


def encode_texts(
    base_url: str, profile: int, kid: int, gtin: str, serials: Sequence[str], signatures: Sequence[bytes]
) -> list[str]:
    """Return the code text of each signed item.

    Made for the generation loop, so it trusts its arguments: pass a base URL that `check_base_url` returned and
    otherwise only values that a CodeText would accept.
    """
    head = f"{base_url}/{profile:d}{kid:05d}"
    tail = f"{GTIN_MARK}{gtin}{SERIAL_MARK}"
    number = int.from_bytes
    # A one in front keeps the leading zeros, and costs two thirds of what padding by a format does.
    return [
        f"{head}{str(number(signature, 'big') + _ONE_IN_FRONT)[1:]}{tail}{serial}"
        for serial, signature in zip(serials, signatures, strict=True)
    ]


def check_base_url(base_url: str) -> str:
    """Return the base URL unchanged, or raise Malformed unless it is `http://` or `https://`, a host, maybe a port.

    Scheme and host are all lower-case, or all upper-case: the upper-case profile, which makes a smaller QR symbol. The
    host is labels of ASCII letters, digits and inner hyphens (the last one starting with a letter), or a
    dotted-decimal IPv4 address; the port is 1..65535 without leading zeros; there is no path, not even "/".
    Source: a subset of RFC 3986, 3.2, with the label rules of RFC 1123, 2.1.
    """
    if not isinstance(base_url, str) or len(base_url) > BASE_URL_CHARS_MAX or not _base_url_is_right(base_url):
        raise Malformed(_BASE_URL_WRONG)
    return base_url


def segments(text: str) -> tuple[str, str, str, str, str, str]:
    """Cut a code text into the six segments of its QR symbol; raises Malformed when `parse` does.

    Base URL and "/", 161 digits, "/01/", 14 digits, "/21/", 14 digits. Their modes are byte, numeric, alphanumeric,
    numeric, alphanumeric, numeric (ISO/IEC 18004, 7.4); under an upper-case base URL the first is alphanumeric too.
    """
    parse(text)
    signed = len(text) - PATH_CHARS + 1
    gtin_mark = signed + SIGNED_DIGITS
    gtin = gtin_mark + len(GTIN_MARK)
    serial_mark = gtin + GTIN_DIGITS
    serial = serial_mark + len(SERIAL_MARK)
    return (
        text[:signed],
        text[signed:gtin_mark],
        text[gtin_mark:gtin],
        text[gtin:serial_mark],
        text[serial_mark:serial],
        text[serial:],
    )


def _assemble(profile: int, kid: int, gtin: str, serial: str, signature: bytes) -> CodeText:
    # parse() has just checked all that __post_init__ would check again, and doubling it costs a third of its time.
    code = object.__new__(CodeText)
    _put_profile(code, profile)
    _put_kid(code, kid)
    _put_gtin(code, gtin)
    _put_serial(code, serial)
    _put_signature(code, signature)
    return code


# The slots themselves: object.__setattr__ would look each up by its name, in every parse.
_put_profile, _put_kid, _put_gtin, _put_serial, _put_signature = (
    vars(CodeText)[name].__set__ for name in ("profile", "kid", "gtin", "serial", "signature")
)


# A scanner meets few hosts and many codes; a stranger's flood of hosts can only push entries out.
@lru_cache(maxsize=_BASE_URLS_REMEMBERED)
def _base_url_is_right(base_url: str) -> bool:
    found = _BASE_URL.fullmatch(base_url) or _UPPER_CASE_BASE_URL.fullmatch(base_url)
    if found is None:
        return False
    host, port = found.groups()
    return len(host) <= HOST_CHARS_MAX and (port is None or int(port) <= PORT_MAX)


def _is_int(value: object) -> bool:
    # True and False are ints to Python, but nobody means them as a number.
    return isinstance(value, int) and not isinstance(value, bool)

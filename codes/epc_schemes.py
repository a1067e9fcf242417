"""EPC schemes: how the parts of an EPC URN and the GS1 keys they stand for turn into each other.

Schemes are those of the EPC Tag Data Standard (TDS) 2.x, clause 6, conversions those of its clause 7.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from codes.digital_link import CANONICAL_STEM, written
from codes.gs1.dictionary import ELEMENTS
from codes.gs1.linters import check_digit
from kit.errors import Invalid

COMPANY_PREFIX_DIGITS_MIN: Final = 6
COMPANY_PREFIX_DIGITS_MAX: Final = 12
NO_EXTENSION: Final = "0"
"""TDS 6.3.3: an SGLN whose extension is a single 0 is the GLN without one."""
_CLASSES_KEPT: Final = 8_192

_PREFIX: Final = re.compile(f"[0-9]{{{COMPANY_PREFIX_DIGITS_MIN},{COMPANY_PREFIX_DIGITS_MAX}}}")
_TEXT: Final = re.compile(r"(?:[!'()*+,.0-9:;=A-Z_a-z-]|%[0-9A-Fa-f]{2})+")
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
_URN_SAFE: Final = "!'()*+,.:;=_-"


class EpcUriInvalid(Invalid):
    """An EPC URN, or a pattern of EPCs, that the Tag Data Standard does not allow."""

    code = "EpcUriInvalid"


@dataclass(frozen=True, slots=True, eq=False)
class Scheme:
    """How a scheme's URN (prefix.reference[.extra…][.serial]) and its key correspond."""

    name: str
    ai: str
    digits: int = 0
    """Of company prefix and reference together; 0 where the reference is text of any length."""
    reference_leads: bool = False
    """The first digit of the reference is the first of the key (indicator, extension digit)."""
    key_begins: str = ""
    """What the key has before the prefix."""
    extra: tuple[int, ...] = ()
    """Digits of further parts that follow the check digit."""
    serial_ai: str = ""
    """The qualifier that carries the serial; empty where the key itself does, or there is none."""
    has_serial: bool = True

    @property
    def has_classes(self) -> bool:
        """The key without its serial names a class of things (CBV 2.0, 8.3)."""
        return self.has_serial and self.name not in {"sgln", "lgtin"}

    @property
    def key_digits(self) -> int:
        """Digits of the key up to its check digit."""
        return len(self.key_begins) + self.digits + 1

    def parts(self, body: str) -> list[str]:
        """What stands behind the scheme in a URN, part by part, not looked at yet."""
        count = 2 + len(self.extra) + self.has_serial
        # A serial may have dots in it, so it is what is left.
        parts = body.split(".", count - 1)
        if len(parts) != count or (self.has_serial and not parts[-1]):
            raise EpcUriInvalid(f"{self.name} has {count} parts with dots between")
        return parts

    def text(self, raw: str) -> str:
        """A serial or a reference that is text, unescaped."""
        if _TEXT.fullmatch(raw) is None:
            raise EpcUriInvalid(f"{self.name} has a character that a URN must escape, or an incomplete escape")
        return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), raw) if "%" in raw else raw

    def check_prefix(self, prefix: str) -> None:
        if _PREFIX.fullmatch(prefix) is None:
            limits = f"{COMPANY_PREFIX_DIGITS_MIN} to {COMPANY_PREFIX_DIGITS_MAX}"
            raise EpcUriInvalid(f"the company prefix of {self.name} is not {limits} digits")

    def key(self, prefix: str, reference: str, extra: tuple[str, ...]) -> str:
        """The key's value without a serial; the check digit is made here."""
        self.check_prefix(prefix)
        if not self.digits:
            return prefix + self.text(reference)
        together = prefix + reference
        if len(together) != self.digits or not (together.isascii() and together.isdecimal()):
            raise EpcUriInvalid(f"prefix and reference of {self.name} are not {self.digits} digits together")
        if self.reference_leads:
            together = reference[0] + prefix + reference[1:]
        for part, length in zip(extra, self.extra, strict=True):
            if len(part) != length or not (part.isascii() and part.isdecimal()):
                raise EpcUriInvalid(f"a part of {self.name} is not {length} digits")
        return self.key_begins + together + check_digit(together) + "".join(extra)

    def name_of(self, prefix: str, reference: str, extra: tuple[str, ...], serial: str) -> str:
        """The canonical name of these parts, each held to what its AI may have; without a serial, of the class."""
        if self.serial_ai:
            above = self._class_name(prefix, reference, extra)
            if not serial or (self.serial_ai == "254" and serial == NO_EXTENSION):
                return above
            self._check(self.serial_ai, serial)
            return f"{above}/{written(self.serial_ai, serial)}"
        key = self.key(prefix, reference, extra) + serial
        self._check(self.ai, key)
        return f"{CANONICAL_STEM}/{written(self.ai, key)}"

    @lru_cache(maxsize=_CLASSES_KEPT)  # noqa: B019 - the schemes are few and live as long as the process
    def _class_name(self, prefix: str, reference: str, extra: tuple[str, ...]) -> str:
        key = self.key(prefix, reference, extra)
        self._check(self.ai, key)
        return f"{CANONICAL_STEM}/{written(self.ai, key)}"

    def _check(self, ai: str, value: str) -> None:
        if fault := ELEMENTS[ai].fault(value):
            raise EpcUriInvalid(f"{self.name}, as AI ({ai}): {fault.what}")

    def split(self, value: str, prefix_digits: int) -> tuple[list[str], str]:
        """Prefix, reference and extra parts of a key as a URN has them, and the serial that the key itself carries."""
        if not self.digits:
            prefix, reference = value[:prefix_digits], value[prefix_digits:]
            if _PREFIX.fullmatch(prefix) is None or not reference:
                raise EpcUriInvalid(f"this {self.name} does not begin with so long a company prefix")
            return [prefix, urn_text(reference)], ""
        digits = value[len(self.key_begins) :][: self.digits]
        if self.reference_leads:
            digits = digits[1 : prefix_digits + 1] + digits[0] + digits[prefix_digits + 1 :]
        rest = value[self.key_digits :]
        extra = list(_cut(rest, self.extra))
        return [digits[:prefix_digits], digits[prefix_digits:], *extra], rest[sum(self.extra) :]


def urn_text(text: str) -> str:
    """Text as a URN has it: escaped where TDS, table A-1, says so."""
    return quote(text, safe=_URN_SAFE)


def _cut(text: str, lengths: tuple[int, ...]) -> Iterator[str]:
    for length in lengths:
        yield text[:length]
        text = text[length:]


_ALL: Final = (
    Scheme("sgtin", "01", 13, reference_leads=True, serial_ai="21"),
    Scheme("sscc", "00", 17, reference_leads=True, has_serial=False),
    Scheme("sgln", "414", 12, serial_ai="254"),
    Scheme("grai", "8003", 12, key_begins="0"),
    Scheme("giai", "8004", has_serial=False),
    Scheme("gsrn", "8018", 17, has_serial=False),
    Scheme("gsrnp", "8017", 17, has_serial=False),
    Scheme("gdti", "253", 12),
    Scheme("cpi", "8010", serial_ai="8011"),
    Scheme("sgcn", "255", 12),
    Scheme("ginc", "401", has_serial=False),
    Scheme("gsin", "402", 16, has_serial=False),
    Scheme("itip", "8006", 13, reference_leads=True, extra=(2, 2), serial_ai="21"),
    Scheme("upui", "01", 13, reference_leads=True, serial_ai="235"),
    Scheme("pgln", "417", 12, has_serial=False),
)
LGTIN: Final = Scheme("lgtin", "01", 13, reference_leads=True, serial_ai="10")
_OF_NAME: Final = {("id", scheme.name): scheme for scheme in _ALL} | {("class", "lgtin"): LGTIN}
OF_KEY: Final = {scheme.ai: scheme for scheme in reversed(_ALL)}
OF_QUALIFIED_KEY: Final = {(scheme.ai, scheme.serial_ai): scheme for scheme in (*_ALL, LGTIN) if scheme.serial_ai}


def scheme_of(kind: str, name: str) -> Scheme:
    """The scheme of urn:epc:KIND:NAME, KIND being id or class."""
    scheme = _OF_NAME.get((kind, name))
    if scheme is None:
        raise EpcUriInvalid(f"urn:epc:{kind} has no scheme of this name", hint="TDS, clause 6 lists them")
    return scheme

"""Phone numbers: one form for each, whoever wrote it, and the keyed hash that finds it."""

import re
from collections.abc import Sequence
from typing import Any

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumberFormat, PhoneNumberType

from kit.errors import Invalid
from kit.vault import Vault

PHONE_REGION_DEFAULT = "CN"
PHONE_CHARACTERS_MAX = 32
LAST_DIGITS_SHOWN = 4

_MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
# Nearly every number is a Chinese mobile one, and asking the library about it costs a hundred times this expression.
# The pattern is the library's own, so that a new prefix comes with a new version of it.
_CHINESE: Any = PhoneMetadata.metadata_for_region("CN")
_CHINESE_MOBILE = re.compile(rf"(?:\+86)?({_CHINESE.mobile.national_number_pattern})", re.ASCII)
_CHINESE_LINES = re.compile(rf"^(?:\+86)?({_CHINESE.mobile.national_number_pattern})$", re.ASCII | re.MULTILINE)
_WRITTEN_BETWEEN = str.maketrans("", "", " -")


class PhoneInvalid(Invalid):
    """The text is not a mobile phone number."""

    code = "PhoneInvalid"


def parse_phone(text: str, region: str = PHONE_REGION_DEFAULT) -> str:
    """The mobile number in E.164 form, for example +8613800138000.

    A number without a country code is taken to be of `region`. Raises PhoneInvalid.
    """
    if region == PHONE_REGION_DEFAULT and len(text) <= PHONE_CHARACTERS_MAX:
        chinese = _CHINESE_MOBILE.fullmatch(text.translate(_WRITTEN_BETWEEN))
        if chinese is not None:
            return "+86" + chinese[1]
    return parse_any_phone(text, region)


def parse_chinese_phones(texts: Sequence[str]) -> list[str] | None:
    """What `parse_phone` makes of each; None when one of them is not plainly a Chinese mobile number.

    A tenth of the time, for the thousands of rows of a file.
    """
    lines = "\n".join(texts)
    found = _CHINESE_LINES.findall(lines)
    # As many as there are lines, and no text of several lines: each is one number.
    if len(found) != len(texts) or lines.count("\n") != len(texts) - 1:
        return None
    return [f"+86{national}" for national in found]


def parse_any_phone(text: str, region: str = PHONE_REGION_DEFAULT) -> str:
    """The same for every country, by the library alone."""
    try:
        if len(text) > PHONE_CHARACTERS_MAX:
            raise ValueError
        number = phonenumbers.parse(text, region)
        if not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) not in _MOBILE:
            raise ValueError
    except (phonenumbers.NumberParseException, ValueError):
        # The number itself stays out of the message: messages are logged.
        raise PhoneInvalid(
            "this is not a mobile phone number",
            hint="Send a number of China, or one with + and its country code.",
        ) from None
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def phone_fingerprint(vault: Vault, group_id: int, phone_e164: str) -> bytes:
    """The keyed hash under which a number is found in one group; the same number differs between groups."""
    return vault.fingerprint("member-phone", f"{group_id}\x00{phone_e164}")

"""Coupon codes: drawn at random, read as people type them, stored sealed, and found by keyed hashes."""

import secrets
import unicodedata
import uuid

from kit.vault import Vault

CODE_CHARACTERS = 16
"""80 random bits: nobody guesses a coupon that is worth having."""
POOL_CODE_CHARACTERS_MIN = 4
POOL_CODE_CHARACTERS_MAX = 64
POOL_FINGERPRINT_BYTES = 16
"""Half a hash: a billion codes collide with a chance of 10^-21, and the indexes are half as large."""
_CODE_GROUP = 4
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_READ_AS = str.maketrans("ILO", "110")


def new_code() -> str:
    """A code of our own: 16 characters of Crockford's base 32, ungrouped."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(CODE_CHARACTERS))


def show_code(code: str) -> str:
    """The code in groups of four, as people read it aloud."""
    return "-".join(code[start : start + _CODE_GROUP] for start in range(0, len(code), _CODE_GROUP))


def fingerprint(vault: Vault, code: str) -> bytes:
    """The 32-byte keyed hash under which a code of our own is found, however it was typed."""
    # Anything may stand between the groups, and letters that look like digits are read as digits.
    kept = "".join(c for c in unicodedata.normalize("NFKC", code).upper() if c.isalnum())
    return vault.fingerprint("coupon-code", kept.translate(_READ_AS))


def pool_fingerprint(vault: Vault, code: str) -> bytes:
    """The 16-byte keyed hash under which an imported code is found. It must be typed exactly, but for outer spaces."""
    plain = code.strip().encode("ascii", "backslashreplace").decode()  # what is typed may be no text at all
    return vault.fingerprint("pool-code", plain)[:POOL_FINGERPRINT_BYTES]


def seal(vault: Vault, code: str, held_id: uuid.UUID) -> bytes:
    """The code as it is stored with the held benefit that it belongs to."""
    return vault.seal(code.encode(), _context(held_id))


def unseal(vault: Vault, sealed: bytes, held_id: uuid.UUID) -> str:
    return vault.unseal(sealed, _context(held_id)).decode()


def _context(held_id: uuid.UUID) -> bytes:
    return b"coupon-code" + held_id.bytes

"""Signing of an order's items: their numbers and signatures, by one who holds serial key and signing key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from codes.pipeline import Recipe, Sign, Signed
from codes.serials import ITEM_NUMBERS, SerialScheme
from offline_sdk.code_text import ORDER_DIGITS, Profile, encode_messages
from signer.keys import SigningKey
from signer.service import SigningAccess

SignMany = Callable[[Sequence[bytes]], list[bytes]]
"""Signs messages, in order, with the order's key."""


def order_signer(recipe: Recipe, scheme: SerialScheme, sign_many: SignMany) -> Sign:
    """Sign items of this order and of no other. Raises ValueError for issue indexes that it does not have."""

    before = (10**ORDER_DIGITS + recipe.order_number) * ITEM_NUMBERS

    def sign(face: Profile, start: int, count: int) -> Signed:
        if face not in recipe.faces or not 0 <= start < start + count <= recipe.quantity:
            raise ValueError("the order has no such items")
        numbers = scheme.item_numbers(recipe.gtin, recipe.order_number, start, count)
        # A one in front of order number and item number keeps their leading zeros; a format would cost three times.
        serials = [text[1:] for text in map(str, (numbers + before).tolist())]
        return Signed(serials, sign_many(encode_messages(int(face), recipe.kid, recipe.gtin, serials)))

    return sign


@dataclass(frozen=True, slots=True)
class CustodyAccess:
    """How a worker that may use the keys signs: it opens the order's key by itself."""

    custody: SigningAccess
    key: SigningKey
    scheme: SerialScheme = field(repr=False)

    def signer(self, recipe: Recipe) -> Sign:
        """Raises CustodyError when the key does not open."""
        signing = self.custody.open()
        signing.open_key(self.key)
        return order_signer(recipe, self.scheme, partial(signing.sign_many, self.key))

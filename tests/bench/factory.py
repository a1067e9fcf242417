"""A factory without a database: one key in file custody, and orders of any size for it to sign."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from codes import pipeline
from codes.orders import CodeOrder
from codes.serials import SerialScheme
from offline_sdk.code_text import Profile, encode_message
from signer import service
from signer.custody.file import FileCustody
from signer.keys import SigningKey

GTIN = "09506000134352"
BASE_URL = "https://id.example.cn"
KID = 1
_KEY_NAME = "key-00001"


class Factory:
    """Everything that `fanxing order create` works with, apart from the rows."""

    def __init__(self, folder: Path) -> None:
        custody = FileCustody(folder, lambda: "a passphrase for measurements alone")
        self.public = custody.create(_KEY_NAME)
        self._signer = service.SigningService(custody)
        now = datetime.now(UTC)
        self._key = SigningKey(kid=KID, issuer_id=1, public=self.public, custody_name=_KEY_NAME, created_at=now)
        self.scheme = SerialScheme(os.urandom(32))
        self._signer.open_key(self._key)

    def order(self, quantity: int) -> CodeOrder:
        """An order of outer codes."""
        return CodeOrder(
            order_id=1,
            gtin=GTIN,
            order_number=1,
            quantity=quantity,
            outer_face=True,
            inner_face=False,
            base_url=BASE_URL,
            kid=KID,
            created_at=datetime.now(UTC),
        )

    def sign(self, messages: Sequence[bytes]) -> list[bytes]:
        return self._signer.sign_many(self._key, messages)

    def messages(self, order: CodeOrder) -> list[bytes]:
        """What is signed for the order's outer codes."""
        numbers = self.scheme.item_numbers(order.gtin, order.order_number, 0, order.quantity).tolist()
        return [encode_message(Profile.OUTER, order.kid, order.gtin, order.serial(number)) for number in numbers]

    def texts(self, quantity: int) -> list[str]:
        """So many code texts."""
        chunks = pipeline.generate(self.order(quantity), self.scheme, self.sign)
        return [text for chunk in chunks for text in chunk.texts]

"""Signing: makes keys, and signs with them, through whatever custody holds the private side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from kit.db import Session
from kit.errors import Conflict
from signer.custody import Custody, PrivateKeyMissing
from signer.custody.file import FileCustody
from signer.keys import (
    ORDER_NUMBER_MAX,
    ORDER_NUMBER_MIN,
    Issuer,
    KeyState,
    SigningKey,
    SigningKeyInvalid,
    active_key,
    end_key,
    next_kid,
    take_turn,
)

_ROOT_NAME = "root"


class SigningKeyNotActive(Conflict):
    code = "SigningKeyNotActive"


class SigningService:
    """Signs messages with the keys of one trust domain."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    def root(self) -> bytes:
        """The 32-byte public key of the root, which signs trust bundles; the key is made when there is none yet."""
        try:
            return self._custody.open(_ROOT_NAME)
        except PrivateKeyMissing:
            return self._custody.create(_ROOT_NAME)

    def sign_as_root(self, message: bytes) -> bytes:
        """A 64-byte Ed25519 signature (RFC 8032) by the root key."""
        return self._custody.sign_many(_ROOT_NAME, [message])[0]

    async def create_key(
        self,
        session: Session,
        issuer: Issuer,
        now: datetime,
        *,
        order_min: int = ORDER_NUMBER_MIN,
        order_max: int = ORDER_NUMBER_MAX,
    ) -> SigningKey:
        """Give the issuer a new active key under the next free key number.

        It may sign the orders `order_min` to `order_max`, both included. Raises SigningKeyInvalid unless they lie in
        1..99999 in this order.
        """
        if not ORDER_NUMBER_MIN <= order_min <= order_max <= ORDER_NUMBER_MAX:
            raise SigningKeyInvalid(f"a key's order range lies in {ORDER_NUMBER_MIN} to {ORDER_NUMBER_MAX}")
        assert issuer.issuer_id is not None  # rows read from the database have their key
        await take_turn(session)
        kid = await next_kid(session)
        # The name carries the moment: a rolled-back transaction leaves a key file behind, and its number comes again.
        name = f"key-{kid:05d}-{now:%Y%m%d%H%M%S%f}"
        key = SigningKey(
            kid=kid,
            issuer_id=issuer.issuer_id,
            public=self._custody.create(name),
            order_min=order_min,
            order_max=order_max,
            custody_name=name,
            created_at=now,
        )
        session.add(key)
        await session.flush()
        return key

    async def rotate_key(self, session: Session, issuer: Issuer, now: datetime) -> tuple[SigningKey, SigningKey]:
        """Retire the issuer's active key and make its successor: (retired, new). Codes already signed stay good."""
        assert issuer.issuer_id is not None
        await take_turn(session)
        old = await active_key(session, issuer.issuer_id)
        new = await self.create_key(session, issuer, now, order_min=old.order_min, order_max=old.order_max)
        return await end_key(session, old.kid, KeyState.RETIRED, now), new

    def open_key(self, key: SigningKey) -> None:
        """Make sure, before anything is promised, that this key can sign. Raises CustodyError."""
        self._custody.open(key.custody_name)

    def sign_many(self, key: SigningKey, messages: Sequence[bytes]) -> list[bytes]:
        """A 64-byte signature for each message, in order. Raises SigningKeyNotActive for a revoked key.

        A retired key still signs: its orders' exports can be made again.
        """
        if key.state == KeyState.REVOKED:
            raise SigningKeyNotActive(f"key number {key.kid} is revoked", hint="Sign with the issuer's active key.")
        return self._custody.sign_many(key.custody_name, messages)


@dataclass(frozen=True, slots=True)
class FileCustodyAccess:
    """What a process of the machine that holds the key files needs in order to sign with them."""

    folder: Path
    passphrase: str = field(repr=False)

    def open(self) -> SigningService:
        return with_file_custody(self.folder, lambda: self.passphrase)


def with_file_custody(folder: Path, passphrase: Callable[[], str]) -> SigningService:
    """A service over key files in a folder; the passphrase is asked for when a key is first needed."""
    return SigningService(FileCustody(folder, passphrase))

"""Signing: makes keys, and signs with them, through whatever custody holds the private side."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from kit.db import Session
from kit.errors import ConfigurationError, Conflict
from kit.settings import Settings
from offline_sdk.algorithms import Algorithm
from offline_sdk.cose import Signer
from signer.custody import Custody, CustodyError, PrivateKeyMissing
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

__all__ = [
    "CustodyError",  # custody's own, for those who may not reach into it
    "FileCustodyAccess",
    "KmsCustodyAccess",
    "PrivateKeyMissing",
    "SigningAccess",
    "SigningKeyNotActive",
    "SigningService",
    "TokenCustodyAccess",
    "custody_access",
    "with_file_custody",
]

_ANY_NAME = "reach"  # there need be no key of it: a custody that says so was reached


class SigningKeyNotActive(Conflict):
    code = "SigningKeyNotActive"


class SigningService:
    """Signs messages with the keys of one trust domain."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    def create_named(self, name: str, algorithm: Algorithm = Algorithm.ED25519) -> Signer:
        """Make a key that signs documents, a root's or a publisher's. Raises CustodyError when the name is taken."""
        return Signer(algorithm, self._custody.create(name, algorithm))

    def named(self, name: str) -> Signer:
        """The public side of a key that signs documents. Raises PrivateKeyMissing, or CustodyError when it is unfit."""
        return Signer(*self._custody.open(name))

    def reach(self) -> None:
        """Make sure that PIN or role let us in, as far as can be told without a key. Raises CustodyError."""
        with suppress(PrivateKeyMissing):
            self._custody.open(_ANY_NAME)

    def holds(self, name: str, signer: Signer) -> bool:
        """Whether custody has this very key under this name. Raises CustodyError when it cannot tell."""
        try:
            return self.named(name) == signer
        except PrivateKeyMissing:
            return False

    def sign_named(self, name: str, message: bytes) -> bytes:
        """A 64-byte signature by a key that signs documents. Raises PrivateKeyMissing, CustodyError."""
        return self._custody.sign_many(name, [message])[0]

    async def create_key(
        self,
        session: Session,
        issuer: Issuer,
        now: datetime,
        *,
        algorithm: Algorithm = Algorithm.ED25519,
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
            algorithm=algorithm.label,
            public=self._custody.create(name, algorithm),
            order_min=order_min,
            order_max=order_max,
            custody_name=name,
            created_at=now,
        )
        session.add(key)
        await session.flush()
        return key

    async def rotate_key(self, session: Session, issuer: Issuer, now: datetime) -> tuple[SigningKey, SigningKey]:
        """Retire the issuer's active key and make its successor of the same algorithm: (retired, new).

        Codes already signed stay good.
        """
        assert issuer.issuer_id is not None
        await take_turn(session)
        old = await active_key(session, issuer.issuer_id)
        new = await self.create_key(
            session,
            issuer,
            now,
            algorithm=old.signature_algorithm,
            order_min=old.order_min,
            order_max=old.order_max,
        )
        return await end_key(session, old.kid, KeyState.RETIRED, now), new

    def open_key(self, key: SigningKey) -> None:
        """Make sure, before anything is promised, that this key can sign. Raises CustodyError."""
        if self._custody.open(key.custody_name) != (key.signature_algorithm, key.public):
            raise CustodyError(
                f"the private key of key number {key.kid} is another one",
                hint="Do custody and database belong to one installation?",
            )

    def sign_many(self, key: SigningKey, messages: Sequence[bytes]) -> list[bytes]:
        """A 64-byte signature for each message, in order. Raises SigningKeyNotActive for a revoked key.

        A retired key still signs: its orders' exports can be made again.
        """
        if key.state == KeyState.REVOKED:
            raise SigningKeyNotActive(f"key number {key.kid} is revoked", hint="Sign with the issuer's active key.")
        return self._custody.sign_many(key.custody_name, messages)


class SigningAccess(Protocol):
    """What a process needs in order to sign: it travels there, and is opened there, as few custodies outlive a fork."""

    def open(self) -> SigningService:
        """Raises CustodyError when this installation lacks a package for it. No key is opened yet."""
        ...


@dataclass(frozen=True, slots=True)
class FileCustodyAccess:
    """For a process of the machine that holds the key files."""

    folder: Path
    passphrase: str = field(repr=False)

    def open(self) -> SigningService:
        return with_file_custody(self.folder, lambda: self.passphrase)


@dataclass(frozen=True, slots=True)
class TokenCustodyAccess:
    """For a process that reaches the PKCS#11 token of this label through this module, a shared library."""

    module: Path
    token: str
    pin: str = field(repr=False)

    def open(self) -> SigningService:
        try:
            from signer.custody.pkcs11 import TokenCustody  # noqa: PLC0415 - an extra
        except ImportError:
            raise CustodyError(
                "tokens need the package python-pkcs11", hint="`pip install 'fanxing[pkcs11]'` brings it."
            ) from None
        return SigningService(TokenCustody(self.module, self.token, lambda: self.pin))


@dataclass(frozen=True, slots=True)
class KmsCustodyAccess:
    """For a process whose role at the key management service may sign."""

    endpoint: str
    alias_prefix: str

    def open(self) -> SigningService:
        try:
            from signer.custody.kms import KmsCustody  # noqa: PLC0415 - an extra
        except ImportError:
            raise CustodyError(
                "the KMS needs the package boto3", hint="`pip install 'fanxing[kms]'` brings it."
            ) from None
        return SigningService(KmsCustody(self.endpoint, self.alias_prefix))


def custody_access(settings: Settings, passphrase: Callable[[], str], pin: Callable[[], str]) -> SigningAccess:
    """How this installation reaches its private keys. Asks for the passphrase of files, or for the PIN of a token.

    Raises ConfigurationError naming the variable that is missing.
    """
    match settings.custody:
        case "file":
            return FileCustodyAccess(settings.keys_folder, passphrase())
        case "kms":
            return KmsCustodyAccess(settings.kms_endpoint, settings.kms_alias_prefix)
    if settings.pkcs11_module is None:
        raise ConfigurationError("FANXING_PKCS11_MODULE: the path of the token's PKCS#11 library is missing")
    if not settings.pkcs11_token:
        raise ConfigurationError("FANXING_PKCS11_TOKEN: the token's label is missing")
    return TokenCustodyAccess(settings.pkcs11_module, settings.pkcs11_token, pin())


def with_file_custody(folder: Path, passphrase: Callable[[], str]) -> SigningService:
    """A service over key files in a folder; the passphrase is asked for when a key is first needed."""
    return SigningService(FileCustody(folder, passphrase))

"""PKCS#11 custody: keys that a token made and never gives out, in a hardware security module or in SoftHSM2.

Of each pair the label and the id are the key's name. Private keys are CKA_SENSITIVE and not CKA_EXTRACTABLE (PKCS #11
v3.0, 4.9). Ed25519 signs by CKM_EDDSA, P-256 by CKM_ECDSA over a digest that is computed here (v3.0 mechanisms, 2.3).
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, Session

from offline_sdk.algorithms import ED25519_KEY_BYTES, SIGNATURE_BYTES, Algorithm
from signer.custody import CustodyError, PrivateKeyMissing, check_name, p256_signature, require_pair

_COORDINATE_BYTES: Final = 32
_KEY_TYPES: Final = {Algorithm.ED25519: KeyType.EC_EDWARDS, Algorithm.ESP256: KeyType.EC}
_GENERATE: Final = {
    Algorithm.ED25519: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
    Algorithm.ESP256: Mechanism.EC_KEY_PAIR_GEN,
}
# Object identifiers in DER: id-Ed25519 (RFC 8410, 3) and secp256r1 (RFC 5480, 2.1.1.1).
_CURVES: Final = {
    Algorithm.ED25519: bytes.fromhex("06032b6570"),
    Algorithm.ESP256: bytes.fromhex("06082a8648ce3d030107"),
}
_HINTS: Final[dict[type[pkcs11.PKCS11Error], str]] = {
    pkcs11.PinIncorrect: "Mend the PIN (FANXING_PKCS11_PIN_FILE) before the next try: tokens lock after a few.",
    pkcs11.PinLenRange: "Mend the PIN (FANXING_PKCS11_PIN_FILE) before the next try: tokens lock after a few.",
    pkcs11.PinLocked: "The token is locked. Its security officer sets a new PIN.",
    pkcs11.UserPinNotInitialized: "The token's security officer sets a user PIN first.",
    pkcs11.NoSuchToken: "Is it plugged in, and is FANXING_PKCS11_TOKEN its label? `pkcs11-tool --list-slots` tells.",
    pkcs11.MechanismInvalid: "The token lacks this algorithm; `pkcs11-tool --list-mechanisms` tells which it has.",
    pkcs11.TokenWriteProtected: "The token may not be written to, so that it makes no key.",
    pkcs11.DeviceMemory: "The token is full.",
}
_PIN_REFUSED: Final = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, pkcs11.PinExpired)
_Result = TypeVar("_Result")


class _Sessions:
    """The sessions of this process, one a token. A login is the process's: a second one would be refused."""

    def __init__(self) -> None:
        # Libraries are initialised without locks of their own, and threads share a session.
        self.lock = threading.RLock()
        self._open: dict[tuple[str, str], Session] = {}
        self._inherited: set[str] = set()
        """Modules that a parent of this process initialised."""

    def of(self, module: str, token: str, pin: Callable[[], str]) -> Session:
        if (module, token) not in self._open:
            library = pkcs11.lib(module)
            if module in self._inherited:
                library.reinitialize()
                self._inherited.remove(module)
            slot = library.get_token(token_label=token)
            try:
                session = slot.open(rw=True, user_pin=pin())
            except pkcs11.UserAlreadyLoggedIn:
                session = slot.open(rw=True)
            self._open[module, token] = session
        return self._open[module, token]

    def lose(self, module: str) -> None:
        """Begin anew with a module: a token that was pulled out is seen again, and no session outlives it."""
        for key in [key for key in self._open if key[0] == module]:
            del self._open[key]
        pkcs11.lib(module).reinitialize()

    def after_fork(self) -> None:
        """Forget the parent's sessions: a module must be initialised by the process that uses it (v3.0, 6.6)."""
        self._inherited |= {module for module, _token in self._open}
        self._open.clear()
        self.lock = threading.RLock()  # a thread of the parent may hold the old one for ever


_SESSIONS: Final = _Sessions()
os.register_at_fork(after_in_child=_SESSIONS.after_fork)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A key pair in the token, as long as this session lasts."""

    session: Session
    algorithm: Algorithm
    public: bytes
    private: Any
    """A PrivateKey; what it can do depends on the token, so that no type says it."""

    def sign(self, message: bytes) -> bytes:
        if self.algorithm is Algorithm.ED25519:
            return bytes(self.private.sign(message, mechanism=Mechanism.EDDSA))
        raw: bytes = self.private.sign(hashlib.sha256(message).digest(), mechanism=Mechanism.ECDSA)
        if len(raw) != SIGNATURE_BYTES:
            return raw  # `require_pair` tells of it
        half = SIGNATURE_BYTES // 2
        return p256_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


class TokenCustody:
    """Keys in one token. The PIN is asked for when a key is first used, and again when the token was lost meanwhile."""

    def __init__(self, module: Path, token: str, pin: Callable[[], str]) -> None:
        self._module = str(module)
        self._token = token
        self._pin = pin
        self._opened: dict[str, _Opened] = {}
        self._locked_out: CustodyError | None = None

    def create(self, name: str, algorithm: Algorithm) -> bytes:
        check_name(name)
        if self._with_token(lambda session: _objects(session, {Attribute.LABEL: name})):
            raise CustodyError(f"a key named {name} exists already")
        with _SESSIONS.lock:
            try:
                made = self._made(name, algorithm)
            except pkcs11.PKCS11Error as error:
                raise self._refusal(error) from None
        self._opened[name] = made
        return made.public

    def open(self, name: str) -> tuple[Algorithm, bytes]:
        check_name(name)
        key = self._with_token(lambda session: self._key(session, name))
        return key.algorithm, key.public

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        self.open(name)
        return [self._with_token(lambda session: self._key(session, name).sign(message)) for message in messages]  # noqa: B023

    def _with_token(self, work: Callable[[Session], _Result]) -> _Result:
        """Do this, and once more when the token was pulled out, restarted or logged out since it was last used."""
        with _SESSIONS.lock:
            try:
                return work(self._session())
            except pkcs11.PKCS11Error as error:
                if isinstance(error, _PIN_REFUSED):
                    raise self._refusal(error) from None
            try:
                _SESSIONS.lose(self._module)
                return work(self._session())
            except pkcs11.PKCS11Error as error:
                raise self._refusal(error) from None

    def _session(self) -> Session:
        if self._locked_out is not None:
            raise self._locked_out
        return _SESSIONS.of(self._module, self._token, self._pin)

    def _refusal(self, error: pkcs11.PKCS11Error) -> CustodyError:
        if isinstance(error, pkcs11.NoSuchKey):
            return PrivateKeyMissing(f"no key pair of that name in the token {self._token}")
        # Modules' own messages may repeat arguments; the kind of error says enough.
        refusal = CustodyError(
            f"the token {self._token} refused: {type(error).__name__}",
            hint=_HINTS.get(type(error), f"Does FANXING_PKCS11_MODULE name its module ({self._module})?"),
        )
        if isinstance(error, _PIN_REFUSED):
            self._locked_out = refusal  # a wrong PIN that is tried again and again locks the token
        return refusal

    def _key(self, session: Session, name: str) -> _Opened:
        opened = self._opened.get(name)
        if opened is None or opened.session is not session:
            private, public = (
                _objects(session, {Attribute.CLASS: half, Attribute.LABEL: name})
                for half in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
            )
            if not private or not public:
                raise pkcs11.NoSuchKey  # a token that was logged out shows no private keys, and is asked once more
            if len(private) + len(public) > 2:
                raise CustodyError(f"several keys of the token {self._token} are named {name}")
            self._opened[name] = opened = _checked(session, name, public[0], private[0])
        return opened

    def _made(self, name: str, algorithm: Algorithm) -> _Opened:
        session = self._session()
        curve = session.create_domain_parameters(
            _KEY_TYPES[algorithm], {Attribute.EC_PARAMS: _CURVES[algorithm]}, local=True
        )
        public, private = curve.generate_keypair(
            id=name.encode(),
            label=name,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            mechanism=_GENERATE[algorithm],
            private_template={Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )
        try:
            return _checked(session, name, public, private)
        except CustodyError:
            private.destroy()
            public.destroy()
            raise


def _objects(session: Session, attributes: dict[Attribute, Any]) -> list[Any]:
    """What the token has of these attributes."""
    # A search on a session that is gone would complain a second time, when the garbage collector comes to it.
    with suppress(pkcs11.RandomNoRNG):
        session.generate_random(8)
    return list(session.get_objects(attributes))


def _checked(session: Session, name: str, public: Any, private: Any) -> _Opened:
    """Raises CustodyError when the token would give the key away, or speaks another dialect."""
    if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
        raise CustodyError(
            f"the private key {name} can be taken out of the token",
            hint="Make a new key: one that was ever outside is not the token's alone.",
        )
    algorithm = next((one for one, curve in _CURVES.items() if curve == public[Attribute.EC_PARAMS]), None)
    if algorithm is None or private.key_type != _KEY_TYPES[algorithm]:
        raise CustodyError(f"the key {name} of the token is neither Ed25519 nor P-256")
    opened = _Opened(session, algorithm, _public_bytes(algorithm, public[Attribute.EC_POINT]), private)
    require_pair(name, algorithm, opened.public, opened.sign)
    return opened


def _public_bytes(algorithm: Algorithm, point: bytes) -> bytes:
    """The public key in a CKA_EC_POINT: an OCTET STRING in DER (v3.0 mechanisms, 2.3.3); some tokens give it bare.

    Either way it stands at the end. `require_pair` tells when something else does.
    """
    if algorithm is Algorithm.ED25519 or len(point) < 2 * _COORDINATE_BYTES:
        return point[-ED25519_KEY_BYTES:]
    x, y = point[-2 * _COORDINATE_BYTES : -_COORDINATE_BYTES], point[-_COORDINATE_BYTES:]
    return bytes([2 | y[-1] & 1]) + x

"""KMS custody: keys in AWS Key Management Service, or in what speaks its interface (API version 2014-11-01).

A name is an alias of a key. One call signs one message, so that several calls are under way at the same time.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from offline_sdk.algorithms import Algorithm
from signer.custody import CustodyError, PrivateKeyMissing, check_name, p256_signature, require_pair

CALLS_MAX: Final = 16
"""Calls under way at a time, in one process."""
MESSAGE_BYTES_MAX: Final = 4_096
"""The longest message that the service takes (Sign, Message). P-256 signs the digest of a longer one."""
_DELETION_DAYS: Final = 7  # the shortest that the service knows
_TRIES_MAX: Final = 5
_CONNECT_S_MAX: Final = 5
_READ_S_MAX: Final = 30
_KEY_SPECS: Final = {Algorithm.ED25519: "ECC_NIST_EDWARDS25519", Algorithm.ESP256: "ECC_NIST_P256"}
_SIGNING: Final = {Algorithm.ED25519: "ED25519_SHA_512", Algorithm.ESP256: "ECDSA_SHA_256"}
_HINTS: Final = {
    "AccessDeniedException": "The role needs kms:DescribeKey, GetPublicKey, Sign; to make keys CreateKey, CreateAlias.",
    "DisabledException": "Somebody disabled this key; `aws kms enable-key` brings it back.",
    "KMSInvalidStateException": "The key is disabled or about to be deleted; `aws kms describe-key` tells.",
    "ThrottlingException": "More signatures a second than the account's quota; use fewer --workers or raise it.",
    "NoCredentialsError": "boto3 looks for credentials in AWS_PROFILE, its files, and the machine's role.",
    "NoRegionError": "Set AWS_DEFAULT_REGION.",
    "EndpointConnectionError": "Is FANXING_KMS_ENDPOINT right, and does the network let us there?",
}


@dataclass(frozen=True, slots=True)
class _Opened:
    algorithm: Algorithm
    public: bytes
    arn: str
    """The key itself: an alias may be turned to another key, whose signatures nobody would expect."""


class KmsCustody:
    """Keys under aliases with one prefix, such as alias/fanxing/. Credentials and region are found by boto3."""

    def __init__(self, endpoint: str, alias_prefix: str) -> None:
        """`endpoint`: base URL of the service; empty means AWS itself, in the region of the environment."""
        self._endpoint = endpoint or None
        self._prefix = alias_prefix
        self._opened: dict[str, _Opened] = {}
        self._made: Any = None

    def create(self, name: str, algorithm: Algorithm) -> bytes:
        alias = self._alias(name)
        try:
            self._call("describe_key", KeyId=alias)
        except PrivateKeyMissing:
            pass
        else:
            raise CustodyError(f"a key named {name} exists already")
        made = self._call("create_key", KeySpec=_KEY_SPECS[algorithm], KeyUsage="SIGN_VERIFY", Description=name)
        key_id = made["KeyMetadata"]["KeyId"]
        try:
            self._call("create_alias", AliasName=alias, TargetKeyId=key_id)
        except CustodyError:
            # Nobody would ever find it again, and it would be paid for each month.
            self._call("schedule_key_deletion", KeyId=key_id, PendingWindowInDays=_DELETION_DAYS)
            raise
        return self._key(name).public

    def open(self, name: str) -> tuple[Algorithm, bytes]:
        key = self._key(name)
        return key.algorithm, key.public

    def sign_many(self, name: str, messages: Sequence[bytes]) -> list[bytes]:
        key = self._key(name)
        if len(messages) < 2:
            return [self._sign(key, message) for message in messages]
        with ThreadPoolExecutor(min(CALLS_MAX, len(messages))) as pool:
            calls = [pool.submit(self._sign, key, message) for message in messages]
            try:
                return [call.result() for call in calls]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # when one was refused, thousands more would be
                raise

    def _sign(self, key: _Opened, message: bytes) -> bytes:
        content, kind = message, "RAW"
        if len(message) > MESSAGE_BYTES_MAX:
            if key.algorithm is Algorithm.ED25519:
                raise CustodyError(
                    f"a KMS signs at most {MESSAGE_BYTES_MAX:,} bytes with Ed25519, and this document has more",
                    hint="Publish with a P-256 key, or with an Ed25519 key in a file or an HSM.",
                )
            content, kind = hashlib.sha256(message).digest(), "DIGEST"
        answer = self._call(
            "sign", KeyId=key.arn, Message=content, MessageType=kind, SigningAlgorithm=_SIGNING[key.algorithm]
        )
        signature: bytes = answer["Signature"]
        if key.algorithm is Algorithm.ED25519:
            return signature
        return p256_signature(*decode_dss_signature(signature))

    def _key(self, name: str) -> _Opened:
        if name not in self._opened:
            answer = self._call("get_public_key", KeyId=self._alias(name))
            key = _Opened(*_public(name, answer["PublicKey"]), arn=answer["KeyId"])
            require_pair(name, key.algorithm, key.public, lambda message: self._sign(key, message))
            self._opened[name] = key
        return self._opened[name]

    def _alias(self, name: str) -> str:
        return f"alias/{self._prefix}{check_name(name)}"

    def _call(self, operation: str, **arguments: Any) -> Any:
        try:
            call: Callable[..., Any] = getattr(self._client(), operation)
            return call(**arguments)
        except ClientError as error:
            # Only the code: the service's text repeats the caller's identity and arguments.
            fault = str(error.response.get("Error", {}).get("Code", ""))
        except BotoCoreError as error:
            fault = type(error).__name__
        if fault == "NotFoundException":
            raise PrivateKeyMissing(f"the KMS has no key under {arguments.get('KeyId', 'this name')}")
        raise CustodyError(f"the KMS refused {operation}: {fault}", hint=_HINTS.get(fault, ""))

    def _client(self) -> Any:
        if self._made is None:
            config = Config(
                retries={"mode": "standard", "total_max_attempts": _TRIES_MAX},
                connect_timeout=_CONNECT_S_MAX,
                read_timeout=_READ_S_MAX,
                max_pool_connections=CALLS_MAX,
            )
            self._made = boto3.client("kms", endpoint_url=self._endpoint, config=config)
        return self._made


def _public(name: str, spki: bytes) -> tuple[Algorithm, bytes]:
    """Algorithm and public key of a SubjectPublicKeyInfo in DER (RFC 5280, 4.1.2.7)."""
    key = load_der_public_key(spki)
    if isinstance(key, Ed25519PublicKey):
        return Algorithm.ED25519, key.public_bytes_raw()
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Algorithm.ESP256, key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    raise CustodyError(f"the key {name} of the KMS is neither Ed25519 nor P-256")

"""A KMS of the documented interface (AWS KMS API, version 2014-11-01) as far as custody asks for it, Ed25519 included.

It is here for what the public simulators lack: ECC_NIST_EDWARDS25519, MessageType DIGEST, throttling, limits.
"""

import base64
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MESSAGE_BYTES_MAX = 4_096
_ARN = "arn:aws:kms:cn-north-1:000000000000:key/"
_SIGNING = {"ECC_NIST_EDWARDS25519": "ED25519_SHA_512", "ECC_NIST_P256": "ECDSA_SHA_256"}


class KmsFault(Exception):
    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text)
        self.code = code


@dataclass
class KmsKey:
    spec: str
    private: Any
    enabled: bool = True


@dataclass
class KmsSimulator:
    """Keys and aliases; `calls` counts operations, `throttled` is how many Sign calls are still to be refused."""

    url: str = ""
    keys: dict[str, KmsKey] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    throttled: int = 0
    under_way: int = 0
    under_way_max: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.calls[operation] = self.calls.get(operation, 0) + 1
            self.under_way += 1
            self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            answer: dict[str, Any] = getattr(self, "_" + operation.lower())(asked)
            return answer
        finally:
            with self.lock:
                self.under_way -= 1

    def _createkey(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["KeyUsage"] == "SIGN_VERIFY"
        make = {"ECC_NIST_EDWARDS25519": Ed25519PrivateKey.generate, "ECC_NIST_P256": self._p256}
        if asked["KeySpec"] not in make:
            raise KmsFault("UnsupportedOperationException")
        key_id = str(uuid.uuid4())
        self.keys[_ARN + key_id] = KmsKey(asked["KeySpec"], make[asked["KeySpec"]]())
        return {"KeyMetadata": {"KeyId": key_id, "Arn": _ARN + key_id}}

    @staticmethod
    def _p256() -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    def _createalias(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["AliasName"] in self.aliases:
            raise KmsFault("AlreadyExistsException")
        self.aliases[asked["AliasName"]] = self._arn(asked["TargetKeyId"])
        return {}

    def _schedulekeydeletion(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.deleted.append(self._arn(asked["KeyId"]))
        return {"KeyId": asked["KeyId"]}

    def _describekey(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"KeyMetadata": {"KeyId": self._arn(asked["KeyId"])}}

    def _getpublickey(self, asked: dict[str, Any]) -> dict[str, Any]:
        arn = self._arn(asked["KeyId"])
        spki = self.keys[arn].private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {"KeyId": arn, "PublicKey": base64.b64encode(spki).decode(), "KeySpec": self.keys[arn].spec}

    def _sign(self, asked: dict[str, Any]) -> dict[str, Any]:
        arn, message = self._arn(asked["KeyId"]), base64.b64decode(asked["Message"])
        key, kind = self.keys[arn], asked.get("MessageType", "RAW")
        with self.lock:
            if self.throttled > 0:
                self.throttled -= 1
                raise KmsFault("ThrottlingException", "You have exceeded the rate")
        if not key.enabled:
            raise KmsFault("DisabledException", f"{arn} is disabled.")
        if asked["SigningAlgorithm"] != _SIGNING[key.spec] or len(message) > MESSAGE_BYTES_MAX:
            raise KmsFault("ValidationException")
        if key.spec == "ECC_NIST_EDWARDS25519":
            if kind != "RAW":
                raise KmsFault("ValidationException")
            signature = key.private.sign(message)
        elif kind == "DIGEST":
            if len(message) != SHA256.digest_size:
                raise KmsFault("ValidationException")
            signature = key.private.sign(message, ec.ECDSA(Prehashed(SHA256())))
        else:
            signature = key.private.sign(message, ec.ECDSA(SHA256()))
        return {"KeyId": arn, "Signature": base64.b64encode(signature).decode()}

    def _arn(self, name: str) -> str:
        arn = self.aliases.get(name, name if name.startswith("arn:") else _ARN + name)
        if arn not in self.keys:
            raise KmsFault("NotFoundException", f"{name} is not found.")
        return arn


def pretend_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and region as a machine at AWS has them, but of no worth; those of this machine are not read."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-north-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@contextmanager
def kms_simulator() -> Iterator[KmsSimulator]:
    """One that listens on 127.0.0.1."""
    kms = KmsSimulator()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each call takes 40 ms

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service, _, operation = self.headers["X-Amz-Target"].partition(".")
            try:
                if service != "TrentService" or not self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 "):
                    raise KmsFault("AccessDeniedException")
                status, told = 200, kms.answer(operation, asked)
            except KmsFault as fault:
                status, told = 400, {"__type": fault.code, "message": str(fault)}
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        kms.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield kms
        server.shutdown()
        thread.join()

"""Fixtures of the offline SDK's tests: the published vectors, a root, and bundles signed by it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from offline_sdk import Algorithm, Bundle, BundleKey, DocumentType, Signer, Verifier, seal, to_be_signed

VECTORS = Path(__file__).parents[1] / "vectors" / "code-text-v1.json"
ISSUED = 1_790_000_000
EXPIRES = ISSUED + 30 * 86_400
NOW = datetime.fromtimestamp(ISSUED + 3_600, UTC)


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="session")
def signing_key(vectors: dict[str, Any]) -> SigningKey:
    """The private key behind all key numbers of the vectors."""
    return SigningKey(bytes.fromhex(vectors["keys"][0]["seed_hex"]))


@pytest.fixture(scope="session")
def root() -> SigningKey:
    return SigningKey(bytes(range(32)))


@pytest.fixture(scope="session")
def root_public(root: SigningKey) -> bytes:
    return bytes(root.verify_key)


@pytest.fixture(scope="session")
def publisher(root_public: bytes) -> Signer:
    """The root's key as the one publisher."""
    return Signer(Algorithm.ED25519, root_public)


@pytest.fixture(scope="session")
def bundle(vectors: dict[str, Any]) -> Bundle:
    """A bundle that makes every valid vector genuine at NOW."""
    keys = tuple(
        BundleKey(key["kid"], bytes.fromhex(key["public_hex"]), "Fanxing Demo Dairy", ("690123456", "9506000"))
        for key in vectors["keys"]
    )
    return Bundle("demo.example", 42, ISSUED, EXPIRES, keys, prev=bytes(32))


@pytest.fixture(scope="session")
def publish(root: SigningKey, publisher: Signer) -> Callable[[bytes], bytes]:
    """Sign a bundle's payload, right or wrong."""

    def seal_payload(payload: bytes) -> bytes:
        signature = root.sign(to_be_signed(DocumentType.BUNDLE, payload, publisher)).signature
        return seal(DocumentType.BUNDLE, payload, {publisher: signature})

    return seal_payload


@pytest.fixture(scope="session")
def verifier(bundle: Bundle) -> Verifier:
    return Verifier(bundle, now=NOW)

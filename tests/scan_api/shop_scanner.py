"""A shop's scanner as the server meets it: a key pair, signed requests, and records of a journal.

Signed with the library that the server checks with; the worked example in docs/scanner-api.md is checked without it.
"""

import base64
import gzip
import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from sqlmodel import select

from codes.catalogue import Brand
from kit.db import Session
from scan_api import devices
from signer.publication import TrustBundle
from tests.stand import BRAND, Item, PlacedOrder, Stand

COVERED = ("@method", "@path", "content-digest", "content-type")
TAG = "fanxing-device"


def invite(stand: Stand, brand: str | None = BRAND, *, name: str = "till 3", hours: float = 24) -> str:
    """The code of a new invitation; `hours` below 0 makes one that is over."""

    async def make(session: Session) -> str:
        brand_id = None
        if brand is not None:
            brand_id = (await session.exec(select(Brand.brand_id).where(Brand.slug == brand))).one()
        lifetime, now = timedelta(hours=abs(hours)), datetime.now(UTC)
        at = now if hours > 0 else now - lifetime
        return (await devices.invite(session, stand.vault, brand_id, name, lifetime, at))[1]

    code: str = stand.run(make)
    return code


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class ShopScanner:
    """A scanner that may be enrolled, and the requests that it signs."""

    stand: Stand = field(repr=False)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)
    journal: str = field(default_factory=lambda: secrets.token_hex(8))
    device_id: str = ""

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def public_key(self) -> str:
        return base64.urlsafe_b64encode(self.public).rstrip(b"=").decode()

    def signed(
        self,
        path: str,
        body: bytes,
        key_id: str,
        *,
        covered: Sequence[str] = COVERED,
        headers: dict[str, str] | None = None,
        created: datetime | None = None,
        **parameters: Any,
    ) -> httpx2.Request:
        """A signed POST, right unless it is told otherwise."""
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        given = {
            "content-type": "application/json",
            "accept": "application/json",
            "content-digest": f"sha-256=:{digest}:",
            **(headers or {}),
        }
        request = httpx2.Request("POST", self.stand.server.url + path, content=body, headers=given)
        signer = HTTPMessageSigner(
            signature_algorithm=ED25519,
            key_resolver=MappingKeyResolver(public_keys={}, private_keys={key_id: self.key}),
        )
        if "content-encoding" in request.headers:
            covered = (*covered, "content-encoding")
        signer.sign(
            request,
            key_id=key_id,
            created=created or datetime.now(UTC),
            covered_component_ids=covered,
            use_existing_digest=True,
            **{
                "label": "sig1",
                "tag": TAG,
                "nonce": base64.b64encode(secrets.token_bytes(16)).decode(),
                **parameters,
            },
        )
        return request

    def send(self, request: httpx2.Request) -> httpx2.Response:
        return self.stand.http.send(request)

    def enrolment(self, code: str, /, **changes: Any) -> httpx2.Request:
        body = {"code": code, "public_key": self.public_key, "name": "scanner-7", **changes}
        return self.signed("/v1/devices", json.dumps(body).encode(), body["public_key"])

    def enrol(self, code: str) -> httpx2.Response:
        answer = self.send(self.enrolment(code))
        if answer.status_code == 201:
            self.device_id = answer.json()["device_id"]
        return answer

    def batch(self, records: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
        return {
            "journal": self.journal,
            "device_time_ms": now_ms(),
            "bundle_seq": 1,
            "root_version": 1,
            "waiting": len(records),
            "records": list(records),
            **changes,
        }

    def scans(self, batch: dict[str, Any], *, packed: bool = False, **options: Any) -> httpx2.Request:
        body = json.dumps(batch).encode()
        if packed:
            body = gzip.compress(body)
            options["headers"] = {"content-encoding": "gzip"}
        return self.signed(f"/v1/devices/{self.device_id}/scans", body, self.device_id, **options)

    def sync(self, *records: dict[str, Any], **changes: Any) -> list[tuple[str, str | None]]:
        """Send records; what the server says of each: its status and the error."""
        answer = self.send(self.scans(self.batch(records, **changes)))
        assert answer.status_code == 200, answer.text
        answers = answer.json()["answers"]
        assert [one["number"] for one in answers] == [one["number"] for one in records]
        return [(one["status"], one["error"]) for one in answers]


def enrolled(stand: Stand, brand: str | None = BRAND) -> ShopScanner:
    """A scanner that is enrolled for a brand, or for all."""
    scanner = ShopScanner(stand)
    assert scanner.enrol(invite(stand, brand)).status_code == 201
    return scanner


def genuine(number: int, kid: int, item: Item, face: int = 1, **changes: Any) -> dict[str, Any]:
    """The record of an item that the device found genuine just now."""
    return {
        "number": number,
        "at_ms": now_ms(),
        "elapsed_ms": None,
        "verdict": "genuine",
        "error": None,
        "profile": face,
        "kid": kid,
        "gtin": item.gtin,
        "serial": item.serial,
        "bundle_seq": 1,
        "bundle_state": "fresh",
        "clock_suspect": False,
        **changes,
    }


def malformed(number: int, **changes: Any) -> dict[str, Any]:
    """The record of something that is no code."""
    nothing = dict.fromkeys(("error", "profile", "kid", "gtin", "serial", "bundle_seq", "bundle_state", "elapsed_ms"))
    told = {"number": number, "at_ms": now_ms(), "verdict": "refused", "error": "Malformed", "clock_suspect": False}
    return {**nothing, **told, **changes}


def kid_of(order: PlacedOrder) -> int:
    """The number of the key that signed an order's codes: the digits after the profile in a code's path."""
    return int(order.items[0].outer[2:7])


def newest_seq(stand: Stand) -> int:
    return max(stand.rows(select(TrustBundle.seq)))

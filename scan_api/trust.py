"""The verifier that judges online scans, kept at the newest root and bundle, and what scanners are sent of them."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Self

import structlog

from kit.clock import Clock
from kit.db import Database
from kit.errors import ConfigurationError, FanxingError
from offline_sdk import cose
from offline_sdk.bundle import Bundle
from offline_sdk.errors import VerifyError
from offline_sdk.root import follow, read_pin
from offline_sdk.verifier import Action, Policy, Verifier
from signer import roots
from signer.publication import TrustBundleMissing, deltas_to, newer_than

REFRESH_EVERY_S = 1.0
# The server's own database is the authority on how new a bundle is; its age is told in the verdict and watched by
# /readyz, but an expired bundle must not turn every genuine item in the shops into a refused one.
_POLICY = Policy(
    stale_after=timedelta(days=3),
    on_stale=Action.ACCEPT,
    on_expired=Action.ACCEPT,
    on_clock_suspect=Action.ACCEPT,
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Document:
    """A document for scanners, with its hash: to hash two megabytes anew for every request would cost milliseconds."""

    content: bytes = field(repr=False)
    sha256: bytes

    @classmethod
    def of(cls, content: bytes) -> Self:
        return cls(content, hashlib.sha256(content).digest())


@dataclass(frozen=True, slots=True)
class _News:
    """What there is for scanners: root documents by version, the newest bundle, deltas by the bundle that they make."""

    roots: dict[int, Document] = field(default_factory=dict)
    bundle: Document = field(default_factory=lambda: Document.of(b""))
    seq: int = 0
    deltas: dict[int, Document] = field(default_factory=dict)


class Trust:
    """Holds one verifier and replaces it when a newer root or bundle is there."""

    def __init__(self, database: Database, pin_path: Path, clock: Clock) -> None:
        self._database = database
        self._pin_path = pin_path
        self._clock = clock
        self._verifier: Verifier | None = None
        self._news = _News()

    @property
    def verifier(self) -> Verifier:
        """Raises TrustBundleMissing when no bundle was published yet."""
        if self._verifier is None:
            raise TrustBundleMissing("no trust bundle was published yet", hint="`fanxing bundle publish` makes one.")
        return self._verifier

    def documents_since(self, root_version: int, seq: int) -> Sequence[Document]:
        """What a scanner lacks that holds this root and this bundle (0: none): a trust file's documents, in order.

        Raises TrustBundleMissing.
        """
        _ = self.verifier
        news = self._news
        documents = [document for version, document in news.roots.items() if version > root_version]
        if seq < news.seq:
            steps = [news.deltas[number] for number in range(seq + 1, news.seq + 1) if number in news.deltas]
            leads_there = seq > 0 and len(steps) == news.seq - seq
            shorter = sum(len(step.content) for step in steps) < len(news.bundle.content)
            documents += steps if leads_there and shorter else [news.bundle]
        return documents

    async def refresh(self) -> None:
        """Load what is newer than what is held. Raises ConfigurationError."""
        async with self._database.reading() as session:
            newer_roots = await roots.chain(session, max(self._news.roots, default=0))
            published = await newer_than(session, self._news.seq)
            if published is None and (not newer_roots or not self._news.seq):
                return
            deltas = {} if published is None else await deltas_to(session, published.seq)
        documents = self._news.roots | {row.version: Document.of(row.document) for row in newer_roots}
        if published is None:
            news = replace(self._news, roots=documents)
        else:
            steps = {number: Document.of(delta) for number, delta in deltas.items()}
            news = _News(documents, Document.of(published.document), published.seq, steps)
        try:
            content = b"".join(document.content for document in documents.values())
            root = follow(cose.read(content), read_pin(self._pin_path.read_bytes()))
            bundle = Bundle.load(news.bundle.content, root.publishers)
        except OSError:
            raise ConfigurationError(
                f"FANXING_HOME: no root pin at {self._pin_path}", hint="Run `fanxing init`, or copy it there."
            ) from None
        except VerifyError as error:
            raise ConfigurationError(
                f"FANXING_HOME: trust bundle {news.seq} does not follow from {self._pin_path}: {error.message}",
                hint="After a root that names other publishers, `fanxing bundle publish` makes a bundle of theirs.",
            ) from None
        self._verifier = Verifier(bundle, _POLICY, self._clock, root_expires=root.expires)
        self._news = news
        _log.info("trust bundle loaded", seq=bundle.seq, root=root.version, keys=len(bundle.keys))

    async def keep_fresh(self) -> None:
        """Refresh for ever; a failure is logged and tried again."""
        while True:
            await asyncio.sleep(REFRESH_EVERY_S)
            try:
                await self.refresh()
            except FanxingError as error:
                _log.error("trust bundle not loaded", code=error.code, reason=error.message)
            except Exception:
                # The database may be away for a while; the verifier in hand stays good meanwhile.
                _log.exception("trust bundle not loaded")


def etag_of(documents: Sequence[Document]) -> str:
    """A strong validator of the trust file of these documents (RFC 9110, 8.8.3)."""
    return f'"{hashlib.sha256(b"".join(document.sha256 for document in documents)).hexdigest()}"'

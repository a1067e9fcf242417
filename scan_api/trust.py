"""The verifier that judges online scans, kept at the newest published trust bundle."""

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path

import structlog

from kit.clock import Clock
from kit.db import Database
from kit.errors import ConfigurationError, FanxingError
from offline_sdk.bundle import Bundle, read_root
from offline_sdk.errors import VerifyError
from offline_sdk.verifier import Policy, Verifier
from signer.publication import TrustBundleMissing, newer_than

REFRESH_EVERY_S = 1.0
# The server's own database is the authority on how new a bundle is; its age is told in the verdict and watched by
# /readyz, but an expired bundle must not turn every genuine item in the shops into a refused one.
_POLICY = Policy(stale_after=timedelta(days=3), accept_expired=True)

_log = structlog.get_logger()


class Trust:
    """Holds one verifier and replaces it when a newer bundle is published."""

    def __init__(self, database: Database, root_path: Path, clock: Clock) -> None:
        self._database = database
        self._root_path = root_path
        self._clock = clock
        self._verifier: Verifier | None = None
        self.document: bytes = b""
        self.etag = ""

    @property
    def verifier(self) -> Verifier:
        """Raises TrustBundleMissing when no bundle was published yet."""
        if self._verifier is None:
            raise TrustBundleMissing("no trust bundle was published yet", hint="`fanxing bundle publish` makes one.")
        return self._verifier

    async def refresh(self) -> None:
        """Load the newest bundle if it is newer than the one held. Raises ConfigurationError."""
        async with self._database.reading() as session:
            published = await newer_than(session, self._verifier.bundle.seq if self._verifier else 0)
        if published is None:
            return
        try:
            bundle = Bundle.load(published.document, read_root(self._root_path.read_bytes()))
        except OSError:
            raise ConfigurationError(
                f"FANXING_HOME: no root public key at {self._root_path}", hint="Run `fanxing init`, or copy it there."
            ) from None
        except VerifyError as error:
            raise ConfigurationError(
                f"FANXING_HOME: trust bundle {published.seq} is not signed by {self._root_path}: {error.message}"
            ) from None
        self._verifier = Verifier(bundle, _POLICY, self._clock)
        self.document = published.document
        self.etag = f'"{hashlib.sha256(published.document).hexdigest()}"'
        _log.info("trust bundle loaded", seq=bundle.seq, keys=len(bundle.keys))

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

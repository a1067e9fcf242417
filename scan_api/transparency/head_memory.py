"""Head memory: the last head that this server signed or saw signed, kept out of the database.

A database that was restored from a backup does not know what it lost. To go on from there would give leaves that were
signed for another content, a fork that every witness and auditor sees and nobody can mend. So the server stops instead.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kit.db import Session
from kit.errors import Unavailable
from kit.files import replacing
from offline_sdk.errors import LogError
from offline_sdk.transparency import consistency_path, prove_consistency, subtrees_of, verify_consistency
from scan_api.transparency.store import LogHead, reader_for

FILE: Final = "log.head"
"""In the data folder."""


class LogRolledBack(Unavailable):
    """The database's log is not a continuation of what this server knows to be signed."""

    code = "LogRolledBack"

    def __init__(self, message: str) -> None:
        super().__init__(
            message, hint="Restore the newest state of the database; docs/transparency-log.md, After a restore."
        )


@dataclass(frozen=True, slots=True)
class Known:
    """A head that was signed."""

    origin: str
    size: int
    root: bytes


class HeadMemory:
    """The file that keeps it."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def known(self) -> Known | None:
        """What is remembered, None when nothing is. Raises LogRolledBack when the file is damaged."""
        try:
            told = json.loads(self._path.read_bytes())
            return Known(told["origin"], int(told["size"]), bytes.fromhex(told["root"]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise LogRolledBack(f"{self._path} is damaged, so nobody can tell what was signed") from None

    async def check(self, session: Session, head: LogHead) -> bool:
        """Whether the head is news. Raises LogRolledBack unless it continues what is remembered."""
        known = self.known()
        if known is None:
            return True
        if known.origin != head.origin:
            raise LogRolledBack(f"this server knows another log, {known.origin}")
        if head.size < known.size:
            raise LogRolledBack(f"{known.size:,} leaves were signed, and the database has {head.size:,}")
        path = subtrees_of(consistency_path(known.size, head.size))
        reader = await reader_for(session, path, head.size)
        try:
            proof = prove_consistency(known.size, head.size, reader)
            verify_consistency(known.size, head.size, known.root, head.root, proof)
        except LogError:
            raise LogRolledBack(f"the first {known.size:,} leaves are not those that were signed") from None
        return head.size > known.size

    def remember(self, head: LogHead) -> None:
        """Keep this head, on the disk when this returns."""
        told = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
        with replacing(self._path) as file:
            file.write(json.dumps(told).encode())

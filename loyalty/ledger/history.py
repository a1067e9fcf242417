"""Reports that somebody keeps elsewhere: a digest of the ledger's history, which no rewriting of it can match."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kit.errors import Invalid

SETTLING = timedelta(minutes=5)
"""Age from which a history no longer grows: no transaction lasts as long, and no clock is as slow."""
_OR_LATE = "; or made since, by a server whose clock is more than five minutes slow"
REPORT_BYTES_MAX = 4_096
_FORMAT = "fanxing/ledger-history/v1"


class HistoryInvalid(Invalid):
    """The file is not a report of the ledger's history."""

    code = "HistoryInvalid"


@dataclass(frozen=True)
class History:
    """All entries and transfers made before a moment: how many, and SHA-256 over their links and seals in key order."""

    before: datetime
    entries: int
    links_sha256: bytes
    transfers: int
    seals_sha256: bytes

    def write(self) -> str:
        """The report as JSON."""
        return json.dumps(
            {
                "format": _FORMAT,
                "before": self.before.astimezone(UTC).isoformat(),
                "entries": self.entries,
                "links_sha256": self.links_sha256.hex(),
                "transfers": self.transfers,
                "seals_sha256": self.seals_sha256.hex(),
            },
            indent=1,
        )

    @classmethod
    def read(cls, text: str) -> "History":
        """The report from its JSON. Raises HistoryInvalid."""
        try:
            said = json.loads(text)
            before = datetime.fromisoformat(said["before"])
            if said["format"] != _FORMAT or before.tzinfo is None:
                raise ValueError
            return cls(
                before,
                int(said["entries"]),
                bytes.fromhex(said["links_sha256"]),
                int(said["transfers"]),
                bytes.fromhex(said["seals_sha256"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise HistoryInvalid("not a report that `fanxing ledger verify --save` wrote") from None

    def differences(self, found: "History") -> list[str]:
        """How the history found differs from this one, in words."""
        faults = []
        since = f"before {self.before.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        if (self.entries, self.links_sha256) != (found.entries, found.links_sha256):
            faults.append(
                f"the entries {since} are not those of the report: {found.entries} instead of {self.entries},"
                " or altered" + (_OR_LATE if found.entries > self.entries else "")
            )
        if (self.transfers, self.seals_sha256) != (found.transfers, found.seals_sha256):
            faults.append(
                f"the transfers {since} are not those of the report: {found.transfers} instead of {self.transfers},"
                " or altered"
            )
        return faults


class Digest:
    """Gathers a history while the ledger is read in key order."""

    def __init__(self, before: datetime) -> None:
        self.before = before
        self._links, self._seals = hashlib.sha256(), hashlib.sha256()
        self._entries = self._transfers = 0

    def add_links(self, links: list[bytes]) -> None:
        self._links.update(b"".join(links))
        self._entries += len(links)

    def add_seals(self, seals: list[bytes]) -> None:
        self._seals.update(b"".join(seals))
        self._transfers += len(seals)

    def history(self) -> History:
        return History(self.before, self._entries, self._links.digest(), self._transfers, self._seals.digest())

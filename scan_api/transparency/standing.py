"""How the log stands: how far it goes, and how far it is behind what was committed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge
from sqlmodel import col, select

from codes import log_queue
from codes.log_queue import LogEntry
from kit.clock import iso
from kit.db import Session
from scan_api.transparency.store import UNSIGNED, LogLeaf, find_head

BEHIND_MAX_S: Final = 10.0
"""From then on the server says that something is wrong: a second or two are usual, with witnesses up to five."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A log's state at a moment. Sizes are in leaves; `published_size` -1: nothing was published yet.

    `behind_s` is the age of the oldest record that no published checkpoint holds, 0 where all are held.
    """

    origin: str | None
    size: int
    signed_size: int
    published_size: int
    published_at: datetime | None
    pending: int
    oldest_pending_s: float
    behind_s: float

    @property
    def is_behind(self) -> bool:
        """Whether the gap between commit and log is larger than it should ever be."""
        return self.behind_s > BEHIND_MAX_S

    def as_json(self) -> dict[str, Any]:
        """As `GET /log/status` and `fanxing log status` tell it."""
        return {
            "origin": self.origin,
            "size": self.size,
            "signed_size": max(self.signed_size, 0),
            "published_size": max(self.published_size, 0),
            "published_at": None if self.published_at is None else iso(self.published_at),
            "pending": self.pending,
            "oldest_pending_s": round(self.oldest_pending_s, 3),
            "behind_s": round(self.behind_s, 3),
            "healthy": not self.is_behind,
        }


async def standing(session: Session, now: datetime) -> Standing:
    """How the log stands now."""
    head = await find_head(session)
    backlog = await log_queue.backlog(session)
    oldest_pending_s = _age_s(backlog.oldest_at, now)
    if head is None:
        return Standing(None, 0, UNSIGNED, UNSIGNED, None, backlog.count, oldest_pending_s, oldest_pending_s)
    unpublished_s = 0.0
    if max(head.published_size, 0) < head.size:
        first = (
            select(LogEntry.at)
            .join(LogLeaf, col(LogLeaf.entry_id) == LogEntry.entry_id)
            .where(LogLeaf.leaf_index == max(head.published_size, 0))
        )
        unpublished_s = _age_s((await session.exec(first)).first(), now)
    return Standing(
        origin=head.origin,
        size=head.size,
        signed_size=head.signed_size,
        published_size=head.published_size,
        published_at=head.published_at,
        pending=backlog.count,
        oldest_pending_s=oldest_pending_s,
        behind_s=max(oldest_pending_s, unpublished_s),
    )


def _age_s(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max((now - moment).total_seconds(), 0.0)


class Gauges:
    """The log's numbers in /metrics. Every server shows the same: take the maximum, not the sum."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"fanxing_log_{name}", about, registry=registry)

        self._size = gauge("leaves", "Leaves of the transparency log")
        self._published = gauge("published_leaves", "Leaves under the checkpoint that is served")
        self._pending = gauge("pending", "Records without a leaf")
        self._oldest = gauge("oldest_pending_seconds", "Age of the oldest of them")
        self._behind = gauge("behind_seconds", "Age of the oldest record that no published checkpoint holds")

    def show(self, now: Standing) -> None:
        """Show how the log stood a moment ago."""
        self._size.set(now.size)
        self._published.set(max(now.published_size, 0))
        self._pending.set(now.pending)
        self._oldest.set(now.oldest_pending_s)
        self._behind.set(now.behind_s)

"""Attached: what answers about events and acts carry of the log, by the ids of what was recorded.

A record that no signed checkpoint holds yet is pending, never proved: a proof is under what the log's key signed.
"""

import base64
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeVar

from sqlmodel import col, func, select

from codes.log_queue import LogEntry
from kit.db import Session
from offline_sdk.transparency import SignedCheckpoint
from scan_api.transparency import proofs
from scan_api.transparency.proofs import Proved
from scan_api.transparency.standing import BEHIND_MAX_S
from scan_api.transparency.store import LogLeaf

MEMBER: Final = "fanxing:evidence"
"""Of an answer, where somebody asks for evidence."""
ASKED_AT_ONCE: Final = 500
PROVED_AT_ONCE: Final = 50
"""Some hundredths of a second, in which a server does nothing else."""

Member = TypeVar("Member")


class State(StrEnum):
    """Whether a record is proved."""

    PROVED = "proved"
    PENDING = "pending"
    """Logged, and not under a signed checkpoint yet: it will be within `pending_within_s`."""
    UNLOGGED = "unlogged"
    """There is no record of it: it is older than the log."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record about a subject: its place in the tree, and the bytes of the record; both None where there is none."""

    entry_id: uuid.UUID
    subject: uuid.UUID
    leaf_index: int | None
    record_bytes: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the records about some subjects stand, under one checkpoint; `leaves` ascending by index.

    `pending` and `unlogged` are subjects, in the order in which they were asked for.
    """

    signed: SignedCheckpoint
    leaves: tuple[Recorded, ...]
    pending: tuple[uuid.UUID, ...]
    unlogged: tuple[uuid.UUID, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """What proves the records about some subjects: their evidence, all of it under `signed`."""

    signed: SignedCheckpoint
    pending: frozenset[uuid.UUID]
    proved: Mapping[uuid.UUID, tuple[Proved, ...]] = field(repr=False)

    def state_of(self, subject: uuid.UUID) -> State:
        """Whether a subject's record is proved."""
        if subject in self.proved:
            return State.PROVED
        return State.PENDING if subject in self.pending else State.UNLOGGED

    def as_json(self, named: Iterable[tuple[str, uuid.UUID]]) -> dict[str, Any]:
        """The member `fanxing:evidence`: of each event (its id, its key) the leaf, the opening and a tlog-proof."""
        head = self.signed.checkpoint
        return {
            "origin": head.origin,
            "size": head.size,
            "checkpoint": _base64(bytes(self.signed)),
            "pending_within_s": BEHIND_MAX_S,
            "events": [self._about(event_id, key) for event_id, key in named],
        }

    def _about(self, event_id: str, key: uuid.UUID) -> dict[str, Any]:
        told = {"event": event_id, "state": self.state_of(key).value}
        for proved in self.proved.get(key, ())[:1]:
            answer = proved.as_json()
            told |= {name: answer[name] for name in ("leaf_index", "entry", "opening")}
            told["proof"] = _base64(bytes(proved.evidence))
        return told


async def standing_of(session: Session, subjects: Sequence[uuid.UUID]) -> Standing:
    """Where all records about these subjects stand under the published checkpoint. Raises LogMissing."""
    signed = await proofs.published(session)
    found: list[Recorded] = []
    for some in _groups(dict.fromkeys(subjects), ASKED_AT_ONCE):
        asked = (
            select(LogEntry.entry_id, LogEntry.subject, LogLeaf.leaf_index, func.length(LogEntry.record))
            .outerjoin(LogLeaf, col(LogLeaf.entry_id) == LogEntry.entry_id)
            .where(col(LogEntry.subject).in_(some))
        )
        found += [Recorded(*row) for row in (await session.exec(asked)).all()]
    size = signed.checkpoint.size
    held = [one for one in found if one.leaf_index is not None and one.leaf_index < size]
    proved, logged = {one.subject for one in held}, {one.subject for one in found}
    return Standing(
        signed,
        tuple(sorted(held, key=lambda one: one.leaf_index or 0)),
        tuple(one for one in dict.fromkeys(subjects) if one in logged - proved),
        tuple(one for one in dict.fromkeys(subjects) if one not in logged),
    )


async def attach(session: Session, subjects: Sequence[uuid.UUID]) -> Attached:
    """The evidence of all records about these subjects, such as events' keys, under the published checkpoint.

    Who may see the records is the caller's to decide: they are in the evidence. Raises LogMissing, LogDamaged.
    """
    standing = await standing_of(session, subjects)
    proved: dict[uuid.UUID, list[Proved]] = {}
    for some in _groups(standing.leaves, PROVED_AT_ONCE):
        found = await proofs.prove(session, [one.entry_id for one in some], standing.signed)
        for one in some:
            if one.entry_id in found:
                proved.setdefault(one.subject, []).append(found[one.entry_id])
    return Attached(
        standing.signed,
        frozenset(standing.pending),
        {subject: tuple(evidence) for subject, evidence in proved.items()},
    )


def _groups(members: Iterable[Member], count: int) -> Iterator[list[Member]]:
    rest = iter(members)
    while group := list(islice(rest, count)):
        yield group


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

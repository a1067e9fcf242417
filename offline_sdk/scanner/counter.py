"""Counter: judges a code text, puts the verdict into the journal, and only then lets it be shown."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from ..errors import DeviceError, JournalDamaged, JournalUnwritable
from ..journal import Journal, Record, Recorded, Scan, Seen
from ..verifier import REFUSED
from .home import timestamp
from .trust import Judgement
from .words import NOT_RECORDED

READ_RECORDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Shown:
    """What may be shown of one scan: a judgement that is on the disk.

    Of a scan that could not be recorded `recorded` is None, and the judgement is "refused" with the journal's error:
    nothing is said of what the code was.
    """

    judged: Judgement
    recorded: Recorded | None = None

    @property
    def word(self) -> str:
        """Which of the words in `words.VERDICTS` is shown."""
        return self.judged.verdict if self.recorded else NOT_RECORDED

    @property
    def seen(self) -> Seen | None:
        """Earlier scans here of the same item; None for a refused one, whose numbers may be anybody's."""
        return self.recorded.seen if self.recorded and self.judged.verdict != REFUSED else None

    def as_json(self) -> dict[str, Any]:
        """The fields for json.dumps."""
        judged, recorded, seen = self.judged, self.recorded, self.seen
        return {
            "number": recorded.number if recorded else None,
            "at": timestamp(recorded.at_ms / 1000) if recorded else None,
            "verdict": judged.verdict,
            "error": judged.error,
            "message": judged.message,
            "gtin": judged.gtin,
            "serial": judged.serial,
            "profile": judged.profile,
            "kid": judged.kid,
            "issuer": judged.issuer,
            "bundle_seq": judged.bundle_seq,
            "bundle_state": judged.bundle_state,
            "clock_suspect": judged.clock_suspect,
            "seen": seen and {"number": seen.number, "at": timestamp(seen.at_ms / 1000), "times": seen.times},
        }


@dataclass(slots=True)
class Tally:
    """Scans of one local day: how many had which verdict, and how many of them were seen here before."""

    day: date
    genuine: int = 0
    ask: int = 0
    refused: int = 0
    again: int = 0

    def add(self, verdict: str, *, is_again: bool) -> None:
        """Count one scan."""
        setattr(self, verdict, getattr(self, verdict) + 1)
        self.again += is_again

    def as_json(self) -> dict[str, Any]:
        """The fields for json.dumps."""
        return {
            "day": self.day.isoformat(),
            "genuine": self.genuine,
            "ask": self.ask,
            "refused": self.refused,
            "seen_before": self.again,
        }


def tally_of(journal: Journal, day: date) -> Tally:
    """Count the journal's scans of a local day, from the newest back to the first that was before it.

    Of scans from before the program began, only those are counted as seen before that repeat one of the same day.
    """
    tally, labels = Tally(day), set()
    for record in _since(journal, day):
        label = (record.scan.gtin, record.scan.serial)
        is_believed = record.scan.verdict != REFUSED
        tally.add(record.scan.verdict, is_again=is_believed and label in labels)
        if is_believed:
            labels.add(label)
    return tally


def _since(journal: Journal, day: date) -> list[Record]:
    found: list[Record] = []
    end = journal.last_number + 1
    while end > 1:
        first = max(1, end - READ_RECORDS)
        records = journal.records(first, end - first)
        todays = [record for record in records if _local_day(record.moment.wall_ms / 1000) == day]
        found[:0] = todays
        if len(todays) < end - first:
            break
        end = first
    return found


@dataclass(slots=True)
class Counter:
    """Where codes are judged, by `judge`, and recorded."""

    journal_path: Path
    judge: Callable[[str], Judgement]
    journal: Journal = field(init=False)
    tally: Tally = field(init=False)
    _damages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal = self._open()
        self.tally = tally_of(self.journal, today())

    def scan(self, text: str) -> Shown:
        """Judge a text and record it; the verdict is on the disk when this returns, or it is withheld."""
        judged = self.judge(text)
        try:
            recorded = self._record(_scan_of(judged, text))
        except DeviceError as error:
            return Shown(Judgement(REFUSED, error.code, error.message))
        shown = Shown(judged, recorded)
        self.tally_today().add(judged.verdict, is_again=shown.seen is not None)
        return shown

    def tally_today(self) -> Tally:
        """The counts of today so far."""
        if self.tally.day != today():
            self.tally = Tally(today())
        return self.tally

    def take_damages(self) -> list[str]:
        """What was said, since the last call, of journals that were damaged; new ones have been begun."""
        damages, self._damages = self._damages, []
        return damages

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def _record(self, scan: Scan) -> Recorded:
        try:
            return self.journal.record(scan)
        except (JournalDamaged, JournalUnwritable):
            # The journal cannot be used after these. A new handle may do, and what it records is as safe as ever.
            self.journal.close()
            self.journal = self._open()
            return self.journal.record(scan)

    def _open(self) -> Journal:
        """Open the journal; one that is damaged was put aside, and another is begun."""
        try:
            return Journal.open(self.journal_path)
        except JournalDamaged as error:
            self._damages.append(error.message)
            return Journal.open(self.journal_path)


def _scan_of(judged: Judgement, text: str) -> Scan:
    return Scan(
        verdict=judged.verdict,
        error=judged.error,
        profile=judged.profile,
        kid=judged.kid,
        gtin=judged.gtin,
        serial=judged.serial,
        bundle_seq=judged.bundle_seq,
        bundle_state=judged.bundle_state,
        clock_suspect=judged.clock_suspect,
        text_chars=len(text) if judged.gtin is None else None,
    )


def today() -> date:
    """The local day that it is."""
    return datetime.now(UTC).astimezone().date()


def _local_day(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).astimezone().date()

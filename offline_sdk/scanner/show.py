"""Show: what a scan and the scanner's state look like as lines, for people or for machines; `panel` has the screen."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TextIO

from ..journal import Journal
from .background import LinkState
from .counter import Shown, Tally, tally_of, today
from .home import timestamp
from .trust import Trust, TrustState
from .words import (
    ADVICE,
    CLOCK_RIGHT,
    CLOCK_WRONG,
    DAYS_OLD,
    GENUINE,
    HOURS_OLD,
    INNER,
    ISSUER,
    LAST_SYNC,
    LINK,
    LIST,
    NEEDS_CLOCK,
    NEEDS_LIST,
    NEEDS_UPDATE,
    NEVER_SYNCED,
    NO_LIST,
    OLD_LIST,
    OUTER,
    SEEN,
    SERIAL,
    STATES,
    TODAY,
    VERDICTS,
    WAITING,
    WRONG_CLOCK,
    Advice,
    Language,
)

NEED: Final = "TrustWanting"
"""The event of a notice that says what `needs_of` does."""
_HOURS_SHOWN_MAX: Final = 48


@dataclass(frozen=True, slots=True)
class Standing:
    """How the scanner stands at a moment, unix seconds."""

    at: float
    tally: Tally
    trust: TrustState
    link: LinkState
    waiting: int

    @classmethod
    def now(cls, journal: Journal, trust: Trust, link: LinkState) -> "Standing":
        """How a scanner stands that is not at work."""
        return cls(time.time(), tally_of(journal, today()), trust.state(), link, journal.waiting)

    def as_json(self) -> dict[str, Any]:
        """The fields for json.dumps."""
        return {
            "at": timestamp(self.at),
            "today": self.tally.as_json(),
            "trust": self.trust.as_json(),
            "sync": {**self.link.as_json(), "waiting": self.waiting},
        }


class Face(Protocol):
    """What the counter's people, or a machine, look at."""

    def scan(self, shown: Shown) -> None:
        """Show a verdict."""

    def notice(self, event: str, text: str) -> None:
        """Say something that is no verdict; `event` is a word for machines."""

    def stand(self, standing: Standing) -> None:
        """Show how the scanner stands, as often as one likes."""

    def close(self) -> None:
        """Leave the screen as it was."""


class JsonFace:
    """One JSON object a line: scans on one stream, notices on another."""

    def __init__(self, scans: TextIO, notices: TextIO) -> None:
        self._scans = scans
        self._notices = notices

    def scan(self, shown: Shown) -> None:
        """Write the verdict, and flush it."""
        print(json.dumps(shown.as_json()), file=self._scans, flush=True)

    def notice(self, event: str, text: str) -> None:
        """Write the notice."""
        print(json.dumps({"event": event, "message": text}), file=self._notices, flush=True)

    def stand(self, standing: Standing) -> None:
        """Nothing: status.json has it."""

    def close(self) -> None:
        """Nothing."""


class PlainFace:
    """One line a scan, for a pipe, a log, or a screen reader."""

    def __init__(self, scans: TextIO, notices: TextIO, language: Language) -> None:
        self._scans = scans
        self._notices = notices
        self._language = language

    def scan(self, shown: Shown) -> None:
        """Write the verdict, and flush it."""
        print(plain_line(shown, self._language), file=self._scans, flush=True)

    def notice(self, event: str, text: str) -> None:
        """Write the notice."""
        print(f"-- {text}", file=self._notices, flush=True)

    def stand(self, standing: Standing) -> None:
        """Nothing: notices say what changes."""

    def close(self) -> None:
        """Nothing."""


def plain_line(shown: Shown, language: Language) -> str:
    """A scan in one line, which holds neither the code text nor its signature."""
    advice = advice_of(shown)
    head = VERDICTS[shown.word].says(language)
    if flags := warnings_of(shown, language):
        head += f" [{'; '.join(flags)}]"
    pieces = [head, *label_lines(shown, language)]
    if shown.seen:
        pieces.append(seen_line(shown, language))
    number = f"#{shown.recorded.number} " if shown.recorded else ""
    code = f" ({shown.judged.error})" if shown.judged.error else ""
    return f"{number}{' | '.join(pieces)} | {advice.why.says(language)}{code} {advice.do.says(language)}"


def advice_of(shown: Shown) -> Advice:
    """Why it is so and what to do, also for an error that came after this program was written."""
    if shown.judged.error is None:
        return GENUINE
    unknown = "BadSignature" if shown.recorded else "JournalUnwritable"
    return ADVICE.get(shown.judged.error, ADVICE[unknown])


def warnings_of(shown: Shown, language: Language) -> list[str]:
    """What makes a verdict less certain than its word: an old list, a clock that cannot be right."""
    warnings = []
    if shown.judged.bundle_state in OLD_LIST:
        issued = local_time(shown.judged.bundle_issued or 0)
        warnings.append(OLD_LIST[shown.judged.bundle_state].says(language, issued=issued))
    if shown.judged.clock_suspect:
        warnings.append(WRONG_CLOCK.says(language))
    return warnings


def label_lines(shown: Shown, language: Language) -> list[str]:
    """GTIN, serial and which code, and the issuer, as far as they are known."""
    lines = []
    if shown.judged.gtin is not None:
        face = (INNER if shown.judged.profile == 2 else OUTER).says(language)
        lines += [f"GTIN {shown.judged.gtin}", f"{SERIAL.says(language)} {shown.judged.serial} ({face})"]
    if shown.judged.issuer is not None:
        lines.append(f"{ISSUER.says(language)} {shown.judged.issuer}")
    return lines


def seen_line(shown: Shown, language: Language) -> str:
    """When the item was seen here before, and how often."""
    seen = shown.seen
    return "" if seen is None else SEEN.says(language, at=local_time(seen.at_ms / 1000), times=seen.times)


def standing_lines(standing: Standing, language: Language) -> tuple[str, str]:
    """The state in two lines: the day's counts; then list, clock and sync."""
    tally, trust, link = standing.tally, standing.trust, standing.link
    today = TODAY.says(language, genuine=tally.genuine, ask=tally.ask, refused=tally.refused, again=tally.again)
    clock = CLOCK_WRONG if trust.clock_suspect else CLOCK_RIGHT
    last = NEVER_SYNCED if link.last_sync_at is None else LAST_SYNC
    pieces = [
        _list_words(trust, standing.at, language),
        clock.says(language, at=local_time(standing.at)),
        LINK[link.word].says(language),
        WAITING.says(language, waiting=standing.waiting),
        last.says(language, at=local_time(link.last_sync_at or 0)),
    ]
    return today, " | ".join(pieces)


def needs_of(trust: TrustState, language: Language) -> list[str]:
    """What somebody has to do before verdicts are as good as they can be."""
    needs = []
    if trust.seq is None:
        needs.append(NEEDS_LIST.says(language))
    elif trust.state in OLD_LIST:
        needs.append(NEEDS_UPDATE.says(language, state=STATES[trust.state].says(language)))
    if trust.clock_suspect:
        needs.append(NEEDS_CLOCK.says(language))
    return needs


def _list_words(trust: TrustState, now: float, language: Language) -> str:
    if trust.seq is None or trust.state is None or trust.issued is None:
        return NO_LIST.says(language)
    hours = max(0, int((now - trust.issued) // 3600))
    age = (
        HOURS_OLD.says(language, hours=hours) if hours < _HOURS_SHOWN_MAX else DAYS_OLD.says(language, days=hours // 24)
    )
    return LIST.says(language, seq=trust.seq, state=STATES[trust.state].says(language), age=age)


def local_time(seconds: float) -> str:
    """A moment as the shop's clock shows it, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")

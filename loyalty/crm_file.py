"""A CRM's export: a CSV file read row by row, every row checked, and what is wrong told without repeating it.

Nothing here knows a database. The format is docs/loyalty/crm-import.md's.
"""

import codecs
import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from itertools import islice, repeat
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar, cast
from zoneinfo import ZoneInfo

from kit.errors import Invalid
from loyalty.phones import LAST_DIGITS_SHOWN, PhoneInvalid, parse_chinese_phones, parse_phone
from loyalty.profiles import NAME_CHARACTERS_MAX, BirthdayInvalid, parse_birthday

POINTS_MAX = 100_000_000
"""Most points that one row may bring: a slip of the decimal point should not pass."""
EXPERIENCE_MAX = 1_000_000_000
COLUMNS_MAX = 200
JOINED_MIN = datetime(1980, 1, 1, tzinfo=UTC)
AHEAD_MAX = timedelta(days=1)
"""How far in the future a day of joining may lie, for clocks and time zones differ."""
ZONE = ZoneInfo("Asia/Shanghai")
"""Of moments that are written without one."""
CONSENT_PREFIX = "consent_"

_READ_BYTES = 1 << 20
_NAMES = {
    "phone": ("phone", "mobile", "手机", "手机号", "手机号码"),
    "name": ("name", "姓名"),
    "birthday": ("birthday", "生日"),
    "points": ("points", "积分", "可用积分"),
    "experience": ("experience", "经验值", "成长值"),
    "tier": ("tier", "等级", "会员等级"),
    "joined_at": ("joined_at", "入会时间", "注册时间"),
}
_COLUMN_OF = {written: name for name, spellings in _NAMES.items() for written in spellings}
# Spreadsheets write whole numbers as 1,234 and 1234.00.
_WHOLE = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.0+)?|\d+\.0+", re.ASCII)
_DATE = re.compile(r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?", re.ASCII)


T = TypeVar("T")

NumberedRow = tuple[int, list[str]]
"""A row's fields, and the number of its last line in the file."""


class CrmFileInvalid(Invalid):
    """The file as a whole is not such an export."""

    code = "CrmFileInvalid"


class Reason(StrEnum):
    """Why a row was left out."""

    FIELDS = "fields"  # it has other columns than the header
    PHONE = "phone"
    NAME = "name"
    BIRTHDAY = "birthday"
    POINTS = "points"
    EXPERIENCE = "experience"
    TIER = "tier"
    JOINED_AT = "joined_at"
    CONSENT = "consent"


class Row(NamedTuple):
    """What one row, or several of one number, say. Points and experience are balances, 0 where nothing is said."""

    phone_e164: str
    name: str | None
    birthday: str | None
    """MM-DD."""
    points: int
    experience: int
    tier_rank: int
    joined_at: datetime | None
    consents: tuple[tuple[str, str], ...]
    """Kind and version."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out: its line in the file, the column at fault, why, and the number's last four digits."""

    line: int
    column: str
    reason: Reason
    last_digits: str


@dataclass(frozen=True)
class Columns:
    """Where the columns stand. `consents`: kinds by position."""

    count: int
    position: Mapping[str, int]
    consents: Mapping[int, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """What rows are checked against."""

    columns: Columns
    ranks: Mapping[str, int]
    """A tier's rank by its short name and its names, in lower case."""
    versions: Mapping[str, frozenset[str]]
    """The published versions of each kind of consent."""
    now: datetime


@dataclass(frozen=True)
class CrmFile:
    """A file that was looked through once."""

    path: Path
    encoding: str
    delimiter: str
    sha256: bytes
    lines: int
    """Line ends, which is about how many rows there are."""


def look_through(path: Path) -> CrmFile:
    """Find out how a file is written, and its SHA-256. Raises CrmFileInvalid and OSError.

    UTF-8, with or without a byte order mark, else GB18030, which Chinese spreadsheets write.
    """
    digest, lines, head = hashlib.sha256(), 0, b""
    possible = {name: codecs.getincrementaldecoder(name)() for name in ("utf-8-sig", "gb18030")}
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            head = head or block
            digest.update(block)
            lines += block.count(b"\n")
            _try(possible, block, final=False)
    _try(possible, b"", final=True)
    if not possible or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CrmFileInvalid("this file is neither UTF-8 nor GB18030", hint="Save it as CSV UTF-8.")
    encoding = next(iter(possible))
    first = head.decode(encoding, errors="ignore").partition("\n")[0]
    return CrmFile(path, encoding, max(",;\t", key=first.count), digest.digest(), lines)


def _try(possible: dict[str, codecs.IncrementalDecoder], block: bytes, *, final: bool) -> None:
    for encoding, decoder in list(possible.items()):
        try:
            decoder.decode(block, final)
        except UnicodeDecodeError:
            del possible[encoding]


class Reader:
    """The rows of a file; the header is read at once."""

    def __init__(self, file: CrmFile, text: TextIO) -> None:
        self._rows = csv.reader(text, delimiter=file.delimiter, strict=True)
        header = self._next()
        if header is None:
            raise CrmFileInvalid("this file is empty", hint="Its first line names the columns, phone among them.")
        self.columns = _columns(header)

    def chunks(self, rows_max: int) -> Iterator[list[NumberedRow]]:
        """The rows in chunks, always the same ones. Raises CrmFileInvalid when the file breaks off in a field."""
        rows = self._rows
        while True:
            start = rows.line_num
            try:
                found = [(rows.line_num, row) for row in islice(rows, rows_max) if row]
            except csv.Error as error:
                raise self._broken(error) from None
            if rows.line_num == start:
                return
            yield found

    def _next(self) -> list[str] | None:
        try:
            return next(self._rows, None)
        except csv.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: csv.Error) -> CrmFileInvalid:
        return CrmFileInvalid(f"line {self._rows.line_num}: {error}", hint="Is a quotation mark left open?")


def open_text(file: CrmFile) -> TextIO:
    """The file as text."""
    return file.path.open(encoding=file.encoding, newline="")


def _columns(header: Sequence[str]) -> Columns:
    position: dict[str, int] = {}
    consents: dict[int, str] = {}
    ignored = []
    for number, written in enumerate(header):
        plain = written.strip().lower()
        name = _COLUMN_OF.get(plain)
        if name is not None and name in position:
            raise CrmFileInvalid(f"two columns are the {name}", hint="Leave one of them out.")
        if name is not None:
            position[name] = number
        elif plain.startswith(CONSENT_PREFIX):
            consents[number] = plain.removeprefix(CONSENT_PREFIX)
        else:
            ignored.append(written.strip()[:40])
    if "phone" not in position:
        raise CrmFileInvalid(
            "no column is named phone", hint="The first line names the columns, see docs/loyalty/crm-import.md."
        )
    if len(header) > COLUMNS_MAX:
        raise CrmFileInvalid(f"a file has at most {COLUMNS_MAX} columns")
    return Columns(len(header), position, consents, tuple(ignored))


class _Fault(NamedTuple):
    column: str
    reason: Reason


class _Wrong(Exception):
    def __init__(self, column: str, reason: Reason) -> None:
        self.fault = _Fault(column, reason)


def check_rows(rows: Sequence[NumberedRow], rules: Rules) -> tuple[list[Row], list[BadRow]]:
    """The good rows and the bad ones, each in the order of the file."""
    count = rules.columns.count
    fitting = [numbered for numbered in rows if len(numbered[1]) == count]
    faults: dict[int, _Fault] = {}
    good = _checked([fields for _line, fields in fitting], rules, faults)
    bad = [(*fitting[number], fault) for number, fault in faults.items()]
    if faults:
        good = [row for number, row in enumerate(good) if number not in faults]
    if len(fitting) < len(rows):
        bad += [(line, fields, _Fault("", Reason.FIELDS)) for line, fields in rows if len(fields) != count]
    bad.sort(key=itemgetter(0))
    phone_at = rules.columns.position["phone"]
    return good, [
        BadRow(line, fault.column, fault.reason, last_digits(fields[phone_at]) if phone_at < len(fields) else "")
        for line, fields, fault in bad
    ]


def last_digits(phone: str) -> str:
    """The last four digits of what should be a number, as far as it has more than eight."""
    digits = re.sub(r"[^0-9]", "", phone)
    return digits[-LAST_DIGITS_SHOWN:] if len(digits) >= 2 * LAST_DIGITS_SHOWN else ""


def _checked(rows: Sequence[Sequence[str]], rules: Rules, faults: dict[int, _Fault]) -> list[Row]:
    """What rows say, with nonsense in those at fault; `faults` gets the first of each by its number."""
    if not rows:
        return []
    columns: list[Sequence[str]] = list(zip(*rows, strict=True))

    def read(name: str, parse: Callable[[str], T], nothing: T) -> Iterable[T]:
        at = rules.columns.position.get(name)
        return _each(columns[at], parse, faults) if at is not None else repeat(nothing, len(rows))

    def read_whole(name: str, reason: Reason, most: int) -> Iterable[int]:
        at = rules.columns.position.get(name)
        plain = _plain_wholes(columns[at], most) if at is not None else None
        return plain or read(name, partial(_whole, column=name, reason=reason, most=most), 0)

    phones = columns[rules.columns.position["phone"]]
    told = (
        parse_chinese_phones(phones) or _each(phones, _phone, faults),
        read("name", _name, None),
        read("birthday", _birthday, None),
        read_whole("points", Reason.POINTS, POINTS_MAX),
        read_whole("experience", Reason.EXPERIENCE, EXPERIENCE_MAX),
        read("tier", partial(_rank, ranks=rules.ranks), 0),
        read("joined_at", partial(_joined_at, latest=rules.now + AHEAD_MAX), None),
        _consents(columns, rules, faults) if rules.columns.consents else repeat((), len(rows)),
    )
    return list(map(Row._make, zip(*told, strict=True)))


def _each(texts: Sequence[str], parse: Callable[[str], T], faults: dict[int, _Fault]) -> list[T]:
    # A text that comes often, such as a day or a name, is parsed once.
    said: dict[str, T] = {}
    wrong: dict[str, _Fault] = {}
    for text in set(texts):
        try:
            said[text] = parse(text)
        except _Wrong as error:
            wrong[text] = error.fault
    if not wrong:
        return list(map(said.__getitem__, texts))
    for number, text in enumerate(texts):
        if text in wrong:
            faults.setdefault(number, wrong[text])
    some = next(iter(said.values()), cast("T", None))
    return [said.get(text, some) for text in texts]


def _phone(text: str) -> str:
    try:
        return parse_phone(text.strip())
    except PhoneInvalid:
        raise _Wrong("phone", Reason.PHONE) from None


def _name(text: str) -> str | None:
    name = text.strip()
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise _Wrong("name", Reason.NAME)
    return name or None


def _birthday(text: str) -> str | None:
    if not text.strip():
        return None
    dated = _DATE.fullmatch(text.strip())
    try:
        return str(parse_birthday(f"{dated[2]}-{dated[3]}" if dated else text))
    except BirthdayInvalid:
        raise _Wrong("birthday", Reason.BIRTHDAY) from None


def _plain_wholes(texts: Sequence[str], most: int) -> list[int] | None:
    """What `_whole` makes of each; None when one of them is anything but digits, or too many."""
    together = "".join(texts)
    if not (together.isascii() and together.isdigit() and all(texts)) or max(map(len, texts)) > len(str(most)):
        return None
    found = list(map(int, texts))
    return found if max(found) <= most else None


def _whole(text: str, column: str, reason: Reason, most: int) -> int:
    plain = text.strip()
    if not plain:
        return 0
    if not (plain.isascii() and plain.isdigit()):
        if not _WHOLE.fullmatch(plain):
            raise _Wrong(column, reason)
        plain = plain.partition(".")[0].replace(",", "")
    if len(plain) > len(str(most)) or int(plain) > most:
        raise _Wrong(column, reason)
    return int(plain)


def _rank(text: str, ranks: Mapping[str, int]) -> int:
    name = text.strip().lower()
    if not name:
        return 0
    try:
        return ranks[name]
    except KeyError:
        raise _Wrong("tier", Reason.TIER) from None


def _joined_at(text: str, latest: datetime) -> datetime | None:
    written = text.strip()
    if not written:
        return None
    try:
        moment = _moment(written)
    except (ValueError, OverflowError):  # the year 1 has no earlier day for a zone east of Greenwich
        raise _Wrong("joined_at", Reason.JOINED_AT) from None
    if not JOINED_MIN <= moment <= latest:
        raise _Wrong("joined_at", Reason.JOINED_AT)
    return moment


def _moment(written: str) -> datetime:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        found = _DATE.fullmatch(written)
        if found is None:
            raise
        moment = datetime(*(int(part or 0) for part in found.groups()))  # type: ignore[arg-type]  # noqa: DTZ001
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZONE)).astimezone(UTC)


def _consents(
    columns: Sequence[Sequence[str]], rules: Rules, faults: dict[int, _Fault]
) -> list[tuple[tuple[str, str], ...]]:
    def version(text: str, kind: str) -> str:
        if text.strip() and text.strip() not in rules.versions.get(kind, ()):
            raise _Wrong(f"{CONSENT_PREFIX}{kind}", Reason.CONSENT)
        return text.strip()

    kinds = rules.columns.consents
    versions = [_each(columns[number], partial(version, kind=kind), faults) for number, kind in kinds.items()]
    return [
        tuple(given for given in zip(kinds.values(), one, strict=True) if given[1])
        for one in zip(*versions, strict=True)
    ]


def merged(one: Row, other: Row) -> Row:
    """What two rows of one number say together: the higher balance, the higher tier, the earlier day, the first name.

    The order of the rows matters for name, birthday and consents alone. Never the sum: exports repeat rows far more
    often than a CRM splits a customer's points over two.
    """
    joined = [row.joined_at for row in (one, other) if row.joined_at is not None]
    kinds = {kind for kind, _version in one.consents}
    return Row(
        one.phone_e164,
        one.name or other.name,
        one.birthday or other.birthday,
        max(one.points, other.points),
        max(one.experience, other.experience),
        max(one.tier_rank, other.tier_rank),
        min(joined, default=None),
        one.consents + tuple(given for given in other.consents if given[0] not in kinds),
    )


def report_line(bad: BadRow) -> str:
    """A line of the report, as docs/loyalty/crm-import.md says."""
    return f"{bad.line},{bad.column},{bad.reason},{bad.last_digits}\n"


REPORT_HEADER = "line,column,reason,last_digits\n"

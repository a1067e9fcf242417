"""Inspection after print: every symbol of a scan read, judged against its order, and graded.

Reports name items by serial and place; the code texts of a scan, secrets where they are inner ones, stay out of them.
"""

import heapq
import math
import os
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from codes.inspection.grades import Grade, Quality, measure
from codes.inspection.scans import Page
from codes.inspection.symbols import Symbol, find
from codes.orders import CodeOrder, OrderState
from codes.ranges import IndexRange, merged, without
from codes.serials import SerialScheme
from offline_sdk.code_text import CodeText, Profile, parse
from offline_sdk.errors import Revoked
from offline_sdk.verifier import Verifier

LISTED_MAX = 100
"""Findings and missing ranges that a report lists of a sort; all are counted."""
WORST_MAX = 10
_READERS_MAX = 4
_MM_PER_INCH = 25.4


class Finding(StrEnum):
    """What a symbol turned out to be."""

    GENUINE = "genuine"
    DOUBLED = "doubled"  # a genuine code met before
    FOREIGN = "foreign"  # genuine, but not to be here
    REFUSED = "refused"  # forged, altered, revoked, voided, recalled, or no item code at all
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What should be on the scan: items of an order, of these ranges of issue indexes.

    `faces` None: whichever of the order's faces are met. `voided`, disjoint and ascending, are the order's ranges that
    were withdrawn: none of them is expected, and none may be on a label.
    """

    order: CodeOrder
    scheme: SerialScheme
    ranges: Sequence[IndexRange]
    faces: Sequence[Profile] | None = None
    voided: Sequence[IndexRange] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a symbol's centre is: the scan's file, its page from 1, pixels from the top left."""

    scan: str
    page: int
    x_px: int
    y_px: int
    dpi: float | None

    def as_json(self) -> dict[str, Any]:
        millimetres = (
            {}
            if self.dpi is None
            else {
                f"{axis}_mm": round(px * _MM_PER_INCH / self.dpi, 1)
                for axis, px in (("x", self.x_px), ("y", self.y_px))
            }
        )
        return {"scan": self.scan, "page": self.page, "x_px": self.x_px, "y_px": self.y_px, **millimetres}


@dataclass(frozen=True, slots=True)
class Inspected:
    """One symbol, judged.

    `reason` tells why it is foreign or refused, in one word; serial and GTIN are those of its text, believed or not,
    and None where there are none. `first` is where a doubled one was met before.
    """

    finding: Finding
    reason: str | None
    gtin: str | None
    serial: str | None
    face: Profile | None
    place: Place
    symbol: Symbol
    quality: Quality | None
    first: Place | None = None

    def as_json(self) -> dict[str, Any]:
        told = {
            "reason": self.reason,
            "gtin": self.gtin,
            "serial": self.serial,
            "face": None if self.face is None else self.face.name.lower(),
            **self.place.as_json(),
            **({} if self.quality is None else self.quality.as_json()),
            "hard_to_read": True if self.symbol.helped and self.symbol.text is not None else None,
            "first": None if self.first is None else self.first.as_json(),
        }
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Missing:
    """Items of a face that were expected and not met: how many, and the first LISTED_MAX of their ranges."""

    face: Profile
    items: int
    ranges: tuple[IndexRange, ...]


@dataclass(frozen=True, slots=True)
class Grades:
    """How well the symbols that could be read are printed: an indication, not a verifier's grade.

    `counts` by grade; `worst` the lowest first. The least values are None without a symbol to measure, or where no
    scan's resolution is known.
    """

    counts: dict[Grade, int]
    contrast_min: float | None
    module_mm_min: float | None
    small_modules: int
    quiet_zone_broken: int
    hard_to_read: int
    worst: tuple[Inspected, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an inspection found. `listed` has up to LISTED_MAX symbols of each sort that is amiss."""

    pages: int
    counts: dict[Finding, int]
    listed: dict[Finding, tuple[Inspected, ...]]
    missing: tuple[Missing, ...]
    grades: Grades

    @property
    def is_clean(self) -> bool:
        """Whether everything expected is there once, and nothing else is. Grades do not count."""
        amiss = sum(count for finding, count in self.counts.items() if finding is not Finding.GENUINE)
        return amiss == 0 and not any(missing.items for missing in self.missing)

    def as_json(self) -> dict[str, Any]:
        """The report for json.dumps."""
        grades = self.grades
        return {
            "clean": self.is_clean,
            "pages": self.pages,
            "counts": {finding.value: count for finding, count in self.counts.items()},
            "missing": [
                {"face": one.face.name.lower(), "items": one.items, "ranges": [str(each) for each in one.ranges]}
                for one in self.missing
            ],
            **{finding.value: [one.as_json() for one in found] for finding, found in self.listed.items()},
            "grades": {
                "indication_only": True,
                "counts": {grade.value: count for grade, count in grades.counts.items()},
                "contrast_min": None if grades.contrast_min is None else round(grades.contrast_min, 2),
                "module_mm_min": None if grades.module_mm_min is None else round(grades.module_mm_min, 3),
                "small_modules": grades.small_modules,
                "quiet_zone_broken": grades.quiet_zone_broken,
                "hard_to_read": grades.hard_to_read,
                "worst": [one.as_json() for one in grades.worst],
            },
        }


Watch = Callable[[Page, Sequence[Inspected]], None]
"""Told of each page when all its symbols are judged, in the order of the pages."""


def inspect(
    pages: Iterable[Page], expectation: Expectation, verifier: Verifier, watch: Watch = lambda page, found: None
) -> Report:
    """Read, judge and grade every symbol of the pages. A few pages at a time are in memory."""
    tally = _Tally(expectation, verifier)
    count = 0
    for page, seen in _read(pages):
        count += 1
        watch(page, [tally.add(page, symbol, quality) for symbol, quality in seen])
    return tally.report(count)


_Seen = list[tuple[Symbol, Quality | None]]


def _read(pages: Iterable[Page]) -> Iterator[tuple[Page, _Seen]]:
    """The pages with their symbols, in order. The decoder lets go of the interpreter lock, so threads do."""
    readers = min(_READERS_MAX, os.cpu_count() or 1)
    waiting: deque[tuple[Page, Future[_Seen]]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        try:
            for page in pages:
                waiting.append((page, pool.submit(_read_page, page)))
                if len(waiting) > readers:
                    done, seen = waiting.popleft()
                    yield done, seen.result()
            while waiting:
                done, seen = waiting.popleft()
                yield done, seen.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read_page(page: Page) -> _Seen:
    return [
        (symbol, None if symbol.text is None else measure(page.grey, symbol, page.dpi)) for symbol in find(page.grey)
    ]


class _Tally:
    """What was met so far."""

    def __init__(self, expectation: Expectation, verifier: Verifier) -> None:
        self._expected = expectation
        self._ranges = merged(expectation.ranges)
        self._verifier = verifier
        self._met: dict[Profile, dict[int, Place]] = {face: {} for face in expectation.order.faces}
        self._counts: Counter[Finding] = Counter()
        self._listed: dict[Finding, list[Inspected]] = {one: [] for one in Finding if one is not Finding.GENUINE}
        self._grading = _Grading()

    def add(self, page: Page, symbol: Symbol, quality: Quality | None) -> Inspected:
        x, y = symbol.centre
        place = Place(page.name, page.number, round(x), round(y), page.dpi)
        one = self._judged(symbol, quality, place)
        self._counts[one.finding] += 1
        if one.finding is not Finding.GENUINE and len(self._listed[one.finding]) < LISTED_MAX:
            self._listed[one.finding].append(one)
        self._grading.add(one)
        return one

    def report(self, pages: int) -> Report:
        return Report(
            pages=pages,
            counts={finding: self._counts[finding] for finding in Finding},
            listed={finding: tuple(found) for finding, found in self._listed.items()},
            missing=tuple(self._missing(face, met) for face, met in self._met.items() if self._is_wanted(face)),
            grades=self._grading.grades(),
        )

    def _judged(self, symbol: Symbol, quality: Quality | None, place: Place) -> Inspected:
        if symbol.text is None:
            return Inspected(Finding.UNREADABLE, None, None, None, None, place, symbol, quality)
        verdict = self._verifier.check(symbol.text)
        face = None if verdict.profile is None else Profile(verdict.profile)
        finding, reason, first = Finding.REFUSED, verdict.error, None
        # A revoked code's signature is right: it is the item that it says it is, and not missing.
        if verdict.is_genuine or verdict.error == Revoked.code:
            code = parse(symbol.text)
            index = self._index(code)
            foreign = self._why_foreign(code, index)
            if foreign is not None:
                finding, reason = Finding.FOREIGN, foreign
            elif not symbol.text.startswith(f"{self._expected.order.base_url}/"):
                reason = "OtherAddress"
            else:
                first = self._met[Profile(code.profile)].setdefault(index, place)
                reason = verdict.error or self._why_withdrawn(index)
                if reason is None:
                    finding = Finding.GENUINE if first is place else Finding.DOUBLED
                first = None if first is place else first
        return Inspected(finding, reason, verdict.gtin, verdict.serial, face, place, symbol, quality, first)

    def _index(self, code: CodeText) -> int:
        return self._expected.scheme.issue_index(code.gtin, code.order, code.item_number)

    def _why_foreign(self, code: CodeText, index: int) -> str | None:
        order, faces = self._expected.order, self._expected.faces
        if code.gtin != order.gtin:
            return "OtherProduct"
        if code.order != order.order_number:
            return "OtherOrder"
        if index >= order.quantity or code.profile not in order.faces or code.kid != order.kid:
            return "NeverOrdered"
        if faces is not None and code.profile not in faces:
            return "OtherFace"
        return None if _holds(self._ranges, index) else "OutsideRange"

    def _why_withdrawn(self, index: int) -> str | None:
        """What a bundle does not know: the same words as a scan's."""
        if self._expected.order.state == OrderState.RECALLED:
            return "Recalled"
        return "Voided" if _holds(self._expected.voided, index) else None

    def _is_wanted(self, face: Profile) -> bool:
        if self._expected.faces is not None:
            return face in self._expected.faces
        return bool(self._met[face]) or not any(self._met.values())

    def _missing(self, face: Profile, met: dict[int, Place]) -> Missing:
        indexes = np.sort(np.fromiter(met, dtype=np.int64, count=len(met)))
        cuts = np.flatnonzero(np.diff(indexes) > 1)
        firsts = indexes[np.concatenate(([0], cuts + 1))] if met else indexes
        lasts = indexes[np.concatenate((cuts, [-1]))] if met else indexes
        runs = [IndexRange(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]
        gaps = without(without(self._ranges, self._expected.voided), runs)
        return Missing(face, sum(gap.items for gap in gaps), tuple(gaps[:LISTED_MAX]))


def _holds(ranges: Sequence[IndexRange], index: int) -> bool:
    """Whether an index lies in one of the ranges, which are disjoint and ascending."""
    at = bisect_right(ranges, index, key=lambda one: one.first) - 1
    return at >= 0 and index <= ranges[at].last


class _Grading:
    """The qualities met so far."""

    def __init__(self) -> None:
        self._counts: Counter[Grade] = Counter()
        self._contrasts = self._modules_mm = math.inf
        self._small = self._quiet_zone_broken = self._hard = 0
        self._worst: list[Inspected] = []

    def add(self, one: Inspected) -> None:
        quality = one.quality
        if quality is None:
            return
        self._counts[quality.grade] += 1
        self._contrasts = min(self._contrasts, quality.contrast)
        self._modules_mm = min(self._modules_mm, quality.module_mm or math.inf)
        self._small += quality.is_small
        self._quiet_zone_broken += not quality.quiet_zone
        self._hard += one.symbol.helped
        if quality.grade > Grade.A or quality.is_small or not quality.quiet_zone or one.symbol.helped:
            self._worst = heapq.nsmallest(WORST_MAX, [*self._worst, one], key=_goodness)

    def grades(self) -> Grades:
        return Grades(
            counts={grade: self._counts[grade] for grade in Grade},
            contrast_min=None if math.isinf(self._contrasts) else self._contrasts,
            module_mm_min=None if math.isinf(self._modules_mm) else self._modules_mm,
            small_modules=self._small,
            quiet_zone_broken=self._quiet_zone_broken,
            hard_to_read=self._hard,
            worst=tuple(self._worst),
        )


def _goodness(one: Inspected) -> tuple[int, bool, float]:
    assert one.quality is not None  # only measured ones are compared
    return -ord(one.quality.grade), not one.symbol.helped, one.quality.contrast

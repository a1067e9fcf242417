"""Inspection after print: sheets drawn here, spoiled as presses and scanners spoil them, and judged."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nacl.signing
import numpy as np
import pytest
import qrcode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from codes import inspection, qr
from codes.inspection import Expectation, Finding, Report, pictures, scans, symbols
from codes.inspection.grades import Grade, measure
from codes.inspection.scans import DpiOutOfRange, Grey, Page, ScanTooLarge, ScanUnreadable, count_pages, pages
from codes.orders import CodeOrder, OrderState
from codes.ranges import IndexRange
from codes.serials import SerialScheme
from offline_sdk import BundleKey, Profile, Verifier
from offline_sdk.code_text import encode_message, encode_text
from offline_sdk.revocation import Revocations
from tests.codes.conftest import BASE_URL, GTIN, NOW, MakeOrder

DPI = 300
MODULE_PX = 4
COLUMNS = 4
QUANTITY = 12
SIDE_PX = (45 + 2 * qr.QUIET_ZONE_MODULES) * MODULE_PX
PITCH_PX = (SIDE_PX + 24, SIDE_PX + 60)
MARGIN_PX = 60
OTHER_KEY = nacl.signing.SigningKey(bytes(range(32)))

Texts = Callable[..., list[str]]
Inspect = Callable[..., Report]


@pytest.fixture(scope="module")
def texts(scheme: SerialScheme, vector_key: nacl.signing.SigningKey) -> Texts:
    """Code texts of consecutive items of an order."""

    def write(
        start: int = 0,
        count: int = QUANTITY,
        face: Profile = Profile.OUTER,
        order_number: int = 1,
        gtin: str = GTIN,
        kid: int = 1,
        key: nacl.signing.SigningKey = vector_key,
        base_url: str = BASE_URL,
    ) -> list[str]:
        serials = [
            f"{order_number:05d}{number:09d}" for number in scheme.item_numbers(gtin, order_number, start, count)
        ]
        signed = [key.sign(encode_message(face, kid, gtin, serial)).signature for serial in serials]
        return [
            encode_text(base_url, face, kid, *pair)
            for pair in ((s, gtin, n) for s, n in zip(signed, serials, strict=True))
        ]

    return write


def sheet(of: Sequence[str], module_px: int = MODULE_PX) -> Grey:
    """Labels in rows of COLUMNS, each with its serial below, at 300 dpi."""
    side = SIDE_PX * module_px // MODULE_PX
    across, down = side + PITCH_PX[0] - SIDE_PX, side + PITCH_PX[1] - SIDE_PX
    rows = -(-len(of) // COLUMNS)
    page = Image.new("L", (COLUMNS * across + 2 * MARGIN_PX, rows * down + 2 * MARGIN_PX), 255)
    pen = ImageDraw.Draw(page)
    for place, text in enumerate(of):
        left, top = MARGIN_PX + place % COLUMNS * across, MARGIN_PX + place // COLUMNS * down
        page.paste(qr.image(qr.symbol(text), module_px), (left, top))
        pen.text((left + side // 2, top + side + 4), text[-14:], 0, anchor="mt", font_size=24)
    return np.asarray(page)


def box(place: int) -> tuple[int, int, int, int]:
    """Where a label's symbol with its quiet zone is on a sheet: left, top, right, bottom."""
    left = MARGIN_PX + place % COLUMNS * PITCH_PX[0]
    top = MARGIN_PX + place // COLUMNS * PITCH_PX[1]
    return left, top, left + SIDE_PX, top + SIDE_PX


def page_of(grey: Grey, number: int = 1, dpi: float | None = DPI) -> Page:
    return Page("scan.png", number, np.ascontiguousarray(grey), dpi)


@pytest.fixture(scope="module")
def clean_sheet(texts: Texts) -> Grey:
    return sheet(texts())


@pytest.fixture(scope="module")
def inspect(scheme: SerialScheme, verifier: Verifier, make_order: MakeOrder) -> Inspect:
    """Inspect pages, or the one page that a picture is, for an order of QUANTITY items with both faces."""

    def run(
        *pictures: Grey,
        ranges: Sequence[IndexRange] = (IndexRange(0, QUANTITY - 1),),
        faces: Sequence[Profile] | None = None,
        judge: Verifier = verifier,
        voided: Sequence[IndexRange] = (),
        **order: Any,
    ) -> Report:
        placed: CodeOrder = make_order(**{"quantity": QUANTITY, "faces": tuple(Profile), **order})
        expectation = Expectation(placed, scheme, ranges, faces, voided)
        return inspection.inspect(
            (page_of(picture, number) for number, picture in enumerate(pictures, 1)), expectation, judge
        )

    return run


def missing(report: Report) -> dict[Profile, list[tuple[int, int]]]:
    return {one.face: [(each.first, each.last) for each in one.ranges] for one in report.missing}


def amiss(report: Report) -> dict[Finding, int]:
    return {finding: count for finding, count in report.counts.items() if count and finding is not Finding.GENUINE}


def test_a_clean_sheet_is_clean_and_well_printed(clean_sheet: Grey, inspect: Inspect) -> None:
    report = inspect(clean_sheet)
    assert report.is_clean
    assert report.counts[Finding.GENUINE] == QUANTITY
    assert missing(report) == {Profile.OUTER: []}
    assert report.grades.counts == {Grade.A: QUANTITY, Grade.B: 0, Grade.C: 0, Grade.D: 0, Grade.F: 0}
    assert report.grades.contrast_min == 1
    assert report.grades.module_mm_min == pytest.approx(MODULE_PX * 25.4 / DPI, abs=0.002)
    assert (report.grades.small_modules, report.grades.quiet_zone_broken, report.grades.hard_to_read) == (0, 0, 0)
    assert report.grades.worst == ()


def test_symbols_come_in_reading_order(clean_sheet: Grey, texts: Texts) -> None:
    assert [symbol.text for symbol in symbols.find(clean_sheet)] == texts()


@pytest.mark.parametrize("face", Profile)
def test_what_is_not_on_the_sheet_is_missing(face: Profile, texts: Texts, inspect: Inspect) -> None:
    every = texts(face=face)
    report = inspect(sheet([*every[:2], *every[3:9], every[10]]))
    assert missing(report) == {face: [(2, 2), (9, 9), (11, 11)]}
    assert [one.items for one in report.missing] == [3]
    assert not report.is_clean
    assert amiss(report) == {}


def test_only_the_ranges_and_faces_asked_for_are_expected(texts: Texts, inspect: Inspect) -> None:
    outer = sheet(texts(4, 4))
    assert inspect(outer, ranges=[IndexRange(4, 7)]).is_clean
    assert inspect(outer, ranges=[IndexRange(6, 7), IndexRange(4, 5)]).is_clean
    report = inspect(outer, ranges=[IndexRange(3, 6)])
    assert missing(report) == {Profile.OUTER: [(3, 3)]}
    assert [one.reason for one in report.listed[Finding.FOREIGN]] == ["OutsideRange"]
    both = inspect(outer, ranges=[IndexRange(4, 7)], faces=list(Profile))
    assert missing(both) == {Profile.OUTER: [], Profile.INNER: [(4, 7)]}
    other = inspect(outer, ranges=[IndexRange(4, 7)], faces=[Profile.INNER])
    assert {one.reason for one in other.listed[Finding.FOREIGN]} == {"OtherFace"}


def test_a_code_met_twice_is_doubled_and_both_places_are_told(texts: Texts, inspect: Inspect) -> None:
    first, second = texts()[:8], texts()[8:]
    report = inspect(sheet(first), sheet([*second, first[1]]))
    assert amiss(report) == {Finding.DOUBLED: 1}
    (twice,) = report.listed[Finding.DOUBLED]
    assert twice.first is not None
    assert (twice.first.page, twice.place.page) == (1, 2)
    for place, label in ((twice.first, 1), (twice.place, 4)):
        left, top, right, bottom = box(label)
        assert (place.x_px, place.y_px) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=3)
    assert twice.serial == first[1][-14:]
    assert missing(report) == {Profile.OUTER: []}
    assert report.counts[Finding.GENUINE] == QUANTITY


def test_the_two_faces_of_an_item_are_no_double(texts: Texts, inspect: Inspect) -> None:
    assert inspect(sheet(texts()), sheet(texts(face=Profile.INNER))).is_clean


OTHER_GTIN = "06901234567908"


@pytest.mark.parametrize(
    ("fields", "finding", "reason"),
    [
        ({"order_number": 2}, Finding.FOREIGN, "OtherOrder"),
        ({"gtin": OTHER_GTIN}, Finding.FOREIGN, "OtherProduct"),
        ({"start": QUANTITY}, Finding.FOREIGN, "NeverOrdered"),
        ({"key": OTHER_KEY}, Finding.REFUSED, "BadSignature"),
        ({"kid": 4711}, Finding.REFUSED, "UnknownKey"),
        ({"base_url": "https://id.examp1e.cn"}, Finding.REFUSED, "OtherAddress"),
    ],
)
def test_strange_codes_are_told_apart(
    fields: dict[str, Any], finding: Finding, reason: str, texts: Texts, inspect: Inspect
) -> None:
    (strange,) = texts(**{"count": 1, **fields})
    report = inspect(sheet([*texts()[1:], strange]))
    assert amiss(report) == {finding: 1}
    (one,) = report.listed[finding]
    assert one.reason == reason
    assert one.serial == strange[-14:]
    assert missing(report) == {Profile.OUTER: [(0, 0)]}
    assert not report.is_clean


def test_another_issuers_code_is_foreign(texts: Texts, inspect: Inspect, verifier: Verifier) -> None:
    gtin = "09506000134352"
    other = BundleKey(900, bytes(OTHER_KEY.verify_key), "Example Ice", ("9506000",))
    judge = Verifier(
        replace(verifier.bundle, keys=tuple(sorted((*verifier.bundle.keys, other), key=lambda key: key.kid))), now=NOW
    )
    (strange,) = texts(count=1, gtin=gtin, kid=900, key=OTHER_KEY)
    report = inspect(sheet([*texts(), strange]), judge=judge)
    assert [(one.reason, one.gtin) for one in report.listed[Finding.FOREIGN]] == [("OtherProduct", gtin)]
    assert missing(report) == {Profile.OUTER: []}


def test_a_symbol_that_is_no_item_code_is_refused(texts: Texts, inspect: Inspect) -> None:
    page = Image.fromarray(sheet(texts(count=QUANTITY - 1)))
    page.paste(qrcode.make("https://example.com/", box_size=4).get_image().convert("L"), box(QUANTITY - 1)[:2])
    report = inspect(np.asarray(page))
    assert [(one.reason, one.serial) for one in report.listed[Finding.REFUSED]] == [("Malformed", None)]
    assert amiss(report) == {Finding.REFUSED: 1}
    assert missing(report) == {Profile.OUTER: [(11, 11)]}


def test_a_revoked_item_is_refused_and_not_missing(
    clean_sheet: Grey, texts: Texts, inspect: Inspect, verifier: Verifier
) -> None:
    revoked = texts()[3][-14:]
    judge = Verifier(
        replace(verifier.bundle, revocations=Revocations.collect(items=[(GTIN, 1, int(revoked[5:]))])), now=NOW
    )
    report = inspect(clean_sheet, judge=judge)
    assert [(one.reason, one.serial) for one in report.listed[Finding.REFUSED]] == [("Revoked", revoked)]
    assert amiss(report) == {Finding.REFUSED: 1}
    assert missing(report) == {Profile.OUTER: []}


@pytest.mark.parametrize("printed", [QUANTITY, 10])
def test_a_voided_item_is_refused_where_it_is_and_not_missing_where_it_is_not(
    printed: int, texts: Texts, inspect: Inspect
) -> None:
    report = inspect(sheet(texts(count=printed)), voided=[IndexRange(3, 3), IndexRange(10, 11)])
    refused = [texts()[place][-14:] for place in (3, 10, 11) if place < printed]
    assert [(one.reason, one.serial) for one in report.listed[Finding.REFUSED]] == [("Voided", one) for one in refused]
    assert amiss(report) == {Finding.REFUSED: len(refused)}
    assert missing(report) == {Profile.OUTER: []}


def test_nothing_of_a_recalled_order_is_fine(clean_sheet: Grey, inspect: Inspect) -> None:
    report = inspect(clean_sheet, state=OrderState.RECALLED)
    assert {one.reason for one in report.listed[Finding.REFUSED]} == {"Recalled"}
    assert amiss(report) == {Finding.REFUSED: QUANTITY}


def test_a_code_under_another_key_than_its_orders_was_never_ordered(texts: Texts, inspect: Inspect) -> None:
    report = inspect(sheet([*texts(count=QUANTITY - 1), *texts(QUANTITY - 1, 1, kid=7)]))
    assert [one.reason for one in report.listed[Finding.FOREIGN]] == ["NeverOrdered"]
    assert missing(report) == {Profile.OUTER: [(11, 11)]}


def scratched(page: Grey, place: int) -> Grey:
    """The page with the heart of a symbol rubbed off; its three corners stay."""
    picture = Image.fromarray(page)
    left, top, right, bottom = box(place)
    picture.paste(255, (left + 70, top + 60, right - 60, bottom - 60))
    return np.array(picture)


def test_a_scratched_symbol_is_unreadable_once_and_where_it_is(clean_sheet: Grey, inspect: Inspect) -> None:
    report = inspect(scratched(scratched(clean_sheet, 5), 6))
    assert amiss(report) == {Finding.UNREADABLE: 2}
    for one, label in zip(report.listed[Finding.UNREADABLE], (5, 6), strict=True):
        left, top, right, bottom = box(label)
        assert (one.place.x_px, one.place.y_px) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=6)
    assert missing(report) == {Profile.OUTER: [(5, 6)]}


def test_a_page_of_nothing_but_scratched_symbols_tells_of_them(texts: Texts, inspect: Inspect) -> None:
    page = sheet(texts(count=2))
    assert amiss(inspect(scratched(scratched(page, 0), 1))) == {Finding.UNREADABLE: 2}


def test_pictures_and_noise_are_not_taken_for_symbols(inspect: Inspect) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (700, 700), dtype=np.uint8)
    art = Image.new("L", (900, 700), 255)
    pen = ImageDraw.Draw(art)
    for ring, tone in ((90, 0), (60, 255), (35, 0)):
        for x in (150, 500):
            pen.ellipse((x - ring, 300 - ring, x + ring, 300 + ring), fill=tone)
    for picture in (noise, np.asarray(art)):
        report = inspect(picture)
        assert amiss(report) == {}
        assert missing(report) == {face: [(0, QUANTITY - 1)] for face in Profile}


def turned(page: Grey, degrees: float) -> Grey:
    picture = Image.fromarray(page).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    return np.array(picture)


def skewed(page: Grey) -> Grey:
    """As a photograph from one side."""
    height, width = page.shape
    picture = Image.fromarray(page)
    corners = (0, 0, -40, height, width + 60, height + 30, width - 30, 20)
    return np.array(
        picture.transform((width, height), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC, fillcolor=255)
    )


def noisy(page: Grey, deviation: float) -> Grey:
    noise = np.random.default_rng(3).normal(0, deviation, page.shape)
    return np.clip(page + noise, 0, 255).astype(np.uint8)


def shaded(page: Grey) -> Grey:
    """As under a lamp to the right."""
    return np.asarray(page * np.linspace(0.45, 1, page.shape[1])).astype(np.uint8)


@pytest.mark.parametrize(
    ("spoil", "hard"),
    [
        (lambda page: turned(page, 3), False),
        (lambda page: turned(page, 30), False),
        (lambda page: turned(page, 90), False),
        (lambda page: turned(page, 180), False),
        (skewed, False),
        (lambda page: noisy(page, 20), False),
        (lambda page: np.array(Image.fromarray(page).filter(ImageFilter.GaussianBlur(1.5))), False),
        (lambda page: np.array(Image.fromarray(page).filter(ImageFilter.GaussianBlur(2))), True),
        (shaded, False),
        (lambda page: np.array(Image.fromarray(page).reduce(2)), False),
    ],
    ids=["3°", "30°", "90°", "180°", "skewed", "noisy", "soft", "blurred", "shaded", "150 dpi"],
)
def test_what_scanners_do_to_a_page_hides_nothing(
    spoil: Callable[[Grey], Grey], hard: bool, clean_sheet: Grey, inspect: Inspect
) -> None:
    report = inspect(spoil(clean_sheet))
    assert report.is_clean
    assert (report.grades.hard_to_read > 0) is hard
    assert report.grades.quiet_zone_broken == 0


def test_a_dense_sheet_is_read_without_a_gap(texts: Texts, inspect: Inspect) -> None:
    assert inspect(np.tile(sheet(texts()), (3, 2))).counts == {
        Finding.GENUINE: QUANTITY,
        Finding.DOUBLED: 5 * QUANTITY,
        Finding.FOREIGN: 0,
        Finding.REFUSED: 0,
        Finding.UNREADABLE: 0,
    }


@pytest.mark.parametrize(
    ("contrast", "grade"),
    [(0.71, "A"), (0.69, "B"), (0.56, "B"), (0.54, "C"), (0.41, "C"), (0.39, "D"), (0.21, "D"), (0.19, "F")],
)
def test_contrast_is_graded(contrast: float, grade: str, texts: Texts) -> None:
    page = sheet(texts(count=1))
    faded = np.asarray(255 - (255 - page) * contrast).round().astype(np.uint8)
    (symbol,) = symbols.find(faded)
    quality = measure(faded, symbol, DPI)
    assert quality.contrast == pytest.approx(contrast, abs=0.005)
    assert quality.grade == grade


def test_spent_error_correction_lowers_the_grade(clean_sheet: Grey, inspect: Inspect) -> None:
    left, top, *_ = box(2)
    spotted = clean_sheet.copy()
    spotted[top + 90 : top + 134, left + 90 : left + 134] = 255
    report = inspect(spotted)
    assert report.is_clean
    (worst,) = report.grades.worst
    assert worst.quality is not None
    assert worst.quality.unused_correction < 0.62
    assert worst.quality.grade > Grade.A
    assert (worst.place.x_px, worst.place.y_px) == pytest.approx((left + SIDE_PX / 2, top + SIDE_PX / 2), abs=3)


def test_the_worst_are_listed_worst_first(texts: Texts, inspect: Inspect) -> None:
    page = sheet(texts())
    for place, part in ((1, 0.3), (5, 0.6), (9, 0.1)):
        left, top, right, bottom = box(place)
        label = page[top:bottom, left:right]
        page = page.copy()
        page[top:bottom, left:right] = (255 - (255 - label) * part).astype(np.uint8)
    report = inspect(page)
    assert [one.serial for one in report.grades.worst] == [texts()[place][-14:] for place in (9, 1, 5)]
    assert report.grades.counts == {Grade.A: 9, Grade.B: 1, Grade.C: 0, Grade.D: 1, Grade.F: 1}


def test_print_in_the_quiet_zone_is_told(clean_sheet: Grey, inspect: Inspect) -> None:
    left, top, right, _ = box(3)
    marked = clean_sheet.copy()
    marked[top + 2 : top + 8, left + 40 : right - 40] = 0
    report = inspect(marked)
    assert report.is_clean
    assert report.grades.quiet_zone_broken == 1
    (worst,) = report.grades.worst
    assert (worst.place.x_px, worst.place.y_px) == pytest.approx((left + SIDE_PX / 2, top + SIDE_PX / 2), abs=3)


@pytest.mark.parametrize(("dpi", "small"), [(300, 0), (307, 0), (312, 1), (None, 0)])
def test_small_modules_are_told_where_the_resolution_is_known(dpi: float | None, small: int, texts: Texts) -> None:
    page = sheet(texts(count=1))
    (symbol,) = symbols.find(page)
    quality = measure(page, symbol, dpi)
    assert quality.is_small == small
    assert quality.module_px == pytest.approx(MODULE_PX, abs=0.03)
    assert (quality.module_mm is None) is (dpi is None)


def test_lists_are_cut_and_counts_are_not(texts: Texts, inspect: Inspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "LISTED_MAX", 2)
    strange = texts(order_number=2)
    for count in (1, 2, 3):
        report = inspect(sheet([*texts()[1 : 2 * count : 2], *strange[:count]]), ranges=[IndexRange(0, 2 * count - 1)])
        assert len(report.listed[Finding.FOREIGN]) == min(count, 2)
        assert report.counts[Finding.FOREIGN] == count
        (outer,) = report.missing
        assert (outer.items, len(outer.ranges)) == (count, min(count, 2))


def test_a_report_never_holds_a_code_text(texts: Texts, inspect: Inspect) -> None:
    (forged,) = texts(count=1, key=OTHER_KEY, face=Profile.INNER)
    told = json.dumps(
        inspect(sheet([*texts(face=Profile.INNER), *texts(count=1, face=Profile.INNER), forged])).as_json()
    )
    for text in (*texts(face=Profile.INNER), forged):
        assert text[30:100] not in told
    assert forged[-14:] in told


@settings(max_examples=200, deadline=None)
@given(met=st.sets(st.integers(0, 60)), ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=5))
def test_missing_is_what_was_expected_less_what_was_met(
    met: set[int], ranges: list[tuple[int, int]], make_order: MakeOrder, scheme: SerialScheme, verifier: Verifier
) -> None:
    expected = [IndexRange(first, first + more) for first, more in ranges]
    tally = inspection._Tally(Expectation(make_order(100), scheme, expected), verifier)
    told = tally._missing(Profile.OUTER, dict.fromkeys(met))  # type: ignore[arg-type]
    wanted = {index for first, more in ranges for index in range(first, first + more + 1)} - met
    assert [index for one in told.ranges for index in range(one.first, one.last + 1)] == sorted(wanted)
    assert told.items == len(wanted)


def test_a_picture_shows_good_and_bad_in_their_colours(
    texts: Texts, inspect: Inspect, scheme: SerialScheme, make_order: MakeOrder, verifier: Verifier
) -> None:
    page = page_of(sheet([*texts()[:11], *texts(count=1, key=OTHER_KEY)]))
    drawn: list[Image.Image] = []
    inspection.inspect(
        [page],
        Expectation(make_order(QUANTITY), scheme, [IndexRange(0, 11)]),
        verifier,
        lambda page, found: drawn.append(pictures.draw(page, found)),
    )
    (picture,) = drawn
    for place, colour in ((0, pictures._GOOD), (11, pictures._BAD)):
        left, top, right, _ = box(place)
        row = [picture.getpixel(((left + right) // 2, y)) for y in range(top, top + 20)]
        assert colour in row


def saved(tmp_path: Path, page: Grey, name: str, **options: Any) -> Path:
    Image.fromarray(page).save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "options", "dpi"),
    [
        ("scan.png", {}, None),
        ("scan.png", {"dpi": (300, 300)}, 300),
        ("scan.png", {"dpi": (72, 72)}, None),
        ("scan.jpg", {"quality": 40, "dpi": (300, 300)}, 300),
        ("scan.tif", {"compression": "tiff_lzw", "dpi": (600, 600)}, 600),
        ("scan.pdf", {"resolution": 300}, 300),
    ],
)
def test_every_kind_of_scan_is_read(
    name: str, options: dict[str, Any], dpi: float | None, tmp_path: Path, clean_sheet: Grey, texts: Texts
) -> None:
    path = saved(tmp_path, clean_sheet, name, **options)
    assert count_pages([path]) == 1
    (page,) = pages([path])
    assert (page.name, page.number) == (name, 1)
    assert page.dpi == (pytest.approx(dpi, abs=0.1) if dpi else None)
    assert [symbol.text for symbol in symbols.find(page.grey)] == texts()


@pytest.mark.parametrize("name", ["scan.tif", "scan.pdf"])
def test_every_page_of_a_scan_is_read(name: str, tmp_path: Path, texts: Texts, inspect: Inspect) -> None:
    halves = [Image.fromarray(sheet(texts(start, 4))) for start in (0, 4, 8)]
    halves[0].save(tmp_path / name, save_all=True, append_images=halves[1:])
    assert count_pages([tmp_path / name]) == 3
    read = list(pages([tmp_path / name], DPI))
    assert [page.number for page in read] == [1, 2, 3]
    if name == "scan.tif":
        assert inspect(*(page.grey for page in read)).is_clean


def test_the_smaller_copy_behind_a_phones_photograph_is_no_page(
    tmp_path: Path, clean_sheet: Grey, inspect: Inspect
) -> None:
    photograph = Image.fromarray(clean_sheet).convert("RGB")
    photograph.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[photograph.reduce(2)])
    assert count_pages([tmp_path / "photo.jpg"]) == 1
    (page,) = pages([tmp_path / "photo.jpg"])
    assert inspect(page.grey).is_clean


@pytest.mark.parametrize("kind", ["GIF", "EPS", "BMP"])
def test_only_the_formats_of_scanners_are_opened(kind: str, tmp_path: Path, clean_sheet: Grey) -> None:
    Image.fromarray(clean_sheet).save(tmp_path / "scan.png", kind)
    with pytest.raises(ScanUnreadable):
        count_pages([tmp_path / "scan.png"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixel_is_read(mode: str, tmp_path: Path, texts: Texts) -> None:
    grey = sheet(texts(count=1))
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):  # dark on nothing
        picture = Image.new(mode, grey.shape[::-1], 0)
        picture.putalpha(Image.fromarray(255 - grey))
    else:
        picture = Image.fromarray(grey).convert(mode)
    picture.save(tmp_path / "scan.tif")
    (page,) = pages([tmp_path / "scan.tif"])
    (symbol,) = symbols.find(page.grey)
    assert symbol.text == texts(count=1)[0]
    assert measure(page.grey, symbol, None).contrast > 0.97


@pytest.mark.parametrize(
    "content",
    [b"", b"not a picture", b"%PDF-1.4\nnothing", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0\xff\xff", b"GIF89a"],
)
def test_what_is_no_scan_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "scan.x"
    path.write_bytes(content)
    for read in (lambda: list(pages([path])), lambda: count_pages([path])):
        with pytest.raises(ScanUnreadable, match=r"scan\.x") as refused:
            read()
        assert refused.value.hint


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanUnreadable, match="No such file"):
        list(pages([tmp_path / "scan.png"]))
    with pytest.raises(ScanUnreadable, match="directory"):
        list(pages([tmp_path]))


@pytest.mark.parametrize("name", ["scan.png", "scan.jpg", "scan.tif"])
def test_a_scan_cut_short_is_refused_with_its_page(name: str, tmp_path: Path, clean_sheet: Grey) -> None:
    whole = saved(tmp_path, clean_sheet, name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ScanUnreadable, match=name):
        list(pages([tmp_path / name]))


def test_a_bad_page_among_good_ones_is_an_error(tmp_path: Path, clean_sheet: Grey) -> None:
    good, bad = saved(tmp_path, clean_sheet, "good.png"), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:2000])
    with pytest.raises(ScanUnreadable, match=r"bad\.png"):
        list(pages([good, bad, good]))


def test_an_encrypted_pdf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.pdf"
    path.write_bytes(locked_pdf())
    with pytest.raises(ScanUnreadable, match="password"):
        list(pages([path]))


def locked_pdf() -> bytes:
    """A page that opens with a password that nobody knows: its check values are noise (ISO 32000-1, 7.6.3)."""
    noise = (bytes(range(1, 33)).hex(), bytes(range(65, 97)).hex())
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>",
        f"<</Filter/Standard/V 1/R 2/O<{noise[0]}>/U<{noise[1]}>/P -4>>",
    ]
    content, offsets = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{one}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    ident = "<00112233445566778899aabbccddeeff>"
    trailer = f"trailer\n<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[{ident}{ident}]>>\nstartxref\n{len(content)}\n%%EOF"
    return content + f"xref\n0 5\n0000000000 65535 f \n{table}{trailer}".encode()


@pytest.mark.parametrize(("columns", "fits"), [(199, True), (200, True), (201, False)])
@pytest.mark.parametrize("name", ["scan.png", "scan.tif", "scan.pdf"])
def test_a_page_has_a_largest_size(
    name: str, columns: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "PAGE_PIXELS_MAX", 200 * 100)
    path = saved(
        tmp_path, np.full((100, columns), 255, np.uint8), name, **({"resolution": DPI} if "pdf" in name else {})
    )
    if fits:
        (page,) = pages([path])
        assert page.grey.size <= 200 * 100
    else:
        with pytest.raises(ScanTooLarge, match=f"{name}, page 1"):
            list(pages([path]))


def test_a_decompression_bomb_is_refused_before_it_bursts(tmp_path: Path) -> None:
    for side in (9_600, 20_000):  # what Pillow warns of, and what it refuses
        path = tmp_path / "bomb.png"
        Image.new("1", (side, side)).save(path)
        with pytest.raises(ScanTooLarge, match=r"bomb\.png"):
            list(pages([path]))


@pytest.mark.parametrize(("limit", "fits"), [(2, False), (3, True), (4, True)])
def test_there_is_a_most_of_pages(limit: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "PAGES_MAX", limit)
    blank = Image.new("1", (9, 9))
    blank.save(tmp_path / "two.pdf", save_all=True, append_images=[blank])
    blank.save(tmp_path / "one.png")
    paths = [tmp_path / "two.pdf", tmp_path / "one.png"]
    if fits:
        assert count_pages(paths) == 3
    else:
        with pytest.raises(ScanTooLarge, match=f"more than {limit} pages"):
            count_pages(paths)


@pytest.mark.parametrize(("dpi", "fits"), [(149, False), (150, True), (1200, True), (1201, False)])
def test_resolutions_have_bounds(dpi: int, fits: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, np.full((9, 9), 255, np.uint8), "scan.png")
    if fits:
        assert [page.dpi for page in pages([path], dpi)] == [dpi]
    else:
        with pytest.raises(DpiOutOfRange):
            list(pages([path], dpi))


def test_an_empty_page_has_no_symbols(inspect: Inspect) -> None:
    for shape in ((1, 1), (1, 500), (40, 40), (600, 400)):
        report = inspect(np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8))
        assert report.pages == 2
        assert amiss(report) == {}
        assert report.grades.contrast_min is None

"""QR symbols: as small as the segments make them, and read back by a decoder that is not ours."""

import math
from typing import Any

import numpy as np
import pytest
import qrcode
from qrcode.constants import ERROR_CORRECT_M

from codes import qr
from codes.qr import Level
from offline_sdk import Malformed
from offline_sdk.code_text import segments
from tests.codes.conftest import BASE_URL, decoded, vector_id, vectors

VALID = vectors()["valid"]
TEXT = VALID[0]["text"]
LEVELS: tuple[Level, ...] = ("L", "M", "Q", "H")


def test_the_symbol_is_version_7_at_level_m_and_6_at_l() -> None:
    assert TEXT.startswith(BASE_URL + "/")
    # 17.5 mm and 16.2 mm wide at 0.33 mm a module: print houses have laid their labels out for these sizes.
    assert [qr.version(qr.symbol(TEXT, level)) for level in LEVELS] == [6, 7, 9, 10]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("vector", VALID, ids=vector_id)
def test_a_decoder_reads_the_text_back(vector: dict[str, Any], level: Level) -> None:
    (found,) = decoded(qr.image(qr.symbol(vector["text"], level), 3))
    assert found.text == vector["text"]
    assert found.bytes == vector["text"].encode("ascii")
    assert found.ec_level == level


def test_segments_save_four_versions_over_plain_bytes() -> None:
    plain = qrcode.QRCode(error_correction=ERROR_CORRECT_M, border=0)
    plain.add_data(TEXT.encode("ascii"), optimize=0)
    plain.make(fit=True)
    assert (plain.version, qr.version(qr.symbol(TEXT))) == (11, 7)


def test_upper_case_scheme_and_host_make_a_smaller_symbol() -> None:
    host = "https://item.some-longer-brand.cn"
    lower, upper = TEXT.replace(BASE_URL, host), TEXT.replace(BASE_URL, host.upper())
    assert [qr.version(qr.symbol(lower, level)) for level in LEVELS] == [6, 8, 9, 11]
    assert [qr.version(qr.symbol(upper, level)) for level in LEVELS] == [6, 7, 9, 10]
    (found,) = decoded(qr.image(qr.symbol(upper), 3))
    assert found.text == upper


def test_the_modules_are_a_square_of_booleans_without_quiet_zone() -> None:
    modules = qr.symbol(TEXT)
    assert (modules.dtype, modules.shape) == (np.bool_, (45, 45))
    finder = modules[:7, :7]
    assert finder[0].all()
    assert finder[:, 0].all()
    assert not finder[1, 1:6].any()


def test_a_symbol_is_the_same_every_time() -> None:
    assert np.array_equal(qr.symbol(TEXT), qr.symbol(TEXT))


def test_a_longer_host_gets_a_larger_symbol() -> None:
    text = TEXT.replace(BASE_URL, "https://" + ".".join(["a" * 63] * 2) + ".cn")
    modules = qr.symbol(text)
    assert qr.version(modules) > 7
    (found,) = decoded(qr.image(modules, 3))
    assert found.text == text


@pytest.mark.parametrize(
    "text", ["", "https://id.example.cn", TEXT + " ", TEXT[:-1], TEXT.capitalize(), TEXT + "?a=1"], ids=range(6)
)
def test_nothing_but_a_code_text_becomes_a_symbol(text: str) -> None:
    with pytest.raises(Malformed):
        qr.symbol(text)


@pytest.mark.parametrize("module_px", [1, 4])
@pytest.mark.parametrize("quiet_zone", [4, 0])
def test_a_picture_is_one_bit_a_pixel_with_its_quiet_zone(module_px: int, quiet_zone: int) -> None:
    modules = qr.symbol(TEXT)
    picture = qr.image(modules, module_px, quiet_zone)
    assert picture.mode == "1"
    assert picture.size == ((45 + 2 * quiet_zone) * module_px,) * 2
    dark = ~np.array(picture)
    inside = slice(quiet_zone * module_px, (quiet_zone + 45) * module_px)
    assert dark.sum() == modules.sum() * module_px**2, "the quiet zone is light"
    assert np.array_equal(dark[inside, inside][::module_px, ::module_px], modules)


def test_the_segments_put_every_digit_into_numeric_mode() -> None:
    parts = segments(TEXT)
    assert "".join(parts) == TEXT
    assert [len(part) for part in parts] == [len(BASE_URL) + 1, 161, 4, 14, 4, 14]
    assert all(part.isdigit() for part in parts[1::2])


def test_a_symbols_size_is_told_before_it_is_drawn() -> None:
    size = qr.measure(BASE_URL, "M", 0.33)
    assert (size.version, size.modules, size.warnings) == (7, 45, ())
    assert size.width_mm == pytest.approx(17.49)
    assert qr.measure(BASE_URL, "L", 0.4, 5).width_mm == pytest.approx((41 + 10) * 0.4)


@pytest.mark.parametrize("base_url", [BASE_URL, BASE_URL.upper(), "http://a", "https://" + "a" * 20 + ".cn:8000"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_size_told_is_the_size_drawn(base_url: str, level: Level) -> None:
    size = qr.measure(base_url, level, 0.4)
    modules = qr.symbol(TEXT.replace(BASE_URL, base_url), level)
    assert (size.version, size.modules) == (qr.version(modules), len(modules))


@pytest.mark.parametrize(
    ("base_url", "level", "module_mm", "quiet_zone", "codes"),
    [
        (BASE_URL, "M", 0.33, 4, []),
        (BASE_URL, "M", 0.329, 4, ["SmallModules"]),
        (BASE_URL, "M", 0.33, 3, ["NarrowQuietZone"]),
        (BASE_URL, "M", 0.33, 5, []),
        (BASE_URL.upper(), "Q", 0.33, 4, ["UpperCase"]),
        (BASE_URL, "L", 0.33, 4, ["LowCorrection"]),
        (BASE_URL.upper(), "L", 0.2, 0, ["SmallModules", "NarrowQuietZone", "UpperCase", "LowCorrection"]),
    ],
)
def test_what_may_read_badly_is_said(
    base_url: str, level: Level, module_mm: float, quiet_zone: int, codes: list[str]
) -> None:
    warnings = qr.measure(base_url, level, module_mm, quiet_zone).warnings
    # Callers branch on these codes: they never change.
    assert [warning.code for warning in warnings] == codes
    assert all(warning.message.endswith(".") for warning in warnings)


@pytest.mark.parametrize(("module_mm", "quiet_zone"), [(0.01, 4), (100.0, 4), (0.4, 0), (0.4, 100)])
def test_a_measure_at_its_limit_is_taken(module_mm: float, quiet_zone: int) -> None:
    assert qr.measure(BASE_URL, "M", module_mm, quiet_zone).width_mm == pytest.approx((45 + 2 * quiet_zone) * module_mm)


@pytest.mark.parametrize(
    ("module_mm", "quiet_zone"),
    [(0.0099, 4), (100.1, 4), (0.0, 4), (-0.4, 4), (math.nan, 4), (math.inf, 4), (0.4, -1), (0.4, 101)],
)
def test_a_measure_beyond_its_limit_is_refused(module_mm: float, quiet_zone: int) -> None:
    with pytest.raises(qr.MeasureOutOfRange):
        qr.measure(BASE_URL, "M", module_mm, quiet_zone)


def test_the_size_of_a_symbol_under_no_base_url_is_not_told() -> None:
    with pytest.raises(Malformed):
        qr.measure("https://Id.example.cn", "M", 0.4)

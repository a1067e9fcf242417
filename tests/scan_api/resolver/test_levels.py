"""Levels: what links hang on, and which of them a Digital Link reaches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codes.digital_link import CANONICAL_STEM, DigitalLinkInvalid, parse
from kit.errors import FanxingError
from scan_api.resolver.levels import KEYS, LevelInvalid, level_named, levels_of

GTIN = "09506000134352"
KEY = f"/01/{GTIN}"


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        (KEY, [""]),
        (f"{KEY}/10/L1", ["/10/L1", ""]),
        (f"{KEY}/22/V1", ["/22/V1", ""]),
        (f"{KEY}/22/V1/10/L1", ["/22/V1/10/L1", "/10/L1", "/22/V1", ""]),
        (f"{KEY}/21/S1", ["/21/S1", ""]),
        (f"{KEY}/22/V1/10/L1/21/S1", ["/21/S1", "/22/V1/10/L1", "/10/L1", "/22/V1", ""]),
        (f"{KEY}/235/T1", ["/235/T1", ""]),
    ],
)
def test_a_product_link_reaches_the_levels_of_rule_4(path: str, reached: list[str]) -> None:
    """GS1-Conformant Resolver Standard 1.2, 2.5.9: a serial number outranks lot and variant, and stands alone."""
    assert [level.path for level in levels_of(parse(CANONICAL_STEM + path))] == [KEY + rest for rest in reached]


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("/00/095060001343520109", ["/00/095060001343520109"]),
        ("/414/9506000134376/254/dock%2F3", ["/414/9506000134376/254/dock%2F3", "/414/9506000134376"]),
        ("/8010/9506000ABC/8011/7", ["/8010/9506000ABC/8011/7", "/8010/9506000ABC"]),
        (
            "/8006/095060001343520102/10/L/21/S",
            ["/8006/095060001343520102/21/S", "/8006/095060001343520102/10/L", "/8006/095060001343520102"],
        ),
    ],
)
def test_other_keys_have_their_levels_too(path: str, reached: list[str]) -> None:
    assert [level.path for level in levels_of(parse(CANONICAL_STEM + path))] == reached


def test_every_key_of_the_standard_is_there() -> None:
    """GS1 Digital Link: URI Syntax, 4.3: the primary keys."""
    keys = "00 01 253 255 401 402 414 415 417 8003 8004 8006 8010 8013 8017 8018"
    assert sorted(KEYS) == keys.split()


@pytest.mark.parametrize(
    ("identifier", "path"),
    [
        (KEY, KEY),
        (f"https://id.example.cn{KEY}/10/a%2fb", f"{KEY}/10/a%2Fb"),
        (f"https://id.example.cn/2{'0' * 160}{KEY}/21/1", f"{KEY}/21/1"),
        ("urn:epc:id:sgtin:9506000.013435.S1", f"{KEY}/21/S1"),
        ("urn:epc:class:lgtin:9506000.013435.L1", f"{KEY}/10/L1"),
        ("urn:epc:id:sscc:9506000.0134352010", "/00/095060001343520109"),
    ],
)
def test_a_level_is_named_by_a_digital_link_its_path_or_a_urn(identifier: str, path: str) -> None:
    assert level_named(identifier).path == path


@pytest.mark.parametrize(
    "identifier",
    [f"{KEY}/10/L1/21/S1", f"{KEY}/22/V1/21/S1", f"{KEY}?17=261231", f"{KEY}?a=b", f"{KEY}#a"],
)
def test_what_more_than_a_level_is_named_is_refused(identifier: str) -> None:
    with pytest.raises(LevelInvalid):
        level_named(identifier)


@pytest.mark.parametrize("identifier", ["", "/", "urn:x", "urn:epc:id:gid:1.2.3", "/01/1", "/17/261231", "/10/L1"])
def test_what_is_no_key_is_refused(identifier: str) -> None:
    with pytest.raises(DigitalLinkInvalid):
        level_named(identifier)


def test_the_company_prefix_follows_indicator_extension_and_filling() -> None:
    starts = {path: level_named(path).company_digits[:7] for path in (KEY, "/00/095060001343520109")}
    starts |= {path: level_named(path).company_digits[:7] for path in ("/414/9506000134376", "/8003/09506000134352X")}
    assert set(starts.values()) == {"9506000"}


@given(st.text(max_size=60) | st.from_regex(r"/(01|00|414|8003|254)/[0-9A-Za-z/.%?]{0,40}", fullmatch=True))
def test_any_text_names_a_level_or_is_refused(identifier: str) -> None:
    try:
        level = level_named(identifier)
    except FanxingError:
        return
    assert level_named(level.path) == level
    assert levels_of(parse(CANONICAL_STEM + level.path))[0] == level

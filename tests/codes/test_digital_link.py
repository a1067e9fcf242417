"""Digital Links: GS1's own vectors, every AI of the dictionary in good and bad values, and texts that are none."""

import json
import random
import string
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codes.digital_link import PARTS_MAX, URI_CHARACTERS_MAX, DigitalLink, DigitalLinkInvalid, Reason, parse
from codes.gs1 import code_lists
from codes.gs1.dictionary import ELEMENTS, SEQUENCES, Component, Element, Fault, FaultKind, read
from codes.gs1.linters import CSET32, CSET82, LINTERS

VECTORS = Path(__file__).parents[1] / "vectors" / "gs1" / "digital-link-parse.jsonl"
DICTIONARY = Path(__file__).parents[1] / "vectors" / "gs1" / "gs1-syntax-dictionary.txt"
GTIN = "09520123456788"
CODE_TEXT = "https://id.example.cn/1" + "00007" + "7" * 155 + "/01/06901234567892/21/00001123456789"
CASES_PER_AI = 8
CASES_PER_AI_SLOW = 300
# Path characters that a value may hold without an escape, of those that an AI may have at all.
UNESCAPED = set(CSET82) & set("!$&'()*+,-.:;=_~" + string.ascii_letters + string.digits)


def published() -> list[dict[str, Any]]:
    return [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").splitlines()]


def reason(uri: object) -> Reason:
    with pytest.raises(DigitalLinkInvalid) as refused:
        parse(uri)  # type: ignore[arg-type]
    assert refused.value.code == "DigitalLinkInvalid"
    assert refused.value.message
    return refused.value.reason


@pytest.mark.parametrize("vector", published(), ids=lambda vector: vector["source"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    if vector["valid"]:
        assert parse(vector["uri"]).element_string() == vector["ai"]
    else:
        reason(vector["uri"])


def test_the_packages_dictionary_is_the_published_one() -> None:
    assert read(DICTIONARY.read_text(encoding="utf-8")) == ELEMENTS
    assert len(ELEMENTS) == 541


# --- what a link says -------------------------------------------------------------------------------------------------


def test_a_link_is_key_qualifiers_attributes_and_the_rest() -> None:
    link = parse(
        f"https://EXAMPLE.com:8443/a/b/01/{GTIN}/22/2A/10/A%2FB/21/1?17=261231&linkType=gs1:pip&flag&11=260101#top"
    )
    assert link.stem == "https://EXAMPLE.com:8443/a/b"
    assert link.key == ("01", GTIN)
    assert link.qualifiers == (("22", "2A"), ("10", "A/B"), ("21", "1"))
    assert link.attributes == (("17", "261231"), ("11", "260101"))
    assert link.other_query == ("linkType=gs1:pip", "flag")
    assert link.fragment == "top"
    assert (link.value("21"), link.value("11"), link.value("99")) == ("1", "260101", None)


def test_a_code_text_is_a_link() -> None:
    link = parse(CODE_TEXT)
    assert link.elements == (("01", "06901234567892"), ("21", "00001123456789"))
    assert link.stem == CODE_TEXT.partition("/01/")[0]
    assert link.canonical() == "https://id.gs1.org/01/06901234567892/21/00001123456789"


# These names are stored and compared for years: none of them may ever change.
@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        (f"http://a/x/01/{GTIN}", f"https://id.gs1.org/01/{GTIN}"),
        (
            f"https://example.com/01/{GTIN}?3103=000195&3922=0299&17=201225",
            f"https://id.gs1.org/01/{GTIN}?17=201225&3103=000195&3922=0299",
        ),
        (f"https://a/01/{GTIN}/10/a%2fb%2Bc?x=1&99=%3f#f", f"https://id.gs1.org/01/{GTIN}/10/a%2Fb%2Bc?99=%3F"),
        (f"https://a/01/{GTIN}/21/!&'()*+,-.:;=_%22%25%3C%3E", None),
        ("HTTPS://A/414/9520123456788/254/32a%2Fb", "https://id.gs1.org/414/9520123456788/254/32a%2Fb"),
    ],
)
def test_the_canonical_form_is_pinned(uri: str, canonical: str | None) -> None:
    expected = canonical or (f"https://id.gs1.org/01/{GTIN}/21/%21%26%27%28%29%2A%2B%2C-.%3A%3B%3D_%22%25%3C%3E")
    assert parse(uri).canonical() == expected
    assert parse(expected).canonical() == expected


def test_a_stray_percent_sign_stands_for_itself() -> None:
    link = parse(f"https://a/01/{GTIN}/10/50%/21/%4?98=%zz")
    assert link.elements[1:] == (("10", "50%"), ("21", "%4"), ("98", "%zz"))
    assert parse(link.canonical()).elements == link.elements


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        (f"https://a/01/{GTIN}?10=X", Reason.BELONGS_IN_PATH),
        (f"https://a/01/{GTIN}/21/A/10/B", Reason.SEQUENCE),
        (f"https://a/01/{GTIN}/10/A/10/B", Reason.SEQUENCE),
        (f"https://a/01/{GTIN}/235/A/21/B", Reason.SEQUENCE),
        (f"https://a/01/{GTIN}?21=A", Reason.NOT_AN_ATTRIBUTE),
        (f"https://a/01/{GTIN}?17=261231&17=261231", Reason.REPEATED),
        (f"https://a/01/{GTIN}?17=261331", Reason.CONTENT),
        (f"https://a/01/{GTIN}?=X", Reason.UNKNOWN_AI),
        (f"https://a/01/{GTIN}?123456=X", Reason.UNKNOWN_AI),
        (f"https://a/01/{GTIN}/21/", Reason.EMPTY_VALUE),
        (f"https://a/01/{GTIN}/21/%C3%A9", Reason.CHARACTER),
        (f"https://a/01/{GTIN}/21/A%00", Reason.NUL),
        (f"https://a/01/{GTIN}/21/" + "A" * 21, Reason.LENGTH),
        (f"https://a/01/{GTIN[:-1]}9/21/A", Reason.CHECK),
        (f"https://a/01/{GTIN}/21/A/", Reason.NO_KEY),
        (f"https://a/gtin/{GTIN}", Reason.NO_KEY),
        (f"https://a/001/{GTIN}", Reason.NO_KEY),
        (f"https://user@a/01/{GTIN}", Reason.DOMAIN),
        (f"https://é/01/{GTIN}", Reason.ILLEGAL_CHARACTER),
        (f" https://a/01/{GTIN}", Reason.ILLEGAL_CHARACTER),
        (f"https://a/01/{GTIN}\n", Reason.ILLEGAL_CHARACTER),
        (f"//a/01/{GTIN}", Reason.SCHEME),
        ("https://a/8003/19520123456788", Reason.CONTENT),
        ("https://a/423/0041", Reason.NO_KEY),
        (f"https://a/01/{GTIN}?423=0041", Reason.LENGTH),
        ("https://id.gs1.org/AREjM0VWd4iZpw", Reason.COMPRESSED),
        (None, Reason.NOT_TEXT),
        (b"https://a", Reason.NOT_TEXT),
    ],
)
def test_a_refusal_says_why(uri: object, wanted: Reason) -> None:
    assert reason(uri) is wanted


def test_a_refusal_says_where() -> None:
    with pytest.raises(DigitalLinkInvalid, match=r"AI \(10\): character 2 "):
        parse(f"https://a/01/{GTIN}/10/A%23")
    with pytest.raises(DigitalLinkInvalid, match=r"character 13 may not"):
        parse("https://a/01<")


# --- characters and limits --------------------------------------------------------------------------------------------


ASCII = [chr(code) for code in range(128)]


def is_read(uri: str) -> bool:
    try:
        return parse(uri).key == ("01", GTIN)
    except DigitalLinkInvalid:
        return False


def test_every_ascii_character_in_every_place() -> None:
    letters = string.ascii_letters + string.digits
    in_uri = set(letters + "-._~:/?#[]@!$&'()*+,;=%")
    assert {c for c in ASCII if is_read(f"https://a{c}/01/{GTIN}")} == set(letters + "-.:[]/")
    assert {c for c in ASCII if is_read(f"https://a/{c}/01/{GTIN}")} == in_uri - set("?#")
    assert {c for c in ASCII if is_read(f"https://a/01/{GTIN}?x={c}")} == in_uri
    assert {c for c in ASCII if is_read(f"https://a/01/{GTIN}#{c}")} == in_uri
    for place in ("https://a/01/{}/10/A{}B", "https://a/253/1231231231232A?98=A{1}B"):
        ends = set("/%?#") if "{}" in place else set("%#&+")
        read_as_they_are = set(CSET82) & in_uri | (set() if "{}" in place else set("/?"))
        for character in set(ASCII) - ends:
            uri = place.format(GTIN, character)
            try:
                assert parse(uri).elements[1][1] == f"A{character}B"
                assert character in read_as_they_are
            except DigitalLinkInvalid:
                assert character not in read_as_they_are


def test_every_byte_escaped() -> None:
    for code in range(1, 256):
        uri = f"https://a/01/{GTIN}/10/%{code:02x}"
        if chr(code) in CSET82:
            assert parse(uri).value("10") == chr(code)
        else:
            assert reason(uri) is Reason.CHARACTER


@pytest.mark.parametrize("characters", [URI_CHARACTERS_MAX - 1, URI_CHARACTERS_MAX, URI_CHARACTERS_MAX + 1])
def test_the_longest_link(characters: int) -> None:
    uri = f"https://a/01/{GTIN}?x=".ljust(characters, "y")
    if characters <= URI_CHARACTERS_MAX:
        assert len(parse(uri).other_query[0]) == characters - len(uri.partition("?")[0]) - 1
    else:
        assert reason(uri) is Reason.TOO_LONG


@pytest.mark.parametrize("count", [PARTS_MAX - 1, PARTS_MAX, PARTS_MAX + 1])
def test_the_most_parts(count: int) -> None:
    names = [*(f"3{i}" for i in range(1, 9)), *map(str, range(91, 100))]
    attributes = [f"{ai}=1" for ai in names if ai in ELEMENTS and ai[0] == "9"]
    others = [f"x{i}=1" for i in range(count - 1 - len(attributes))]
    uri = f"https://a/01/{GTIN}?" + "&".join(attributes + others)
    if count <= PARTS_MAX:
        assert len(parse(uri).other_query) == len(others)
    else:
        assert reason(uri) is Reason.TOO_MANY_PARTS


def test_the_quick_way_for_items_reads_what_the_long_way_reads() -> None:
    rng = random.Random(6)
    for _ in range(500):
        serial = "".join(rng.choices(sorted(UNESCAPED), k=rng.randint(1, 20)))
        host = rng.choice(
            ["https://a", "HTTP://a.b:1", "https://[::1]", "https://a/123", "https://a/01", "http://a/00"]
        )
        uri = f"{host}/01/{GTIN}/21/{serial}"
        assert parse(uri) == parse(uri + "#")._replace(fragment=None)


# --- every AI ---------------------------------------------------------------------------------------------------------


def textbook_check_digit(digits: str) -> str:
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits)))
    return str((10 - total % 10) % 10)


def textbook_check_pair(text: str) -> str:
    primes = [n for n in range(2, 120) if all(n % d for d in range(2, n))]
    total = sum(CSET82.index(c) * primes[place] for place, c in enumerate(reversed(text))) % 1021
    return CSET32[total >> 5] + CSET32[total & 31]


def iban(rng: random.Random) -> str:
    country = rng.choice(sorted(code_lists.COUNTRIES_ALPHA2))
    account = "".join(rng.choices(string.digits + string.ascii_uppercase, k=rng.randint(7, 30)))
    number = "".join(str(int(c, 36)) for c in account + country + "00")
    return f"{country}{98 - int(number) % 97:02}{account}"


def day(rng: random.Random) -> date:
    return date(2000, 1, 1) + timedelta(days=rng.randrange(18_000))


MADE: dict[str, Callable[[random.Random], str]] = {
    "couponcode": lambda rng: "012345612345611110123" + rng.choice(["", "101101239", "3260102", "90000"]),
    "couponposoffer": lambda rng: rng.choice(["001234561234560123456", "161234567890121234569123456789012345"]),
    "hh": lambda rng: f"{rng.randrange(24):02}",
    "hhmi": lambda rng: f"{rng.randrange(24):02}{rng.randrange(60):02}",
    "hyphen": lambda rng: "-",
    "iban": iban,
    "importeridx": lambda rng: rng.choice(string.ascii_letters + string.digits + "-_"),
    "iso3166": lambda rng: rng.choice(sorted(code_lists.COUNTRIES)),
    "iso3166999": lambda rng: rng.choice([*sorted(code_lists.COUNTRIES), "999"]),
    "iso3166alpha2": lambda rng: rng.choice(sorted(code_lists.COUNTRIES_ALPHA2)),
    "iso4217": lambda rng: rng.choice(sorted(code_lists.CURRENCIES)),
    "iso5218": lambda rng: rng.choice("0129"),
    "latitude": lambda rng: f"{rng.choice([0, 1_800_000_000, rng.randint(0, 1_800_000_000)]):010}",
    "longitude": lambda rng: f"{rng.choice([0, 3_600_000_000, rng.randint(0, 3_600_000_000)]):010}",
    "mediatype": lambda rng: rng.choice(sorted(code_lists.MEDIA_TYPES)),
    "mi": lambda rng: f"{rng.randrange(60):02}",
    "packagetype": lambda rng: rng.choice(sorted(code_lists.PACKAGE_TYPES)),
    "pieceoftotal": lambda rng: "{:02}{:02}".format(*sorted((rng.randint(1, 99), rng.randint(1, 99)))),
    "posinseqslash": lambda rng: rng.choice(["1/1", "1/9", "9/9"]),
    "ss": lambda rng: f"{rng.randrange(60):02}",
    "winding": lambda rng: rng.choice("019"),
    "yesno": lambda rng: rng.choice("01"),
    "yymmd0": lambda rng: rng.choice([day(rng).strftime("%y%m%d"), day(rng).strftime("%y%m00")]),
    "yymmdd": lambda rng: day(rng).strftime("%y%m%d"),
    "yyyymmdd": lambda rng: day(rng).strftime("%Y%m%d"),
    "zero": lambda rng: "0",
}
ALPHABETS = {
    "N": string.digits,
    "X": CSET82,
    "Y": "#-/" + string.digits + string.ascii_uppercase,
    "Z": "-_" + string.digits + string.ascii_letters,
}


def made(component: Component, rng: random.Random) -> str:
    """A good value of a component."""
    for linter in component.linters:
        if linter in MADE:
            return MADE[linter](rng)
    alphabet = ALPHABETS[component.characters]
    length = rng.choice(
        [component.length_min, component.length_max, rng.randint(component.length_min, component.length_max)]
    )
    begin = ""
    if "gcppos1" in component.linters:
        length = max(length, 6)
        begin = "".join(rng.choices(string.digits, k=4))
    if {"nonzero", "nozeroprefix"} & set(component.linters):
        begin = rng.choice("123456789")
    if "csum" in component.linters:
        digits = "".join(rng.choices(string.digits, k=length - 1))
        return digits + textbook_check_digit(digits)
    text = begin + "".join(rng.choices(alphabet, k=max(length - len(begin), 0)))
    if "hasnondigit" in component.linters:
        text = text[:4] + "A" + text[5:]
    if "csumalpha" in component.linters:
        return text[:-2] + textbook_check_pair(text[:-2])
    return (
        text.replace("%", "%4e")[: component.length_max].removesuffix("%").removesuffix("%4")
        if "pcenc" in component.linters
        else text
    )


def made_value(element: Element, rng: random.Random) -> str:
    text = ""
    for component in element.components:
        if component.optional and rng.random() < 0.4:
            break
        text += made(component, rng)
    return text


def escaped(value: str, rng: random.Random, plain: set[str]) -> str:
    return "".join(c if c in plain and rng.random() < 0.9 else f"%{ord(c):{rng.choice(['02x', '02X'])}}" for c in value)


def link_with(ai: str, value: str, rng: random.Random) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A link that carries this AI, wherever it may stand, and the elements that it should be read as."""
    element = ELEMENTS[ai]
    in_path = [way for way in SEQUENCES if ai in way and (element.is_key is False or way[0] == ai)]
    if in_path and not (element.is_attribute and not element.is_key and rng.random() < 0.5):
        way = rng.choice(in_path)
        pairs = tuple((name, value if name == ai else made_value(ELEMENTS[name], rng)) for name in way)
        path = "".join(f"/{name}/{escaped(text, rng, UNESCAPED)}" for name, text in pairs)
        return f"https://a.example{rng.choice(['', '/01', '/x/00/y'])}{path}", pairs
    key = ("253", "1231231231232")
    query = f"{ai}={escaped(value, rng, UNESCAPED - set('&+'))}"
    before, after = rng.choice(["", "&", "a=b&&", "flag&"]), rng.choice(["", "&", "&a=b", "&flag&&"])
    return f"https://a.example/253/{key[1]}?{before}{query}{after}", (key, (ai, value))


def check_ai(ai: str, cases: int) -> None:
    rng = random.Random(int(ai))
    element = ELEMENTS[ai]
    for _ in range(cases):
        value = made_value(element, rng)
        assert element.fault(value) is None, value
        if not (element.is_attribute or any(ai in way for way in SEQUENCES)):
            continue  # such as 8200: of element strings only
        uri, elements = link_with(ai, value, rng)
        link = parse(uri)
        assert link.elements == elements
        again = parse(link.canonical())
        assert again.elements == elements
        assert again.canonical() == link.canonical()
        assert link.element_string().startswith("^" + elements[0][0])
        assert check_bad_values(element, value, rng) == []


def check_bad_values(element: Element, value: str, rng: random.Random) -> list[str]:
    """Those of a value's mutants that were not refused for what is wrong with them."""
    accepted: list[str] = []
    for mutant, kind in (
        (value + "1" * (element.length_max + 1 - len(value)), FaultKind.LENGTH),
        (value[: element.length_min - 1], FaultKind.LENGTH),
        (value[:-1] + rng.choice(" #$@[\\]^`{|}~\x7fé"), FaultKind.CHARACTER),
        ("", FaultKind.LENGTH),
    ):
        if mutant[-1:] == "#" and element.components[-1].characters == "Y":
            continue
        fault = element.fault(mutant)
        if fault is None or fault.kind is not kind:
            accepted.append(mutant)
    at = 0
    for component in element.components:
        if "csum" in component.linters:
            place = at + rng.randrange(component.length_max)
            mutant = value[:place] + str((int(value[place]) + rng.randint(1, 9)) % 10) + value[place + 1 :]
            if (fault := element.fault(mutant)) is None or fault.kind is not FaultKind.CHECK:
                accepted.append(mutant)
        at += component.length_max
    return accepted


def test_good_and_bad_values_of_every_ai() -> None:
    for ai in ELEMENTS:
        check_ai(ai, CASES_PER_AI)


@pytest.mark.slow
def test_many_values_of_every_ai() -> None:
    for ai in ELEMENTS:
        check_ai(ai, CASES_PER_AI_SLOW)


def test_every_ai_that_is_no_attribute_is_refused_in_the_query() -> None:
    rng = random.Random(6)
    for ai, element in ELEMENTS.items():
        if not element.is_attribute:
            wanted = Reason.NOT_AN_ATTRIBUTE
            assert reason(f"https://a/253/1231231231232?{ai}={escaped(made_value(element, rng), rng, set())}") is wanted


def test_every_sequence_and_no_other() -> None:
    rng = random.Random(6)
    path_ais = sorted({ai for way in SEQUENCES for ai in way})
    for key in sorted({way[0] for way in SEQUENCES}):
        for _ in range(60):
            way = (key, *rng.sample([ai for ai in path_ais if not ELEMENTS[ai].is_key], rng.randint(0, 3)))
            uri = "https://a" + "".join(f"/{ai}/{escaped(made_value(ELEMENTS[ai], rng), rng, UNESCAPED)}" for ai in way)
            if way in SEQUENCES:
                assert tuple(ai for ai, _ in parse(uri).elements) == way
            else:
                assert reason(uri) is Reason.SEQUENCE


# --- linters ----------------------------------------------------------------------------------------------------------

# Values of AIs: good ones, then bad ones. GMN, coupons and IBANs are the standards' own examples.
COUPON = "012345612345611110123"  # company prefix, offer, save value, purchase requirement, its code and family
CONTENTS: dict[str, tuple[list[str], list[str]]] = {
    "11": (["240229", "000229", "261200"], ["230229", "261301", "260001", "260230", "260431", "260732"]),
    "4326": (["240229"], ["260100", "261301"]),
    "7250": (["20000229", "20240229"], ["19000229", "21000229", "20260100", "20261301"]),
    "7251": (["200002292359"], ["200002292400", "200002290060"]),
    "8008": (["26010100", "2601012359", "260101235959"], ["26010124", "2601010060", "260101000060", "260101000"]),
    "4324": (["2601002359"], ["2601010060", "2601012400"]),
    "4309": (["18000000003600000000"], ["18000000013600000000", "18000000003600000001"]),
    "4330": (["000000", "000000-"], ["000000+"]),
    "4321": (["0", "1"], ["2"]),
    "4307": (["CN"], ["XX", "cn"]),
    "4300": (["A%20B", "A"], ["A%2", "A%", "%2G", "A%%20"]),
    "421": (["1561"], ["9991"]),
    "7030": (["9991"], ["9981"]),
    "3910": (["1561", "9241"], ["0001", "1911"]),
    "7040": (["1AB_"], ["1AB%", "1AB="]),
    "7041": (["8", "BME"], ["QQQ", "1"]),
    "7241": (["01", "10", "80", "99"], ["00", "11", "79"]),
    "7252": (["0", "9"], ["3"]),
    "7258": (["1/1", "2/3"], ["0/1", "3/2", "1-2", "//1", "1/0"]),
    "8001": (["00010000100100", "00010000100190"], ["00000000100100", "00010000000100", "00010000100020"]),
    "8003": (["09520123456788", "09520123456788A"], ["19520123456788", "09520123456789A"]),
    "8006": (["095201234567880102"], ["095201234567880002", "095201234567880100", "095201234567880302"]),
    "8007": (
        ["FR7630006000011234567890189", "BE71096123456769", "MT90MALT011000012345MTLCAST001SABC"],
        ["BE71096123456760", "XX71096123456769", "BE7109612", "be71096123456769"],
    ),
    "8010": (["123456A#-/"], ["123A", "12a4567"]),
    "8011": (["1", "10"], ["0", "01"]),
    "8013": (["1987654Ad4X4bL5ttr2310c2K"], ["1987654Ad4X4bL5ttr2310cXK", "1987654Ad4X4bL5ttr2310c2X", "2"]),
    "8014": (["1987654Ad4X4bL5ttr2310c2K"], ["19876542K"]),
    "8030": (["A-_12=", "AB", "A=="], ["A=", "A===", "=AB", "ABCD=", "A+"]),
    "401": (["1234A", "12345"], ["123", "123A4"]),
    "8110": (
        [
            COUPON,
            COUPON + "101101239",
            COUPON + "101101230123456" + "2110123" + "9",
            COUPON + "3260601" + "4260102" + "50123456" + "611234567" + "90000",
            COUPON + "3260102" + "4260102",
        ],
        [
            COUPON[:-1],
            "7" + COUPON[1:],
            COUPON[:-4] + "5123",
            COUPON + "141101239",
            COUPON + "1011",
            COUPON + "3260101" + "4260102",
            COUPON + "3260001",
            COUPON + "601234567",
            COUPON + "93000",
            COUPON + "90002",
            COUPON + "9000",
            COUPON + "900000",
            COUPON + "7",
            COUPON[:-1] + "A",
        ],
    ),
    "8112": (
        ["001234561234560123456", "161234567890121234569123456789012345"],
        ["201234561234560123456", "00123456123456012345", "0012345612345601234567", "0", "07"],
    ),
}


@pytest.mark.parametrize("ai", CONTENTS)
def test_contents(ai: str) -> None:
    good, bad = CONTENTS[ai]
    assert [ELEMENTS[ai].fault(value) for value in good] == [None] * len(good)
    assert [value for value in bad if ELEMENTS[ai].fault(value) is None] == []


def test_every_linter_of_the_dictionary_has_examples() -> None:
    named = {name for element in ELEMENTS.values() for component in element.components for name in component.linters}
    assert named == set(LINTERS)
    tested = {name for ai in CONTENTS for component in ELEMENTS[ai].components for name in component.linters}
    assert named - tested == set()


@pytest.mark.parametrize(
    "entry",
    ["9999 X..20,nosuchlinter # A", "9999 Q..20 # A", "9999 X0 # A", "99 # A" * 30, "A9 X2 # A"],
    ids=["linter", "character-set", "no-length", "too-long", "letters"],
)
def test_a_dictionary_that_we_cannot_read_is_refused(entry: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        read(entry)


def test_a_fault_names_the_place() -> None:
    assert ELEMENTS["01"].fault("0952012345678A") == Fault(FaultKind.CHARACTER, "character 14 is not one it may have")
    assert ELEMENTS["7007"].fault("26010126010") == Fault(FaultKind.LENGTH, "one of its optional parts is incomplete")


# --- company that AIs keep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (f"https://a/01/{GTIN}/21/A?3103=000195&3922=0299", ()),
        (f"https://a/01/{GTIN}?3922=0299", ("AI (3922) needs 30 or 31nn or 32nn or 35nn or 36nn beside it",)),
        (f"https://a/01/{GTIN}?8030=AB", (
            "AI (8030) needs 00 or 01+21 or 253 or 255 or 8003 or 8004 or 8006+21 or 8010+8011 or 8017 or 8018"
            " beside it",
        )),
        (f"https://a/01/{GTIN}/21/A?8030=AB", ()),
        ("https://a/415/9520123456788", ("AI (415) needs 8020 beside it",)),
        (f"https://a/01/{GTIN}?3100=000001&3101=000001", (
            "AI (3100) may not stand beside 310n", "AI (3101) may not stand beside 310n",
        )),
    ],
)  # fmt: skip
def test_the_company_of_ais(uri: str, said: tuple[str, ...]) -> None:
    assert parse(uri).missing_and_excluded() == said


# --- fuzzing ----------------------------------------------------------------------------------------------------------

LINKS = (
    CODE_TEXT,
    f"https://example.com/x/01/{GTIN}/22/2A/10/A%2FB/21/1?17=261231&a=b#top",
    "https://id.gs1.org/00/952012345678912345?02=09520123456788&37=25&10=ABC123",
    "https://id.gs1.org/414/9520123456788/254/32a%2Fb",
    "https://a/8003/09520123456788X?8008=2601012359&4300=A%2520B",
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(LINKS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 3)))
        text = text[:at] + draw(st.text(alphabet="/%?#&=+;:@[]0123456789Aaé\0^", max_size=4)) + text[end:]
    return text


@settings(max_examples=150, deadline=None)
@given(st.one_of(mutated(), st.text(max_size=80)))
@example("https://a/01/%")
@example("https://a/?")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        link = parse(text)
    except DigitalLinkInvalid:
        return
    canonical = parse(link.canonical())
    assert canonical.canonical() == link.canonical()
    assert sorted(canonical.elements) == sorted(link.elements)
    assert isinstance(link, DigitalLink)
    assert all(ELEMENTS[ai].fault(value) is None for ai, value in link.elements)
    assert all(isinstance(said, str) for said in link.missing_and_excluded())

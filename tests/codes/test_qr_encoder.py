"""The encoder: the very symbols of `qrcode`, each under the mask that the standard's rules choose."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha512
from pathlib import Path

import numpy as np
import pytest
import qrcode
from hypothesis import given, settings
from hypothesis import strategies as st
from qrcode.util import QRData, _lost_point_level4, lost_point

from codes import qr, qr_layout, qr_map
from codes.qr import Level, Modules, OtherBaseUrl, SymbolEncoder
from codes.qr_layout import SymbolTooLarge
from offline_sdk import Malformed, encode_text, gtin, parse
from offline_sdk.code_text import BASE_URL_CHARS_MAX, PATH_CHARS, segments
from tests.codes.conftest import BASE_URL, GTIN, decoded, vectors

LEVELS: tuple[Level, ...] = ("L", "M", "Q", "H")
CORRECTIONS = {"L": 1, "M": 0, "Q": 3, "H": 2}
ROOT = Path(__file__).parents[2]
HIGHEST = f"{2**512 - 1:0155d}"

# Seeds of signatures whose symbols have more than one mask of the least penalty, found by trying.
TIES: list[tuple[Level, int]] = [("L", 86), ("M", 115), ("M", 819), ("Q", 310), ("H", 491)]

levels = st.sampled_from(LEVELS)
# Hypothesis is fond of zeros, and qrcode fails on blocks of them.
signatures = st.binary(max_size=8).map(lambda seed: sha512(seed).digest()) | st.just(b"\xff" * 64)
gtins = st.integers(1, 10**13 - 1).map(lambda n: f"{n:013d}" + gtin.check_digit(f"{n:013d}"))
serials = st.integers(1, 10**14 - 1).map("{:014d}".format)


def host(chars: int) -> str:
    """A host of so many characters, 1..253."""
    return (("abcd-0123" * 4 + "abc.") * 7)[: chars - 1] + "z"


lower_bases = st.builds(
    lambda scheme, chars, port: f"{scheme}://{host(chars)}{port}",
    st.sampled_from(["http", "https"]),
    st.integers(1, 29),  # at level H, 43 characters are the most
    st.sampled_from(["", ":8000"]),
)
bases = lower_bases | lower_bases.map(str.upper)


@pytest.fixture(scope="module")
def encoder() -> SymbolEncoder:
    return SymbolEncoder(BASE_URL)


def symbols(text: str, version: int, level: Level) -> list[Modules]:
    """What `qrcode` draws of the text's segments under each of the eight masks."""
    code = qrcode.QRCode(version, CORRECTIONS[level], border=0)
    for part, mode in zip(segments(text), (2 if text[:4].isupper() else 4, 1, 2, 1, 2, 1), strict=True):
        code.add_data(QRData(part, mode=mode), optimize=0)
    drawn = []
    for mask in range(8):
        code.mask_pattern = mask
        code.make(fit=False)
        drawn.append(np.array(code.modules, np.bool_))
    return drawn


def penalties(drawn: Sequence[Modules]) -> list[int]:
    return [lost_point(modules.tolist()) for modules in drawn]


def code_text(base_url: str, digits: str = "0" + "7" * 154, item_gtin: str = GTIN, serial: str = "0" * 13 + "1") -> str:
    return f"{base_url}/100001{digits}/01/{item_gtin}/21/{serial}"


RIGHT = code_text(BASE_URL)


def assert_drawn_as_qrcode_does(base_url: str, text: str, level: Level) -> None:
    encoder = SymbolEncoder(base_url, level)
    (modules,) = encoder.encode([text])
    whole = qrcode.QRCode(error_correction=CORRECTIONS[level], mask_pattern=0)
    for part, mode in zip(segments(text), (2 if base_url.isupper() else 4, 1, 2, 1, 2, 1), strict=True):
        whole.add_data(QRData(part, mode=mode), optimize=0)
    assert whole.best_fit() == encoder.version
    theirs = symbols(text, encoder.version, level)
    points = penalties(theirs)
    assert np.array_equal(modules, theirs[points.index(min(points))]), points
    (found,) = decoded(qr.image(modules, 3))
    assert (found.text, found.ec_level) == (text, level)


@settings(max_examples=25, deadline=None)
@given(bases, levels, signatures, st.sampled_from([1, 2]), st.integers(0, 99_999), gtins, serials)
def test_a_symbol_is_the_one_of_qrcode_under_the_least_penalty_mask(
    base_url: str, level: Level, signature: bytes, profile: int, kid: int, item_gtin: str, serial: str
) -> None:
    assert_drawn_as_qrcode_does(base_url, encode_text(base_url, profile, kid, signature, item_gtin, serial), level)


def base_urls_of_every_version(level: Level, upper: bool) -> dict[int, list[str]]:
    """The shortest and the longest host that get each version at a level."""
    fitting: dict[int, list[str]] = {}
    for chars in range(1, 254):
        base_url = f"https://{host(chars)}"
        base_url = base_url.upper() if upper else base_url
        try:
            fitting.setdefault(qr.measure(base_url, level, 0.4).version, []).append(base_url)
        except SymbolTooLarge:
            break
    return {version: [urls[0], urls[-1]] for version, urls in fitting.items()}


def test_the_published_table_of_sizes_is_right() -> None:
    page = (ROOT / "docs" / "code-text.md").read_text(encoding="utf-8")
    table = page.partition("| version | modules | L | M | Q | H |\n|---|---|---|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [row[:2] for row in rows] == [[str(v), str(qr_map.symbol_size(v))] for v in range(5, 12)]
    told = {int(version): cells for version, _, *cells in rows}
    for level in LEVELS:
        lower, upper = base_urls_of_every_version(level, upper=False), base_urls_of_every_version(level, upper=True)
        assert lower.keys() <= told.keys()
        for version, cells in told.items():
            told_here = cells[LEVELS.index(level)]
            assert bool(told_here) == (version in lower), (version, level)
            if told_here:
                most = [str(len(urls[version][-1]) + 1) for urls in (lower, upper)]
                assert told_here in (" / ".join(most), f"{most[0]} / any")
                assert told_here.endswith("any") == (len(upper[version][-1]) == len("https://") + 253)


@pytest.mark.parametrize("level", LEVELS)
def test_every_version_up_to_11_is_drawn_as_qrcode_does_at_its_shortest_and_longest_host(level: Level) -> None:
    fitting = base_urls_of_every_version(level, upper=False)
    assert set(range(10, 12)) <= set(fitting)
    for version, urls in fitting.items():
        for base_url in urls:
            assert SymbolEncoder(base_url, level).version == version
            assert_drawn_as_qrcode_does(base_url, code_text(base_url, HIGHEST), level)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_upper_case_version_is_drawn_as_qrcode_does(level: Level) -> None:
    for urls in base_urls_of_every_version(level, upper=True).values():
        for base_url in urls:
            assert_drawn_as_qrcode_does(base_url, code_text(base_url, HIGHEST), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("base_url", [BASE_URL, BASE_URL.upper()])
def test_blocks_of_zeros_are_drawn_though_qrcode_refuses_them(base_url: str, level: Level) -> None:
    encoder = SymbolEncoder(base_url, level)
    zero = code_text(base_url, "0" * 155)
    # 1 xor 2 xor 3 is 0: what qrcode draws of these three adds up to what it should draw of zeros.
    others = [symbols(code_text(base_url, f"00{digit}" * 51 + "00"), encoder.version, level) for digit in (1, 2, 3)]
    should = [first ^ second ^ third for first, second, third in zip(*others, strict=True)]
    points = penalties(should)
    assert np.array_equal(encoder.encode([zero])[0], should[points.index(min(points))])
    (found,) = decoded(qr.image(qr.symbol(zero, level), 3))
    assert found.text == zero


@pytest.mark.parametrize(("level", "number"), TIES)
def test_of_masks_with_the_same_least_penalty_the_lowest_is_taken(level: Level, number: int) -> None:
    encoder = SymbolEncoder(BASE_URL, level)
    signature = sha512(number.to_bytes(4, "big")).digest()
    text = encode_text(BASE_URL, 1, 1, signature, GTIN, "0" * 13 + "1")
    theirs = symbols(text, encoder.version, level)
    points = penalties(theirs)
    assert points.count(min(points)) > 1
    assert np.array_equal(encoder.encode([text])[0], theirs[points.index(min(points))])


@pytest.mark.parametrize("version", range(1, 12))
def test_rule_4_counts_every_number_of_dark_modules_as_qrcode_does(version: int) -> None:
    size = qr_map.symbol_size(version)
    ours = qr_layout._dark_points(size).tolist()
    assert len(ours) == size * size + 1
    # Of the modules it sees nothing but their sum.
    assert ours == [_lost_point_level4([[dark]], size) for dark in range(size * size + 1)]


def test_rows_are_words_with_the_left_column_at_bit_63() -> None:
    encoder = SymbolEncoder(BASE_URL)
    texts = [vector["text"] for vector in vectors()["valid"] if vector["text"].startswith(BASE_URL + "/")]
    rows, modules = encoder.encode_rows(texts), encoder.encode(texts)
    assert (rows.dtype, rows.shape) == (np.uint64, (len(texts), 45))
    assert (modules.dtype, modules.shape) == (np.bool_, (len(texts), 45, 45))
    assert not (rows & np.uint64(2**19 - 1)).any(), "the bits past the right column are 0"
    for column in range(45):
        assert np.array_equal(rows >> np.uint64(63 - column) & np.uint64(1), modules[..., column])


def test_an_encoder_travels_to_another_process(encoder: SymbolEncoder) -> None:
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).encode([RIGHT]), encoder.encode([RIGHT]))  # noqa: S301


def test_no_texts_are_no_symbols() -> None:
    assert SymbolEncoder(BASE_URL).encode([]).shape == (0, 45, 45)


def test_many_texts_at_once_and_in_threads_are_drawn_as_one_by_one() -> None:
    encoder = SymbolEncoder(BASE_URL, "Q")
    texts = [code_text(BASE_URL, f"{7**number:0155d}", serial=f"{number:014d}") for number in range(150)]
    alone = [encoder.encode([text])[0] for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, [texts] * 8))
    for modules in together:
        assert np.array_equal(modules, alone)


@pytest.mark.parametrize(
    "text",
    [
        "",
        RIGHT[:-1],
        RIGHT + "0",
        RIGHT.replace("/100001", "/000001"),
        RIGHT.replace("/100001", "/300001"),
        RIGHT.replace("/01/", "/02/"),
        RIGHT.replace("/21/", "/21:"),
        RIGHT.replace(GTIN, GTIN[:-1] + "3"),
        RIGHT.replace("777", "77/", 1),
        RIGHT.replace("777", "77:", 1),
        RIGHT.replace("777", "7７7", 1),
        RIGHT.replace("id.example", "id.Example"),
        code_text(BASE_URL, f"{2**512:0155d}"),
        code_text(BASE_URL, "9" * 155),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("at", [0, 2])
def test_among_right_texts_one_that_is_no_code_text_is_refused(encoder: SymbolEncoder, text: str, at: int) -> None:
    texts = [RIGHT, RIGHT, RIGHT]
    texts[at] = text
    with pytest.raises(Malformed):
        encoder.encode(texts)


def test_texts_whose_lengths_only_add_up_are_refused() -> None:
    with pytest.raises(Malformed):
        SymbolEncoder(BASE_URL).encode([RIGHT + "h", RIGHT[1:]])


@given(st.integers(0, len(RIGHT) - 1), st.characters(max_codepoint=0x7F))
@settings(deadline=None)
def test_one_character_changed_is_refused_exactly_when_it_is_no_longer_a_code_text_of_the_order(
    encoder: SymbolEncoder, at: int, character: str
) -> None:
    changed = RIGHT[:at] + character + RIGHT[at + 1 :]
    try:
        parse(changed)
        refused = changed[:-PATH_CHARS] != BASE_URL
    except Malformed:
        refused = True
    if refused:
        with pytest.raises((Malformed, OtherBaseUrl)):
            encoder.encode([changed])
    else:
        encoder.encode([changed])


@pytest.mark.parametrize("digits", [HIGHEST, f"{2**512 - 2:0155d}", "0" * 155])
def test_signatures_up_to_the_largest_number_are_drawn(digits: str) -> None:
    (found,) = decoded(qr.image(SymbolEncoder(BASE_URL).encode([code_text(BASE_URL, digits)])[0], 3))
    assert found.text == code_text(BASE_URL, digits)


@pytest.mark.parametrize("other", ["https://id.example.com", "https://ix.example.cn", BASE_URL.upper()])
def test_a_text_of_another_order_is_refused_without_being_shown(other: str) -> None:
    with pytest.raises(OtherBaseUrl) as caught:
        SymbolEncoder(BASE_URL).encode([RIGHT, code_text(other)])
    assert "7777" not in repr(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("base_url", ["", BASE_URL + "/", "https://ID.example.cn"])
def test_an_encoder_wants_a_base_url(base_url: str) -> None:
    with pytest.raises(Malformed):
        SymbolEncoder(base_url)


@pytest.mark.parametrize(
    ("level", "upper"), [(level, upper) for level in LEVELS for upper in (False, True) if (level, upper) != ("L", True)]
)
def test_a_host_one_character_beyond_version_11_is_refused(level: Level, upper: bool) -> None:
    longest = base_urls_of_every_version(level, upper)[11][-1]
    assert SymbolEncoder(longest, level).version == 11
    beyond = longest + "0"
    for call in (lambda: SymbolEncoder(beyond, level), lambda: qr.symbol(code_text(beyond), level)):
        with pytest.raises(SymbolTooLarge, match="above version 11") as caught:
            call()
        assert "shorter host" in caught.value.hint


def test_every_upper_case_base_url_fits_at_level_l() -> None:
    longest = f"HTTPS://{host(253).upper()}:65535"
    assert len(longest) == BASE_URL_CHARS_MAX
    assert_drawn_as_qrcode_does(longest, code_text(longest), "L")


def test_numba_is_not_imported_before_something_is_drawn() -> None:
    program = (
        "import sys; from codes import qr; qr.measure('https://id.example.cn', 'M', 0.4); "
        f"assert 'numba' not in sys.modules; qr.symbol({RIGHT!r}); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.slow
def test_symbols_are_drawn_where_no_folder_can_be_written(tmp_path: Path) -> None:
    for package in ("codes", "kit", "offline_sdk"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    # Files where folders should be: nobody can make these, not even root.
    for blocked in ("codes/__pycache__", "home"):
        (tmp_path / blocked).touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)}
    program = f"from codes import qr; print(qr.__file__, qr.symbol({RIGHT!r}).sum())"
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment, capture_output=True
    )
    assert ran.stdout.decode().split() == [str(tmp_path / "codes/qr.py"), str(qr.symbol(RIGHT).sum())]
    assert (tmp_path / "codes/__pycache__").is_file()

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk import (
    CodeText,
    Malformed,
    Profile,
    check_base_url,
    code_text,
    encode_message,
    encode_text,
    gtin,
    parse,
    segments,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "code-text-v1.json").read_text("utf-8"))
VALID = pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["note"])
INVALID = pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["note"])
TEXT: str = VECTORS["valid"][0]["text"]
BASE = "https://id.example.cn"
GTIN = "06901234567892"
SERIAL = "00001975404383"
PATH_CHARS = 198

gtins = st.integers(0, 10**13 - 1).map(lambda n: f"{n:013d}" + gtin.check_digit(f"{n:013d}"))
labels = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
bases = st.builds(
    lambda scheme, hosts, port: f"{scheme}://{'.'.join(hosts)}{'' if port is None else f':{port}'}",
    st.sampled_from(["http", "https"]),
    st.lists(labels, min_size=1, max_size=4),
    st.none() | st.integers(1, 65_535),
)
codes = st.builds(
    CodeText,
    st.sampled_from([1, 2]),
    st.integers(0, 99_999),
    gtins,
    st.integers(0, 10**14 - 1).map("{:014d}".format),
    st.binary(min_size=64, max_size=64),
)


@VALID
def test_valid_vector_is_read(case: dict[str, Any]) -> None:
    code = parse(case["text"])
    assert (code.profile, code.kid, code.gtin, code.serial) == (
        case["profile"],
        case["kid"],
        case["gtin"],
        case["serial"],
    )
    assert code.signature.hex() == case["signature_hex"]
    assert f"{code.order:05d}" == case["order"]
    assert f"{code.order:05d}{code.item_number:09d}" == case["serial"]


@VALID
def test_valid_vector_is_written(case: dict[str, Any]) -> None:
    signature = bytes.fromhex(case["signature_hex"])
    code = CodeText(case["profile"], case["kid"], case["gtin"], case["serial"], signature)
    assert code.text(case["base"]) == case["text"]
    # The signed bytes may never change: every code ever printed is signed over them.
    assert code.message().hex() == case["message_hex"]


@INVALID
def test_invalid_vector_is_malformed_or_left_to_the_verifier(case: dict[str, Any]) -> None:
    if case["error"] == "Malformed":
        with pytest.raises(Malformed):
            parse(case["text"])
    else:
        parse(case["text"])


def test_message_is_these_bytes() -> None:
    # Never change: prefix, u8 profile, u32 key number, u64 GTIN, u8 length, serial. Printed codes stay signed.
    assert encode_message(2, 0x01020, "00000000000000", "12345678901234").hex() == (
        "66616e78696e672f636f64652f763100"
        + "02"
        + "00001020"
        + "0000000000000000"
        + "0e"
        + "3132333435363738393031323334"
    )
    assert code_text.MESSAGE_BYTES == 44


@given(codes, bases)
def test_what_is_written_is_read_back(code: CodeText, base: str) -> None:
    text = code.text(base)
    assert parse(text) == code
    assert "".join(segments(text)) == text


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_noise_is_malformed(noise: object) -> None:
    with pytest.raises(Malformed):
        parse(noise)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [None, 7, 1.5, b"", TEXT.encode(), bytearray(TEXT.encode()), [TEXT], {TEXT: 1}, object()]
)
def test_anything_but_a_str_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "extra", ["\r", "\n", "\t", " ", "\x00", "\u2028", "\u00a0", "/", "?", "#", "0", "\ud800", "\u0660"]
)
@pytest.mark.parametrize("where", ["before", "after", "before the signature", "before the serial"])
def test_one_more_character_anywhere_is_malformed(extra: str, where: str) -> None:
    at = {"before": 0, "after": len(TEXT), "before the signature": len(BASE) + 1, "before the serial": len(TEXT) - 14}[
        where
    ]
    with pytest.raises(Malformed):
        parse(TEXT[:at] + extra + TEXT[at:])


def test_mixed_case_is_malformed() -> None:
    for text in (
        TEXT.replace("https", "HTTPS"),
        TEXT.replace("example", "Example"),
        TEXT.replace(BASE[8:], "ID.EXAMPLE.CN"),
    ):
        with pytest.raises(Malformed):
            parse(text)


@given(codes, bases)
def test_under_an_upper_case_base_url_the_same_code_is_written_and_read(code: CodeText, base: str) -> None:
    text = code.text(base.upper())
    assert text == code.text(base).upper()
    assert parse(text) == code
    assert "".join(segments(text)) == text


@given(bases, st.data())
def test_one_letter_of_another_case_makes_a_base_url_malformed(base: str, data: st.DataObject) -> None:
    for right in (base, base.upper()):
        letters = [at for at, character in enumerate(right) if character.isalpha()]
        at = data.draw(st.sampled_from(letters))
        mixed = right[:at] + right[at].swapcase() + right[at + 1 :]
        with pytest.raises(Malformed):
            check_base_url(mixed)
        with pytest.raises(Malformed):
            parse(mixed + TEXT[-PATH_CHARS:])


@pytest.mark.parametrize("digit", ["\u0661", "\uff11", "\u00b9", "\U0001d7cf"])
def test_digits_of_other_scripts_are_malformed_everywhere(digit: str) -> None:
    for at, character in enumerate(TEXT):
        if character == "1":
            with pytest.raises(Malformed):
                parse(TEXT[:at] + digit + TEXT[at + 1 :])


def test_signature_number_is_at_most_2_to_the_512_less_1() -> None:
    largest = encode_text(BASE, 1, 1, b"\xff" * 64, GTIN, SERIAL)
    assert parse(largest).signature == b"\xff" * 64
    above = largest.replace(f"{2**512 - 1:0155d}", f"{2**512:0155d}")
    assert above != largest
    with pytest.raises(Malformed):
        parse(above)


@pytest.mark.parametrize(
    "fields",
    [
        {"profile": 0},
        {"profile": 3},
        {"profile": True},
        {"profile": 1.0},
        {"profile": "1"},
        {"kid": -1},
        {"kid": 100_000},
        {"kid": False},
        {"kid": None},
        {"gtin": "06901234567893"},
        {"gtin": GTIN[1:]},
        {"gtin": int(GTIN)},
        {"serial": SERIAL[1:]},
        {"serial": SERIAL + "0"},
        {"serial": "\u0660" * 14},
        {"serial": int(SERIAL)},
        {"signature": bytes(63)},
        {"signature": bytes(65)},
        {"signature": "0" * 64},
        {"signature": bytearray(64)},
    ],
)
def test_field_out_of_range_is_malformed(fields: dict[str, Any]) -> None:
    right: dict[str, Any] = {"profile": 1, "kid": 1, "gtin": GTIN, "serial": SERIAL, "signature": bytes(64)}
    CodeText(**right)
    with pytest.raises(Malformed):
        CodeText(**(right | fields))


@pytest.mark.parametrize("kid", [0, 99_999])
@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("serial", ["0" * 14, "9" * 14])
def test_field_at_its_limit_is_accepted(kid: int, profile: Profile, serial: str) -> None:
    code = CodeText(profile, kid, GTIN, serial, bytes(64))
    assert parse(code.text(BASE)) == code


@pytest.mark.parametrize(
    "base",
    [
        "https://id.example.cn",
        "http://localhost",
        "http://localhost:8000",
        "http://127.0.0.1:1",
        "https://255.255.255.255:65535",
        "https://0.0.0.0",
        "https://a.cn",
        "https://xn--fiqs8s.xn--fiqs8s",
        "https://1.2.3.4.example",
        "https://3m.com",
        "HTTPS://ID.EXAMPLE.CN",
        "HTTP://LOCALHOST:8000",
        "HTTPS://255.255.255.255:65535",
        "HTTPS://XN--FIQS8S.XN--FIQS8S",
        f"HTTPS://{'.'.join(['A' * 63] * 3)}.{'B' * 61}:65535",
        f"https://{'a' * 63}.cn",
        f"https://{'.'.join(['a' * 63] * 3)}.{'b' * 61}:65535",
    ],
)
def test_base_url_is_accepted(base: str) -> None:
    assert check_base_url(base) == base
    assert parse(base + TEXT[-PATH_CHARS:]).gtin == GTIN


@pytest.mark.parametrize(
    "base",
    [
        "",
        "https://",
        "https:///",
        "id.example.cn",
        "//id.example.cn",
        "ftp://id.example.cn",
        "HTTPS://id.example.cn",
        "HTTPS://1.2.3.4.example",
        "https://ID.example.cn",
        "https://ID.EXAMPLE.CN",
        "Https://1.2.3.4",
        "HTTPS://A.0X7F",
        "HTTPS://A_B.CN",
        "HTTPS://A.CN:65536",
        f"HTTPS://{'A' * 64}.CN",
        "https://id.example.cn/",
        "https://id.example.cn/a",
        "https://id.example.cn?",
        "https://id.example.cn.",
        "https://.example.cn",
        "https://id..cn",
        "https://-a.cn",
        "https://a-.cn",
        "https://a_b.cn",
        "https://繁星.cn",
        "https://a.cn:",
        "https://a.cn:0",
        "https://a.cn:080",
        "https://a.cn:65536",
        "https://a.cn:99999",
        "https://a.cn:100000",
        "https://a.cn:٨",
        "https://user@a.cn",
        "https://[::1]",
        "https://256.0.0.1",
        "https://01.2.3.4",
        "https://1.2.3",
        "https://1.2.3.4.5",
        "https://1",
        "https://a.0x7f",
        "https://a.1b",
        "https://a.cn\n",
        " https://a.cn",
        f"https://{'a' * 64}.cn",
        f"https://{'.'.join(['a' * 63] * 3)}.{'b' * 62}",
        f"https://{'.'.join(['a' * 63] * 3)}.{'b' * 63}:65535",
        "https://" + "a." * 5_000 + "cn",
        None,
        b"https://a.cn",
    ],
)
def test_base_url_is_refused(base: Any) -> None:
    with pytest.raises(Malformed):
        check_base_url(base)
    if isinstance(base, str):
        with pytest.raises(Malformed):
            parse(base + TEXT[-PATH_CHARS:])
    with pytest.raises(Malformed):
        parse(TEXT).text(base)


def test_longest_text_is_as_long_as_the_limit_says() -> None:
    text = parse(TEXT).text(f"https://{'.'.join(['a' * 63] * 3)}.{'b' * 61}:65535")
    assert len(text) == code_text.TEXT_CHARS_MAX == 465
    parse(text)
    with pytest.raises(Malformed, match="longer than any code text"):
        parse(text + "0")


def test_refusing_a_hostile_text_takes_no_longer_for_its_length() -> None:
    hostile = ["https://" + "a" * 50_000_000, "0" * 50_000_000, "https://" + "a-" * 128 + TEXT[-PATH_CHARS:]]
    started = time.perf_counter()
    for text in hostile:
        with pytest.raises(Malformed):
            parse(text)
    assert time.perf_counter() - started < 0.5


def test_segments_are_cut_as_the_qr_symbol_takes_them() -> None:
    cut = segments(TEXT)
    assert cut == (BASE + "/", TEXT[22:183], "/01/", GTIN, "/21/", SERIAL)
    assert [len(part) for part in cut[1:]] == [161, 4, 14, 4, 14]
    assert cut[1].isdigit()


def test_segments_of_a_malformed_text_are_refused() -> None:
    with pytest.raises(Malformed):
        segments(TEXT + "/")


def test_error_and_repr_hold_neither_text_nor_signature() -> None:
    code = parse(TEXT)
    assert str(code.signature) not in repr(code)
    assert "signature" not in repr(code)
    with pytest.raises(Malformed) as caught:
        parse(TEXT + "x")
    assert TEXT[23:183] not in repr(caught.value)
    assert caught.value.label is None


def test_text_with_fewer_signature_digits_is_malformed_however_long_its_host(vectors: dict[str, Any]) -> None:
    text: str = vectors["valid"][0]["text"]
    at = text.index("/1") + 7
    for length in range(1, 64):
        for kept in range(156):
            shorter = f"https://{'a' * length}{text[at - 7 : at + kept]}{text[at + 155 :]}"
            if kept == 155:
                assert parse(shorter)
            else:
                with pytest.raises(Malformed):
                    parse(shorter)

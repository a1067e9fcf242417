"""Cookies are found without the standard library's parser, which one header can keep busy for seconds."""

import pytest
from fastapi import Request

from scan_api.cookies import cookie_of


def request(*headers: bytes) -> Request:
    return Request({"type": "http", "headers": [(b"cookie", header) for header in headers]})


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ((), None),
        ((b"",), None),
        ((b"a=1",), "1"),
        ((b"b=2; a=1",), "1"),
        ((b"b=2;a=1;c",), "1"),
        ((b"b=2", b"a=1"), "1"),
        ((b"a=1; a=2",), "1"),
        ((b"a=x=y",), "x=y"),
        ((b"a=",), ""),
        ((b"aa=1; A=2",), None),
    ],
)
def test_the_first_cookie_of_a_name_is_found(headers: tuple[bytes, ...], value: str | None) -> None:
    assert cookie_of(request(*headers), "a") == value


def test_a_header_full_of_escapes_is_a_value_like_any_other() -> None:
    hostile = b'a="' + b"\\a" * 16_000 + b'"'
    assert cookie_of(request(hostile), "a") == hostile.decode()[2:]

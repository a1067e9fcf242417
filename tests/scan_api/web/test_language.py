"""The language a browser asks for, and the one it gets."""

import pytest

from scan_api.web.language import choose


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "zh"),
        ("", "zh"),
        (" , ", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh-CN;q=0.8", "en"),
        ("en;q=0.5,zh;q=0.7", "zh"),
        ("EN", "en"),
        ("zh-Hant-TW", "zh"),
        ("en,zh", "en"),
        ("zh,en", "zh"),
        ("en;q=0.4,zh;q=0.4", "en"),
        ("fr-FR,fr;q=0.9,en;q=0.2", "en"),
        ("fr-FR,fr;q=0.9,zh;q=0.2", "zh"),
        ("fr,de;q=0.5", "en"),
        ("*", "zh"),
        ("fr,*;q=0.1", "zh"),
        ("zh;q=0,*", "en"),
        ("zh;q=0", "en"),
        ("en;q=0,fr", "en"),
        ("zh;q=0.1, en ; q = 0.2", "en"),
        ("zh;q=nan,en;q=0.1", "en"),
        ("zh;q=9,en;q=0.1", "en"),
        ("zh;q=words,en;q=0.1", "en"),
        ("zhuang", "en"),
        ("x" * 100_000, "en"),
    ],
)
def test_the_greater_weight_wins(header: str | None, expected: str) -> None:
    assert choose(header) == expected

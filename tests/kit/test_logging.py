"""Logs: one JSON object a line, without codes, phone numbers, tokens or one-time codes."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from kit import logging as kit_logging

SIGNATURE = "7" * 155


@contextmanager
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[list[dict[str, object]]]:
    """What is logged inside, as objects, once the block ends; logging is then as it was before."""
    lines: list[dict[str, object]] = []
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    kit_logging.configure("INFO")
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        structlog.reset_defaults()
    lines += [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    "name", ["phone", "token", "code_text", "one_time_code", "passphrase", "cookie", "authorization"]
)
def test_secret_fields_are_taken_out(name: str) -> None:
    assert kit_logging.scrub(None, "info", {"event": "x", name: "13800138000"}) == {"event": "x", name: "[removed]"}


def test_a_code_is_taken_out_of_any_text() -> None:
    record = {"event": f"GET /1{SIGNATURE}/01/06901234567892 failed", "item": 5}
    assert kit_logging.scrub(None, "info", record) == {"event": "GET /[removed]/01/06901234567892 failed", "item": 5}


@pytest.mark.parametrize(("digits", "kept"), [(99, True), (100, False)])
def test_only_runs_as_long_as_a_signature_are_taken_out(digits: int, kept: bool) -> None:
    record = kit_logging.scrub(None, "info", {"event": "1" * digits})
    assert (record["event"] == "1" * digits) is kept


def test_a_line_is_json_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(capsys) as lines:
        structlog.get_logger("test").info("扫码", item_key=5)
    [line] = lines
    assert (line["event"], line["level"], line["item_key"]) == ("扫码", "info", 5)
    assert str(line["timestamp"]).endswith("Z")


def test_errors_with_codes_in_them_are_scrubbed(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(capsys) as lines:
        try:
            raise ValueError(f"bad code {SIGNATURE}")
        except ValueError:
            structlog.get_logger("test").exception("failed")
            logging.getLogger("library").exception("also failed %s", SIGNATURE)
    ours, theirs = lines
    assert "ValueError" in str(ours["exception"])
    assert "ValueError" in str(theirs["exception"])
    assert SIGNATURE not in f"{ours}{theirs}"


def test_what_is_less_important_than_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(capsys) as lines:
        structlog.get_logger("test").debug("quiet")
        logging.getLogger("library").debug("quiet")
        logging.getLogger("httpx2").info("GET https://carrier.example/orders/1")
    assert lines == []

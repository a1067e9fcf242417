import os
import pty
import select
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_sdk.scanner.lines import LINE_BYTES_MAX, SerialPort, Splitter, StandardInput
from tests.offline_sdk.scanner.shop import plug_in, wait_until

ENDS = {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n"}


@pytest.fixture
def wake() -> Iterator[int]:
    """A descriptor that never becomes readable."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_lines_end_as_the_scanner_is_set(end: bytes) -> None:
    splitter = Splitter()
    assert splitter.feed(b"one" + end + b"two" + end + b"thr") == ["one", "two"]
    assert splitter.feed(b"ee" + end) == ["three"]
    assert splitter.finish() == []


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)), st.data())
def test_however_the_bytes_arrive_the_lines_are_the_same(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(text.encode() + data.draw(st.sampled_from(list(ENDS.values()))) for text in texts)
    splitter, found, at = Splitter(), [], 0
    while at < len(stream):
        piece = data.draw(st.integers(1, len(stream) - at))
        found += splitter.feed(stream[at : at + piece])
        at += piece
    assert found + splitter.finish() == texts


def test_empty_lines_are_no_scans() -> None:
    assert Splitter().feed(b"\r\n\r\n\n\r") == []


@pytest.mark.parametrize("extra", [-1, 0, 1, 100_000])
def test_no_more_than_the_limit_is_kept_of_a_line(extra: int) -> None:
    splitter = Splitter()
    splitter.feed(b"7" * (LINE_BYTES_MAX + extra))
    [line] = splitter.feed(b"7\nnext")
    assert len(line) == min(LINE_BYTES_MAX, LINE_BYTES_MAX + extra + 1)
    assert splitter.feed(b"\n") == ["next"]


def test_bytes_that_are_not_utf8_become_what_no_code_holds() -> None:
    assert Splitter().feed(b"a\xff\n") == ["a\udcff"]


class TestAPipe:
    def test_gives_what_came_and_none_after_its_end(self, wake: int) -> None:
        reading, writing = os.pipe()
        source = StandardInput(reading, wake)
        assert source.read(0) == []
        os.write(writing, b"one\ntw")
        assert source.read(0) == ["one"]
        os.close(writing)
        assert source.read(0) == ["tw"]
        assert source.read(0) is None
        os.close(reading)

    def test_returns_early_when_it_is_woken(self, wake: int) -> None:
        reading, writing = os.pipe()
        nudged, nudge = os.pipe()
        os.write(nudge, b"\0")
        assert StandardInput(reading, nudged).read(3_600) == []
        for descriptor in (reading, writing, nudged, nudge):
            os.close(descriptor)


class TestATerminal:
    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        hand, screen = pty.openpty()
        yield hand, screen
        os.close(hand)
        os.close(screen)

    def test_shows_nothing_of_what_is_typed_and_is_put_back(self, terminal: tuple[int, int], wake: int) -> None:
        hand, screen = terminal
        before = termios.tcgetattr(screen)
        source = StandardInput(screen, wake)
        os.write(hand, b"a secret code\r")
        assert source.read(5) == ["a secret code"]
        assert select.select([hand], [], [], 0)[0] == []
        source.close()
        source.close()
        assert termios.tcgetattr(screen) == before

    def test_ends_with_control_d(self, terminal: tuple[int, int], wake: int) -> None:
        hand, screen = terminal
        source = StandardInput(screen, wake)
        os.write(hand, b"one\r\x04")
        assert source.read(5) == ["one"]
        assert source.read(5) is None
        source.close()


class TestASerialPort:
    @pytest.fixture
    def told(self) -> list[bool]:
        return []

    def test_reads_lines_and_says_that_it_is_there(self, tmp_path: Path, wake: int, told: list[bool]) -> None:
        hand = plug_in(tmp_path)
        port = SerialPort(str(tmp_path / "ttyUSB0"), 9_600, wake, told.append)
        assert port.read(0) == []
        os.write(hand, b"one\rtwo\r")
        assert port.read(5) == ["one", "two"]
        assert told == [True]
        port.close()
        os.close(hand)

    def test_is_waited_for_and_comes_back_after_it_was_pulled_out(
        self, tmp_path: Path, wake: int, told: list[bool]
    ) -> None:
        port = SerialPort(str(tmp_path / "ttyUSB0"), 9_600, wake, told.append)
        assert port.read(0) == []
        assert port.read(0) == []
        assert told == [False]
        first = plug_in(tmp_path)
        assert port.read(0) == []
        os.write(first, b"half a co")
        assert port.read(5) == []
        os.close(first)
        wait_until(lambda: not port.read(0.1) and told[-1] is False, "the port to be gone")
        assert told == [False, True, False]
        second = plug_in(tmp_path)
        assert port.read(0) == []
        os.write(second, b"whole\n")
        assert port.read(5) == ["whole"]
        assert told == [False, True, False, True]
        port.close()
        os.close(second)

    def test_returns_early_when_it_is_woken(self, tmp_path: Path, told: list[bool]) -> None:
        nudged, nudge = os.pipe()
        os.write(nudge, b"\0")
        port = SerialPort(str(tmp_path / "absent"), 9_600, nudged, told.append)
        done = threading.Event()
        reading = threading.Thread(target=lambda: (port.read(3_600), done.set()))
        reading.start()
        assert done.wait(60)
        reading.join()
        os.close(nudged)
        os.close(nudge)

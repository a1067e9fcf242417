"""The counter's screen, drawn for real: into a string, and in a pseudo-terminal."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from offline_sdk import errors
from offline_sdk.errors import DeviceError, LogError, TrustError, VerifyError
from offline_sdk.journal import Recorded, Seen
from offline_sdk.scanner.background import LinkState
from offline_sdk.scanner.counter import Shown, Tally
from offline_sdk.scanner.panel import PanelFace
from offline_sdk.scanner.show import Standing
from offline_sdk.scanner.trust import Judgement, TrustState
from offline_sdk.scanner.words import ADVICE, LINK, NOT_RECORDED, VERDICTS, Language, Phrase
from tests.offline_sdk.scanner.shop import COMMAND, GTIN, ROOT_FOLDER, Shop, environment

AT = 1_790_000_000
LABEL = (GTIN, "00001000000001", 1, 7, "Corner Dairy", 42)
GENUINE = Judgement("genuine", None, "", *LABEL, "fresh", AT)
ASK = Judgement("ask", "BundleExpired", "", *LABEL, "expired", AT)
REFUSED = Judgement("refused", "BadSignature", "", *LABEL[:4], None, 42, "fresh", AT)
FULL = Judgement("refused", "JournalFull", "")
RECORDED = Recorded(12, AT * 1_000, Seen(3, AT * 1_000 - 60_000, 2))
ALL = {
    "genuine": Shown(GENUINE, RECORDED),
    "ask": Shown(ASK, RECORDED),
    "refused": Shown(REFUSED, RECORDED),
    NOT_RECORDED: Shown(FULL),
}


def standing(trust: TrustState) -> Standing:
    tally = Tally(datetime.fromtimestamp(AT, UTC).date(), 31, 2, 1, 4)
    return Standing(AT, tally, trust, LinkState("offline", AT - 7_200), 17)


def drawn(shown: Shown | None, *, width: int = 90, language: Language = Language.ENGLISH, **options: object) -> str:
    """The screen as a terminal of this width gets it, without colours unless they are asked for."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=30, **{"no_color": True, **options})  # type: ignore[arg-type]
    face = PanelFace(console, language)
    if shown is not None:
        face.scan(shown)
    face.stand(standing(TrustState("shop.example", 1, 42, AT - 3_600, AT + 86_400, "fresh")))
    face.close()
    return file.getvalue()


@pytest.mark.parametrize("name", list(ALL))
def test_word_is_said_in_both_languages_with_a_sign_that_needs_no_colour(name: str) -> None:
    screen = drawn(ALL[name])
    assert VERDICTS[name].zh in screen
    assert VERDICTS[name].en in screen
    assert "█████" in screen
    assert ("✓" in screen) == (name == "genuine")


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("width", [90, 80, 40])
def test_screen_fits_its_terminal(name: str, language: Language, width: int) -> None:
    lines = drawn(ALL[name], width=width, language=language).splitlines()
    assert max(map(cell_len, lines)) <= width
    if width == 80:
        assert len(lines) <= 24


def test_genuine_item_says_what_it_is_and_when_it_was_seen() -> None:
    screen = drawn(ALL["genuine"])
    for words in (GTIN, "00001000000001", "outer code", "Corner Dairy", "Seen here before", "2x so far", "#12"):
        assert words in screen


def test_old_list_and_wrong_clock_stand_in_the_verdict_itself() -> None:
    flagged = Judgement("genuine", None, "", *LABEL, "stale", AT, clock_suspect=True)
    screen = drawn(Shown(flagged, RECORDED))
    assert "!! OLD LIST" in screen
    assert "!! CLOCK SUSPECT" in screen
    assert "!!" not in drawn(ALL["genuine"])


def test_scan_that_was_not_recorded_says_nothing_of_the_item() -> None:
    screen = drawn(ALL[NOT_RECORDED])
    assert "This scan does not count." in screen
    assert "GTIN" not in screen


def test_state_below_tells_counts_list_and_sync() -> None:
    screen = drawn(None)
    for words in ("genuine 31", "ask 2", "refused 1", "seen before 4", "Trust list 42", "OFFLINE", "waiting 17"):
        assert words in screen


def test_colours_are_left_out_when_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    green = "\x1b[1;32m"
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert green in drawn(ALL["genuine"], force_terminal=True, color_system="standard", no_color=None)
    monkeypatch.setenv("NO_COLOR", "1")
    assert green not in drawn(ALL["genuine"], force_terminal=True, color_system="standard", no_color=None)


def test_terminal_without_chinese_gets_letters_that_it_has() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, "ascii", errors="backslashreplace"), width=90, no_color=True)
    face = PanelFace(console, Language.ENGLISH)
    face.scan(ALL["refused"])
    face.close()
    console.file.flush()
    assert b"####" in raw.getvalue()
    assert b"\\u" not in raw.getvalue()


def test_every_error_that_a_scan_can_end_with_has_its_advice() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    verdicts = {
        one.code for one in classes if issubclass(one, VerifyError) and not issubclass(one, TrustError | LogError)
    }
    journals = {one.code for one in classes if issubclass(one, DeviceError) and one.code.startswith("Journal")}
    said = verdicts - {"VerifyError"} | {"TrustMissing"} | journals - {"JournalBusy", "JournalUnknown"}
    assert set(ADVICE) == said


def test_every_phrase_is_there_in_both_languages_with_the_same_fields() -> None:
    from offline_sdk.scanner import words

    phrases = [one for one in vars(words).values() if isinstance(one, Phrase)]
    for table in (VERDICTS, LINK, words.STATES, words.OLD_LIST):
        phrases += table.values()
    for advice in ADVICE.values():
        phrases += [advice.why, advice.do]
    for phrase in phrases:
        assert set(re.findall("{[a-z]+}", phrase.zh)) == set(re.findall("{[a-z]+}", phrase.en))
        assert re.search("[一-鿿]", phrase.zh)
        assert not re.search("[一-鿿]", phrase.en)


def test_screen_on_a_real_terminal_shows_the_verdict_rings_and_is_given_back(shop: Shop) -> None:
    shop.equip()
    hand, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(
        COMMAND,
        cwd=ROOT_FOLDER,
        env=environment(shop.home.folder, TERM="xterm-256color"),
        stdin=screen,
        stdout=screen,
        stderr=subprocess.PIPE,
    )
    os.close(screen)
    try:
        seen = read_until(hand, "READY: SCAN A CODE")
        os.write(hand, shop.text().encode() + b"\r")
        seen += read_until(hand, "Corner Dairy", "\a")
        os.write(hand, b"4006381333931\r")
        seen += read_until(hand, "This is not an item code", "\a", "\a", "\a")
        os.write(hand, b"\x04")
        seen += read_until(hand, "\x1b[?1049l")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(hand)
    assert "正品" in seen
    assert "\x1b[?1049h" in seen
    assert shop.text()[30:60] not in seen


def read_until(descriptor: int, *pieces: str) -> str:
    """Read a terminal till it has shown all these, repeated ones so often."""
    shown, end = "", time.monotonic() + 60
    while not all(shown.count(piece) >= pieces.count(piece) for piece in pieces):
        assert time.monotonic() < end, shown
        try:
            shown += os.read(descriptor, 65_536).decode(errors="replace")
        except OSError:  # the other side is closed
            assert all(shown.count(piece) >= pieces.count(piece) for piece in pieces), shown
    return shown


def test_picture_in_the_manual_shows_what_the_program_draws() -> None:
    picture = (ROOT_FOLDER / "docs" / "pictures" / "scanner.svg").read_text(encoding="utf-8")
    assert "正品" in picture
    assert Path(ROOT_FOLDER / "docs" / "scanner.md").read_text(encoding="utf-8").count("pictures/scanner.svg") == 1

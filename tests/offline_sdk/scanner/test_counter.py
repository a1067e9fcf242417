from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from offline_sdk.journal import Journal
from offline_sdk.scanner.counter import Counter, Tally, tally_of, today
from offline_sdk.scanner.trust import Judgement
from offline_sdk.scanner.words import NOT_RECORDED, Language

LABEL = ("09506000000138", "00001000000001", 1, 7, "Corner Dairy", 42, "fresh")
JUDGEMENTS = {
    "genuine": Judgement("genuine", None, "", *LABEL),
    "ask": Judgement("ask", "BundleStale", "", *LABEL),
    "forged": Judgement("refused", "BadSignature", "", *LABEL),
}


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    """A counter at which the text names the judgement."""
    counter = Counter(tmp_path / "journal.db", JUDGEMENTS.__getitem__)
    yield counter
    counter.close()


def test_scan_is_in_the_journal_when_it_is_shown(counter: Counter) -> None:
    shown = counter.scan("genuine")
    assert shown.recorded is not None
    [record] = counter.journal.records(1, 10)
    assert (record.number, record.scan.serial) == (shown.recorded.number, LABEL[1])


def test_refused_scan_was_not_seen_before_whatever_numbers_it_bears(counter: Counter) -> None:
    assert counter.scan("genuine").seen is None
    assert counter.scan("forged").seen is None
    seen = counter.scan("ask").seen
    assert seen is not None
    assert (seen.number, seen.times) == (1, 1)
    assert counter.tally_today() == Tally(today(), genuine=1, ask=1, refused=1, again=1)


def test_counts_of_the_day_are_there_again_after_a_restart(counter: Counter) -> None:
    for text in ("genuine", "forged", "ask", "genuine"):
        counter.scan(text)
    counter.journal.close()
    with Journal.open(counter.journal_path) as journal:
        assert tally_of(journal, today()) == Tally(today(), genuine=2, ask=1, refused=1, again=2)
        assert tally_of(journal, date(2000, 1, 1)) == Tally(date(2000, 1, 1))


def test_day_of_more_scans_than_are_read_at_once_is_counted_whole(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline_sdk.scanner.counter.READ_RECORDS", 3)
    for scans in range(1, 9):
        counter.scan("forged")
        assert tally_of(counter.journal, today()).refused == scans


def test_new_day_begins_at_nothing(counter: Counter) -> None:
    counter.tally = Tally(date(2000, 1, 1), 5, 5, 5, 5)
    counter.scan("genuine")
    assert counter.tally_today() == Tally(today(), genuine=1)


def test_journal_that_was_closed_under_it_is_opened_again(counter: Counter) -> None:
    counter.scan("genuine")
    counter.journal.close()
    shown = counter.scan("genuine")
    assert shown.recorded is not None
    assert shown.recorded.number == 2


def test_journal_that_another_process_took_shows_nothing_green(counter: Counter) -> None:
    counter.journal.close()
    with Journal.open(counter.journal_path):
        shown = counter.scan("genuine")
        assert (shown.word, shown.judged.error, shown.judged.gtin) == (NOT_RECORDED, "JournalBusy", None)
    assert counter.scan("genuine").word == "genuine"
    assert counter.tally_today().genuine == 1


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, Language.CHINESE),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "zh_CN"}, Language.CHINESE),
        ({"LANG": "zh_CN", "LC_ALL": "C"}, Language.ENGLISH),
        ({"LANG": "fr_FR"}, Language.ENGLISH),
        ({}, Language.ENGLISH),
    ],
    ids=["LANG", "LC_ALL wins", "C wins", "other", "none"],
)
def test_language_is_the_systems(environment: dict[str, str], language: Language) -> None:
    assert Language.of(environment) is language

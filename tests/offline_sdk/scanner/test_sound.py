import os
import wave
from itertools import pairwise
from pathlib import Path

import pytest

from offline_sdk.scanner.sound import BEEPS, PITCHES_HZ, RATE_HZ, Bell, Tones, find_player, write_beeps
from tests.offline_sdk.scanner.shop import wait_until


@pytest.mark.parametrize("verdict", list(BEEPS))
def test_bell_rings_once_twice_or_three_times(verdict: str) -> None:
    heard, terminal = os.pipe()
    bell = Bell(terminal)
    bell.play(verdict)
    assert b"".join(os.read(heard, 1) for _ in range(BEEPS[verdict])) == b"\a" * BEEPS[verdict]
    bell.close()
    os.close(terminal)
    assert os.read(heard, 1) == b""
    os.close(heard)


@pytest.mark.parametrize("verdict", list(BEEPS))
def test_tone_has_its_pitch_and_its_number_of_beeps(tmp_path: Path, verdict: str) -> None:
    path = tmp_path / "tone.wav"
    write_beeps(path, PITCHES_HZ[verdict], BEEPS[verdict])
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        samples = memoryview(file.readframes(file.getnframes())).cast("h").tolist()
    rises = [at for at in range(1, len(samples)) if samples[at - 1] <= 0 < samples[at]]
    gaps = [late - early for early, late in pairwise(rises)]
    assert sum(gap > RATE_HZ * 0.05 for gap in gaps) == BEEPS[verdict] - 1
    assert abs(RATE_HZ / sorted(gaps)[len(gaps) // 2] - PITCHES_HZ[verdict]) < PITCHES_HZ[verdict] * 0.1


@pytest.fixture
def players(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone has programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    return folder


def test_system_without_a_player_has_none(players: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(players))
    assert find_player() is None


def test_player_is_started_with_the_verdicts_file_and_the_newest_wins(players: Path, tmp_path: Path) -> None:
    player = players / "aplay"
    player.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/played\nexec sleep 3600\n')
    player.chmod(0o755)
    found = find_player()
    assert found == ("aplay", "-q")
    tones = Tones(tmp_path, found)
    played = tmp_path / "played"
    for number, verdict in enumerate(BEEPS, 1):
        tones.play(verdict)  # which returns although the one before would play for an hour
        wait_until(lambda number=number: played.exists() and len(played.read_text().splitlines()) == number, "a sound")
    tones.close()
    assert played.read_text().splitlines() == [f"-q {tmp_path}/{verdict}.wav" for verdict in BEEPS]

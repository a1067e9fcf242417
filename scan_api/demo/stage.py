"""The demonstration's stage: a real API server, a carrier's process, a scanner's process and a browser."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from codes.inspection import scans, symbols
from kit.errors import Unavailable
from scan_api.commands import main

_START_S_MAX = 30
_PAGE_S_MAX = 60
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PHONE_PX = (412, 1500)

# The scanner runs with every socket call made an error, so that "no network" is a fact and not a promise.
_WITHOUT_NETWORK = """
import sys
def refuse(event, _arguments):
    if event.startswith("socket."):
        raise PermissionError("the scanner tried to use the network")
sys.addaudithook(refuse)
from offline_sdk.cli import run
run()
"""


class StageFailed(Unavailable):
    code = "StageFailed"


def free_port(wanted: int) -> int:
    """`wanted` when it is free on 127.0.0.1, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StageFailed("no free port on 127.0.0.1")


@contextlib.contextmanager
def serving(app: FastAPI, port: int) -> Iterator[None]:
    """The API, answering on a real socket, in a thread of its own."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, access_log=False, log_config=None, server_header=False)
    )
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    _wait(lambda: server.started, "the API")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_START_S_MAX)


@contextlib.contextmanager
def carrier(folder: Path) -> Iterator[str]:
    """The carrier simulator in a process of its own; yields its URL. It drops connections and repeats itself."""
    command = [
        *(sys.executable, "-m", "loadtest.carrier", "--port", "0", "--state", str(folder / "carrier.sqlite")),
        *("--drop", "0.3", "--duplicate", "0.3", "--seed", "1"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if not said:
            raise StageFailed("the carrier simulator did not start", hint=f"Try {' '.join(command)}")
        yield said.split()[-1]
    finally:
        process.terminate()
        process.wait(_START_S_MAX)


def _wait(ready: Any, what: str) -> None:
    deadline = time.monotonic() + _START_S_MAX
    while not ready():
        if time.monotonic() > deadline:
            raise StageFailed(f"{what} did not start within {_START_S_MAX} s")
        time.sleep(0.05)


def read_sheet(sheet: Path) -> list[str]:
    """Every code on a printed sheet, as a QR reader sees it that is moved over the pages: texts in reading order."""
    return [symbol.text for page in scans.pages([sheet]) for symbol in symbols.find(page.grey) if symbol.text]


def verify_offline(trust: Path, root: Path, texts: list[str]) -> list[dict[str, Any]]:
    """What `fanxing-verify --json` says of the texts, in a process that cannot use the network."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _WITHOUT_NETWORK, "--trust", str(trust), "--root", str(root), "--json"],
        input="\n".join(texts) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise StageFailed(f"fanxing-verify failed: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def scanner(home: Path, *arguments: str, texts: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What `fanxing-scanner --json` answers, given these texts by its hand scanner."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "offline_sdk.scanner", "--home", str(home), "--json", *arguments],
        input="".join(f"{text}\r\n" for text in texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StageFailed(f"fanxing-scanner failed: {done.stderr.strip()}")
    decoder, answers, rest = json.JSONDecoder(), [], done.stdout.strip()
    while rest:
        answer, end = decoder.raw_decode(rest)
        answers.append(answer)
        rest = rest[end:].lstrip()
    return answers


def fanxing(home: Path, *arguments: str, database: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `fanxing --json`, as an operator runs it; `database`: of another file than the home's.

    In this process, since starting another costs more than most commands do.
    """
    settings = {"FANXING_HOME": str(home)}
    if database is not None:
        settings["FANXING_DATABASE_URL"] = f"sqlite:///{database}"
    said, code = io.StringIO(), 0
    with _environment(settings), contextlib.redirect_stdout(said):
        try:
            main.build(arguments[:1])([*arguments, "--json"])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    try:
        answer: dict[str, Any] = json.loads(said.getvalue())
    except ValueError:
        raise StageFailed(f"fanxing {' '.join(arguments[:2])} gave no answer") from None
    return code, answer


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def photograph(url: str, picture: Path) -> bool:
    """A screenshot of a page as a phone shows it; whether a Chromium was found to take it."""
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        return False
    profile = picture.with_suffix(".profile")
    try:
        subprocess.run(  # noqa: S603
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--hide-scrollbars", f"--user-data-dir={profile}", f"--screenshot={picture}"),
                *(f"--window-size={_PHONE_PX[0]},{_PHONE_PX[1]}", "--lang=zh-CN", url),
            ],
            capture_output=True,
            timeout=_PAGE_S_MAX,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return False
    finally:
        shutil.rmtree(profile, ignore_errors=True)
    return picture.exists()

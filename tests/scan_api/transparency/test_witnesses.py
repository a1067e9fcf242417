"""Witnesses are asked to cosign what was signed, and what they do with it decides what is served beside it."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nacl.signing import SigningKey

from offline_sdk import witness_program
from offline_sdk.transparency import Policy, SignatureType, VerifierKey
from offline_sdk.transparency.checkpoint import WITNESSES_MAX
from scan_api.transparency import store, witnesses
from scan_api.transparency.store import LogWitness
from scan_api.transparency.witnesses import WitnessExists, WitnessInvalid, WitnessUnknown
from tests.scan_api.transparency.log_stand import LogStand

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NOWHERE = "http://127.0.0.1:9"


@contextmanager
def running(folder: Path, log_key: VerifierKey) -> Iterator[str]:
    """The witness program in a process of its own; its URL."""
    command = [sys.executable, "-m", "offline_sdk.witness_program", "serve", str(folder), "--log", str(log_key)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().rpartition(":")[2].partition("/")[0]
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            process.kill()


@contextmanager
def answering(answer: Callable[[bytes], tuple[int, str, bytes]]) -> Iterator[str]:
    """A witness that answers as the test says; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, media_type, body = answer(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def a_key(name: str = "witness.example/w1", type: SignatureType = SignatureType.COSIGNATURE) -> VerifierKey:
    return VerifierKey(name, type, bytes(SigningKey(name.encode().ljust(32)[:32]).verify_key))


async def _add(log: LogStand, key: str, url: str) -> LogWitness:
    async with log.database.writing() as session:
        return await witnesses.add(session, key, url, log.now)


async def _witness(log: LogStand) -> LogWitness:
    async with log.database.reading() as session:
        [found] = await store.witnesses_of(session)
        return found


async def test_witness_program_cosigns_as_the_log_grows(log: LogStand, tmp_path: Path) -> None:
    key = witness_program.init(tmp_path / "witness", "witness.example/w1")
    log_key = (await log.head()).key
    policy = Policy(log_key, (key,), 1)
    await log.enqueue(3)
    await log.publish()
    async with httpx2.AsyncClient() as client:
        with running(tmp_path / "witness", log_key) as url:
            await _add(log, str(key), f"{url}/")
            publisher = log.publisher(client)
            assert await publisher.turn()  # what was published without it is served with its cosignature
            assert policy.check(await log.published()).checkpoint.size == 3
            assert not await publisher.turn()
            for count in (1, 500):
                await log.enqueue(count)
                await log.sequencer().turn()
                assert await publisher.turn()
                policy.check(await log.published())
        # While it is away the log goes on, and it is left alone for a while.
        await log.enqueue(1)
        await log.sequencer().turn()
        assert await publisher.turn()
        published = await log.published()
        assert (published.checkpoint.size, len(published.signatures)) == (505, 1)
        assert "could not be reached" in ((await _witness(log)).trouble or "")
        assert not await publisher.turn()
        with running(tmp_path / "witness", log_key) as url:
            async with log.database.writing() as session:
                await witnesses.remove(session, key.name)
            # Whoever does not know what a witness cosigned last learns it from the witness.
            assert (await _add(log, str(key), url)).cosigned_size == 0
            log.later(witnesses.ASKED_AGAIN_AFTER.total_seconds())
            assert await publisher.turn()
    policy.check(await log.published())
    found = await _witness(log)
    assert (found.cosigned_size, found.cosigned_at, found.trouble) == (505, log.now, None)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/plain", b"not a signature\n"),
        (200, "text/plain", f"\u2014 witness.example/w1 {'A' * 100}\n".encode()),
        (200, "text/plain", b""),
        (200, "text/plain", bytes(300_000)),
        (409, "text/x.tlog.size", b"7\n"),
        (409, "text/x.tlog.size", b"-1\n"),
        (409, "text/x.tlog.size", "\u0663\n".encode()),
        (409, "text/plain", b"2\n"),
        (409, "text/x.tlog.size", b"2\n"),
        (500, "text/html", b"\xff\x00"),
    ],
    ids=["text", "another's", "empty", "long", "ahead", "negative", "digits", "no size", "again", "broken"],
)
async def test_witness_that_answers_otherwise_keeps_nobody(log: LogStand, answer: tuple[int, str, bytes]) -> None:
    await log.enqueue(3)
    await log.sequencer().turn()
    with answering(lambda _body: answer) as url:
        await _add(log, str(a_key()), url)
        async with httpx2.AsyncClient() as client:
            assert await log.publisher(client).turn()
    assert len((await log.published()).signatures) == 1
    assert (await _witness(log)).trouble


async def test_wrong_cosignature_is_not_served(log: LogStand) -> None:
    key = a_key()
    await log.sequencer().turn()
    with answering(lambda _body: (200, "text/plain", key.signature(bytes(64), 1).line.encode())) as url:
        await _add(log, str(key), url)
        async with httpx2.AsyncClient() as client:
            await log.publisher(client).turn()
    assert len((await log.published()).signatures) == 1
    assert "is wrong" in ((await _witness(log)).trouble or "")


async def test_silent_witness_is_waited_for_no_longer_than_said(log: LogStand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "ANSWER_TIMEOUT_S", 0.05)
    released = threading.Event()

    def silent(_body: bytes) -> tuple[int, str, bytes]:
        released.wait(20)
        return 500, "text/plain", b""

    await log.sequencer().turn()
    with answering(silent) as url:
        await _add(log, str(a_key()), url)
        async with httpx2.AsyncClient() as client:
            assert await log.publisher(client).turn()
        released.set()
    assert "did not answer" in ((await _witness(log)).trouble or "")


@pytest.mark.parametrize("url", ["", "ftp://w.example", "w.example", "http://" + "x" * 494, "http://w\n.example"])
async def test_url_of_a_witness_is_one_of_the_web(log: LogStand, url: str) -> None:
    with pytest.raises(WitnessInvalid):
        await _add(log, str(a_key()), url)


async def test_url_may_be_as_long_as_allowed(log: LogStand) -> None:
    await _add(log, str(a_key()), "http://" + "x" * 493)


@pytest.mark.parametrize("key", ["", "x", str(a_key())[:-2], str(a_key(type=SignatureType.ED25519))])
async def test_key_of_a_witness_is_a_cosigners(log: LogStand, key: str) -> None:
    with pytest.raises(WitnessInvalid):
        await _add(log, key, NOWHERE)


async def test_a_witness_is_there_once_and_can_go(log: LogStand) -> None:
    key = a_key()
    await _add(log, str(key), NOWHERE)
    for again in (key, VerifierKey("another", key.type, key.public)):
        with pytest.raises(WitnessExists):
            await _add(log, str(again), NOWHERE)
    async with log.database.writing() as session:
        assert (await witnesses.remove(session, key.name)).url == NOWHERE
        with pytest.raises(WitnessUnknown):
            await witnesses.remove(session, key.name)


async def test_no_more_witnesses_than_a_policy_has(log: LogStand) -> None:
    async with log.database.writing() as session:
        for number in range(WITNESSES_MAX):
            await witnesses.add(session, str(a_key(f"w{number:02}")), NOWHERE, log.now)
        with pytest.raises(WitnessInvalid, match="at most 64"):
            await witnesses.add(session, str(a_key("w64")), NOWHERE, log.now)

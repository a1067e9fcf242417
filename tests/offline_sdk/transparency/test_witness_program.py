import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from offline_sdk import witness_program
from offline_sdk.errors import WitnessUnusable
from offline_sdk.transparency import AddCheckpoint, Policy, VerifierKey, read_signature_lines
from offline_sdk.transparency.witness import REQUEST_BYTES_MAX
from offline_sdk.witness_program import CONNECTIONS_MAX, HEADS_FILE, KEY_FILE, LOGS_MAX, SUBMISSION_PATH, Service, init
from tests.offline_sdk.transparency.log_maker import LOG, Log

ROOT_FOLDER = Path(__file__).parents[3]
NAME = "witness.example/w1"
TREE = Log.of(400)
FORK = Log()
FORK.append([b"rewritten", *TREE.records[1:]])


class Running:
    """The program in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", str(folder), "--log", str(LOG.key), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        told = self.process.stdout.readline().decode()
        self.key = VerifierKey.read(told.split()[0])
        self.port = int(told.rpartition(":")[2].partition("/")[0])

    def post(self, body: bytes, path: str = SUBMISSION_PATH) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type") or "", answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> int:
        status = self.process.wait(20)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return status


COMMAND = [sys.executable, "-m", "offline_sdk.witness_program"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT_FOLDER)}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def ask(log: Log, old: int, new: int) -> bytes:
    return bytes(AddCheckpoint(old, log.consistency(old, new), log.signed(new)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init(tmp_path / "witness", NAME)
    return tmp_path / "witness"


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    started = Running(folder)
    try:
        yield started
    finally:
        if started.process.returncode is None:
            started.kill()


def test_a_witness_cosigns_over_http_and_goes_on_after_its_end(folder: Path) -> None:
    with running(folder) as one:
        status, _type, body = one.post(ask(TREE, 0, 100))
        assert status == 200
        cosigned = TREE.signed(100).cosigned(read_signature_lines(body), [one.key])
        assert len(Policy(LOG.key, (one.key,), 1).check(cosigned).witnesses) == 1
        one.process.send_signal(signal.SIGTERM)
        assert one.end() == 0
    with running(folder) as two:
        assert two.key == one.key
        assert two.post(ask(TREE, 0, 200)) == (409, "text/x.tlog.size", b"100\n")
        assert two.post(ask(FORK, 100, 200))[0] == 422
        assert two.post(ask(TREE, 100, 200))[0] == 200


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_witness_that_is_killed_never_cosigns_a_fork(folder: Path, kills: int) -> None:
    random = Random(9)
    size, cosigned = 0, {}
    for _ in range(kills):
        with running(folder) as one:
            victim = threading.Timer(random.uniform(0.01, 0.15), one.process.kill)
            victim.start()
            with suppress(OSError, http.client.HTTPException):
                while True:
                    log = random.choice([TREE, FORK])
                    new = min(400, size + random.randint(0, 2))
                    status, _type, body = one.post(ask(log, size, new))
                    if status == 200:
                        assert cosigned.setdefault(new, log) is log
                        size = new
                    elif status == 409 and size != int(body):
                        size = int(body)
            victim.join()
            one.end()
        # What left the witness is on the disk.
        kept = json.loads((folder / HEADS_FILE).read_bytes())["heads"]
        assert max(cosigned, default=0) <= (kept[LOG.name]["size"] if kept else 0)
    assert len({id(log) for log in cosigned.values()}) == 1


def test_what_is_no_request_is_refused_over_http(folder: Path) -> None:
    with running(folder) as one:
        assert one.post(b"hello")[0] == 400
        assert one.post(b"", "/other")[0] == 404
        assert one.post(bytes(REQUEST_BYTES_MAX))[0] == 400
        assert raw(one, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 405")
        post = f"POST {SUBMISSION_PATH} HTTP/1.1\r\nHost: x\r\n".encode()
        assert raw(one, post + b"\r\n").startswith(b"HTTP/1.1 411")
        assert raw(one, post + b"Content-Length: +1\r\n\r\nx").startswith(b"HTTP/1.1 411")
        assert raw(one, post + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").startswith(b"HTTP/1.1 411")
        for length in (REQUEST_BYTES_MAX + 1, 10**30):
            assert raw(one, post + b"Content-Length: %d\r\n\r\n" % length).startswith(b"HTTP/1.1 413")
        assert raw(one, post + b"Content-Length: 9\r\n\r\nhalf", end=True) == b""
        assert one.post(ask(TREE, 0, 1))[0] == 200


def raw(one: Running, content: bytes, *, end: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", one.port), timeout=20) as connection:
        connection.sendall(content)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
        return answer


def test_many_requests_share_a_connection(folder: Path) -> None:
    with running(folder) as one:
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=20)
        for size in range(5):
            connection.request("POST", SUBMISSION_PATH, ask(TREE, size, size + 1))
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        connection.close()


def test_as_many_connections_as_the_limit_are_served_and_no_more(folder: Path) -> None:
    with running(folder) as one:
        idle = [socket.create_connection(("127.0.0.1", one.port), timeout=20) for _ in range(CONNECTIONS_MAX - 1)]
        assert one.post(ask(TREE, 0, 1))[0] == 200
        idle.append(socket.create_connection(("127.0.0.1", one.port), timeout=20))
        with socket.create_connection(("127.0.0.1", one.port), timeout=20) as further:
            assert further.recv(1) == b""
        for connection in idle:
            connection.close()


@pytest.mark.slow
def test_a_silent_client_is_let_go(folder: Path) -> None:
    with running(folder) as one, socket.create_connection(("127.0.0.1", one.port), timeout=60) as silent:
        silent.sendall(f"POST {SUBMISSION_PATH} HTTP/1.1\r\nContent-Length: 5\r\n\r\nx".encode())
        assert silent.recv(1) == b""


def test_a_witness_follows_at_most_as_many_logs_as_the_limit(folder: Path) -> None:
    assert Service(folder, [LOG.key] * LOGS_MAX).key.name == NAME
    with pytest.raises(WitnessUnusable):
        Service(folder, [LOG.key] * (LOGS_MAX + 1))


def test_init_goes_on_where_it_was_interrupted(folder: Path) -> None:
    (folder / KEY_FILE).unlink()
    key = init(folder, NAME)
    assert Service(folder, [LOG.key]).key == key


def test_requests_at_once_are_cosigned_one_after_another(folder: Path) -> None:
    service = Service(folder, [LOG.key])
    sizes = list(range(1, 30))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda size=size: statuses.append(service.add_checkpoint(ask(TREE, 0, size)).status))
        for size in sizes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 28


def test_init_makes_a_key_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    told = run("init", tmp_path / "w", "--name", NAME)
    assert told.returncode == 0
    key = VerifierKey.read(told.stdout.strip())
    assert key.name == NAME
    for name in (KEY_FILE, HEADS_FILE):
        assert stat.S_IMODE((tmp_path / "w" / name).stat().st_mode) == 0o600
    again = run("init", tmp_path / "w", "--name", NAME)
    assert (again.returncode, "WitnessUnusable" in again.stderr) == (2, True)
    assert Service(tmp_path / "w", [LOG.key]).key == key


def test_a_folder_serves_one_program_at_a_time(folder: Path) -> None:
    with running(folder):
        other = run("serve", folder, "--log", LOG.key, "--port", "0")
        assert (other.returncode, "another fanxing-witness" in other.stderr) == (2, True)


@pytest.mark.parametrize("name", [KEY_FILE, HEADS_FILE])
@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"\xff", b"PRIVATE+KEY+a+b+c", b'{"format": "fanxing-witness-1"}']
)
def test_a_witness_without_its_key_or_heads_does_not_start(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(WitnessUnusable):
        Service(folder, [LOG.key])


@pytest.mark.parametrize(
    "head", ['{"size": -1, "root": ""}', '{"size": 1, "root": "AAAA"}', "3", '{"size": 1}', '{"size": true}']
)
def test_a_head_that_is_none_is_refused(folder: Path, head: str) -> None:
    (folder / HEADS_FILE).write_text('{"format": "fanxing-witness-1", "heads": {"log": %s}}' % head)  # noqa: UP031
    with pytest.raises(WitnessUnusable):
        Service(folder, [LOG.key])


def test_a_key_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / KEY_FILE).chmod(0o640)
    with pytest.raises(WitnessUnusable, match="other users"):
        Service(folder, [LOG.key])


def test_a_head_that_cannot_be_kept_is_not_cosigned(folder: Path) -> None:
    service = Service(folder, [LOG.key])
    (folder / f"{HEADS_FILE}.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        service.add_checkpoint(ask(TREE, 0, 5))
    (folder / f"{HEADS_FILE}.new").rmdir()
    assert service.add_checkpoint(ask(FORK, 0, 5)).status == 200


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve", "."], ["serve", ".", "--log", "x"], ["init", "."], ["init", ".", "--name", "a b"],
     ["serve", ".", "--log", "x", "--port", "70000"], ["serve", "/nowhere", "--log", str(LOG.key)]],
    ids=lambda arguments: " ".join(arguments)[:40],
)  # fmt: skip
def test_bad_usage_ends_with_2(tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status: object = witness_program.main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2

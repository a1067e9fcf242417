"""What a stranger sends around the bodies of his requests has an end, and the server lives on."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import uvicorn

from scan_api import http_protocol, socket_protocol
from scan_api.http_protocol import BESIDE_BODY_BYTES_MAX, HEADER_BYTES_MAX, PIPELINED_MAX, LimitedProtocol
from scan_api.middleware import BODY_BYTES_MAX
from tests.stand import Stand, free_port, wait_until

TIMEOUT_S = 20
REFUSED = "400"
"""By the protocol, in plain text."""
READ = "400 RequestInvalid"
"""By the API, which read all of the body and found that something is missing."""
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3})|\"code\":\"(\w+)\"")
_POST = b"POST /v1/claims HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
_POST += b"idempotency-key: 12345678\r\n"
_CHUNKED = _POST + b"transfer-encoding: chunked\r\n\r\n"


def answers(stand: Stand, parts: Iterable[bytes]) -> list[str]:
    """Send the parts over one connection till the server has had enough; status and error code of every answer."""
    heard = b""
    with socket.create_connection(("127.0.0.1", stand.server.port), TIMEOUT_S) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65_536):
                heard += more
    words = b" ".join(status or code for status, code in _ANSWER.findall(heard)).decode()
    return re.findall(r"\d{3}(?: [A-Za-z]+)?", words)


def head(path: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"GET " + path + b" HTTP/1.1", b"host: x", b"connection: close", *headers, b"", b""))


def padded(size: int) -> bytes:
    """A request whose target and headers are of `size` bytes."""
    used = len(b"/healthz" + b"hostx" + b"connectionclose" + b"x-padding")
    return head(b"/healthz", b"x-padding: " + b"x" * (size - used))


@pytest.mark.parametrize(
    ("size", "answer"), [(HEADER_BYTES_MAX - 1, "200"), (HEADER_BYTES_MAX, "200"), (HEADER_BYTES_MAX + 1, REFUSED)]
)
def test_a_head_has_a_limit(stand: Stand, size: int, answer: str) -> None:
    assert answers(stand, [padded(size)]) == [answer]
    assert stand.http.get("/healthz").status_code == 200


def test_a_target_counts_too(stand: Stand) -> None:
    assert answers(stand, [head(b"/" + b"h" * (HEADER_BYTES_MAX - 100))]) == ["404 PageUnknown"]
    assert answers(stand, [head(b"/" + b"h" * HEADER_BYTES_MAX)]) == [REFUSED]


def test_a_head_that_never_ends_is_cut_off(stand: Stand) -> None:
    def endless() -> Iterator[bytes]:
        yield b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-padding: "
        for _ in range(1_000):
            yield b"x" * 65_536

    assert answers(stand, endless()) in ([REFUSED], [])  # a reset may overtake the answer
    assert stand.http.get("/healthz").status_code == 200


def test_trailers_that_never_end_are_cut_off(stand: Stand) -> None:
    def endless() -> Iterator[bytes]:
        yield _CHUNKED + b"2\r\n{}\r\n0\r\n"
        for _ in range(1_000):
            yield b"x-trailer: " + b"x" * 65_536 + b"\r\n"

    assert set(answers(stand, endless())) <= {READ, REFUSED}
    assert stand.http.get("/healthz").status_code == 200


def test_the_framing_of_chunks_has_a_limit(stand: Stand) -> None:
    small = [_CHUNKED, *[b"1\r\n \r\n"] * 1_000, b"2\r\n{}\r\n0\r\n\r\n"]
    assert answers(stand, [b"".join(small)]) == [READ]
    many = b"1;" + b"x" * 1_000 + b"\r\n \r\n"
    endless = [_CHUNKED, *[many * 100] * (BESIDE_BODY_BYTES_MAX // len(many * 100) + 10)]
    assert set(answers(stand, endless)) <= {REFUSED}
    assert stand.http.get("/healthz").status_code == 200


def test_a_body_does_not_count_as_a_head(stand: Stand) -> None:
    body = b'{"code_text": "%s"}' % (b"x" * (BODY_BYTES_MAX - 20))
    assert answers(stand, [_POST + b"content-length: %d\r\n\r\n" % len(body) + body]) == [READ]


def test_requests_on_one_connection_are_counted_each_for_itself(stand: Stand) -> None:
    one = padded(HEADER_BYTES_MAX - 100).replace(b"connection: close\r\n", b"")
    assert answers(stand, [one] * 12 + [padded(100)]) == ["200"] * 13


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x00" * 50])
def test_what_is_no_http_is_refused(stand: Stand, sent: bytes) -> None:
    assert answers(stand, [sent]) == [REFUSED]
    assert stand.http.get("/healthz").status_code == 200


def test_so_many_requests_may_wait_on_a_connection_and_no_more(stand: Stand) -> None:
    one, last = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", head(b"/healthz")
    assert answers(stand, [one * PIPELINED_MAX + last]) == ["200"] * (PIPELINED_MAX + 1)
    assert REFUSED in answers(stand, [one * (PIPELINED_MAX + 100)])
    assert stand.http.get("/healthz").status_code == 200


BIG_BYTES = 64 * 1024 * 1024


async def _small_socket(path: str, receive: Any, send: Any) -> None:
    if path == "/never":
        await asyncio.sleep(6 * QUICK_S)
    await receive()
    await send({"type": "websocket.accept"})
    if path == "/late":
        await asyncio.sleep(3 * QUICK_S)
        await send({"type": "websocket.send", "text": "hi"})
    for _ in range(BIG_BYTES // 65_536 if path == "/big" else 0):
        await send({"type": "websocket.send", "bytes": b"x" * 65_536})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _small_application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await _small_socket(scope["path"], receive, send)
        return
    if scope["path"] == "/late":
        await asyncio.sleep(3 * QUICK_S)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(BIG_BYTES // 65_536 if scope["path"] == "/big" else 1):
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


QUICK_S = 0.5


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits for nobody long."""
    monkeypatch.setattr(http_protocol, "REQUEST_WAIT_S", QUICK_S)
    monkeypatch.setattr(http_protocol, "READER_WAIT_S", QUICK_S)
    monkeypatch.setattr(socket_protocol, "READER_WAIT_S", QUICK_S)
    port = free_port()
    given: dict[str, Any] = {"host": "127.0.0.1", "port": port, "log_config": None, "lifespan": "off"}
    given |= {**socket_protocol.OPTIONS, "ws_ping_interval": 3 * QUICK_S, "ws_ping_timeout": QUICK_S}
    server = uvicorn.Server(uvicorn.Config(_small_application, http=LimitedProtocol, timeout_keep_alive=60, **given))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server to start")
    yield port
    server.should_exit = True
    thread.join(TIMEOUT_S)


def heard(port: int, *parts: bytes) -> bytes:
    """What comes back till the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65_536):
                found += more
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "endless chunks"],
)
def test_who_does_not_finish_his_request_is_sent_away(hasty: int, sent: bytes) -> None:
    assert b" 200 " not in heard(hasty, sent)


def test_who_waits_for_his_answer_is_not_and_may_ask_again_till_he_falls_silent(hasty: int) -> None:
    late, next_one = b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    assert heard(hasty, late, next_one).count(b" 200 ") == 2


def test_who_does_not_read_is_cut_off_in_the_middle(hasty: int) -> None:
    sizes = []
    for pause_s in (6 * QUICK_S, 0):
        with socket.create_connection(("127.0.0.1", hasty), TIMEOUT_S) as connection:
            connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            time.sleep(pause_s)
            size = 0
            with contextlib.suppress(ConnectionResetError):
                while more := connection.recv(1 << 20):
                    size += len(more)
        sizes.append(size)
    slow, quick = sizes
    assert slow < BIG_BYTES < quick


HANDSHAKE = b"GET %s HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
HANDSHAKE += b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
OPENED, ONE_TEXT = b"HTTP/1.1 101 ", b"\x81\x02hi"
PING = b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125
GOES = b"\x88\x82\x00\x00\x00\x00\x03\xe8"


def test_a_socket_outlives_the_waits_for_requests(hasty: int) -> None:
    with socket.create_connection(("127.0.0.1", hasty), TIMEOUT_S) as connection:
        connection.sendall(HANDSHAKE % b"/late")
        found = b""
        while ONE_TEXT not in found:
            more = connection.recv(65_536)
            assert more, found
            found += more
        connection.sendall(GOES)
        while connection.recv(65_536):
            pass
    assert found.startswith(OPENED)


@pytest.mark.parametrize(
    "sent",
    [
        (HANDSHAKE % b"/").replace(b": 13", b": 12"),
        (HANDSHAKE % b"/").replace(b"sec-websocket-key", b"x-nothing"),
        (HANDSHAKE % b"/").replace(b"GET", b"POST"),
        (HANDSHAKE % b"/").replace(b"host: x\r\n", b""),
        HANDSHAKE % (b"/" + b"h" * HEADER_BYTES_MAX),
    ],
    ids=["version", "no key", "POST", "no host", "long"],
)
def test_what_is_no_opening_of_a_socket_is_refused(hasty: int, sent: bytes) -> None:
    assert heard(hasty, sent).startswith(b"HTTP/1.1 4")


def test_a_socket_is_not_opened_while_another_answer_is_on_its_way(hasty: int) -> None:
    before = b"GET /late HTTP/1.1\r\nhost: x\r\n\r\n"
    assert OPENED not in heard(hasty, before + HANDSHAKE % b"/")
    assert OPENED not in heard(hasty, before, HANDSHAKE % b"/")


@pytest.mark.parametrize("path", [b"/big", b"/"])
def test_who_reads_nothing_of_a_socket_is_cut_off(hasty: int, path: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty), TIMEOUT_S) as connection:
        connection.sendall(HANDSHAKE % path)
        with contextlib.suppress(ConnectionError):  # a reset, in the middle of what is said
            while path == b"/":
                connection.sendall(PING * 100)
        time.sleep(6 * QUICK_S)
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(1 << 20):
                size += len(more)
    assert size < BIG_BYTES


def test_who_answers_no_ping_is_gone(hasty: int) -> None:
    found = heard(hasty, HANDSHAKE % b"/")
    assert found.startswith(OPENED)
    assert b"\x03\xf3" in found  # 1011


def test_what_is_said_before_the_opening_is_let_in_is_not_piled_up(hasty: int) -> None:
    with socket.create_connection(("127.0.0.1", hasty), TIMEOUT_S) as connection:
        connection.sendall(HANDSHAKE % b"/never")
        connection.settimeout(QUICK_S)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            while sent < BIG_BYTES:
                sent += connection.send(b"\x82\xfe\xff\xff" * 1_024)
    assert sent < BIG_BYTES

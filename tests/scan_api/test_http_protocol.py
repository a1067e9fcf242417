"""What a stranger sends around the bodies of his requests has an end, and the server lives on."""

import contextlib
import re
import socket
from collections.abc import Iterable, Iterator

import pytest

from scan_api.http_protocol import BESIDE_BODY_BYTES_MAX, HEADER_BYTES_MAX
from scan_api.middleware import BODY_BYTES_MAX
from tests.stand import Stand

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
    assert answers(stand, [one] * 20 + [padded(100)]) == ["200"] * 21


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\x00" * 50])
def test_what_is_no_http_is_refused(stand: Stand, sent: bytes) -> None:
    assert answers(stand, [sent]) == [REFUSED]
    assert stand.http.get("/healthz").status_code == 200

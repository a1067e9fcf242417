"""A TCP proxy on 127.0.0.1 that treats HTTP exchanges as bad networks do, by a seed.

It takes one request a connection, as `offline_sdk.sync` sends them, and does one of the faults to it.
"""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum

HEAD_BYTES_MAX = 64 << 10
SOCKET_TIMEOUT_S = 30.0


class Fault(StrEnum):
    """What may become of one exchange."""

    NONE = "none"
    REFUSED = "refused"
    """The connection is closed before a byte is read."""
    REQUEST_CUT = "request cut"
    """The server gets the beginning of the request, then nothing more."""
    ANSWER_LOST = "answer lost"
    """The server does its work; the client hears nothing of it."""
    ANSWER_CUT = "answer cut"
    """The client gets the beginning of the answer."""
    DELAYED = "delayed"
    DUPLICATED = "duplicated"
    """The server gets the whole request twice at the same time; the client gets either answer."""
    REPLAYED = "replayed"
    """Like NONE, and some earlier request reaches the server once more, before or after this one."""
    PORTAL = "portal"
    """The request goes nowhere; a page of HTML answers 200."""


ODDS_OF_A_BAD_DAY: Mapping[Fault, float] = {
    Fault.NONE: 3,
    Fault.REFUSED: 1,
    Fault.REQUEST_CUT: 1,
    Fault.ANSWER_LOST: 1,
    Fault.ANSWER_CUT: 1,
    Fault.DELAYED: 1,
    Fault.DUPLICATED: 1,
    Fault.REPLAYED: 1,
    Fault.PORTAL: 1,
}
PAGE = b"<html><body>Welcome to Free Wi-Fi. Please sign in.</body></html>"
PORTAL_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)


class FlakyLink:
    """A proxy to 127.0.0.1:`target_port` that listens on `port` (0: any free one) while it is open.

    `odds` weighs the faults against each other; `odds` and `target_port` may be changed at any time. `done` counts
    what was done.
    """

    def __init__(
        self,
        target_port: int,
        seed: int,
        odds: Mapping[Fault, float] = ODDS_OF_A_BAD_DAY,
        delay_s_max: float = 0.05,
        port: int = 0,
    ) -> None:
        self.target_port = target_port
        self.odds = odds
        self.done: Counter[Fault] = Counter()
        self._chance = random.Random(seed)
        self._delay_s_max = delay_s_max
        self._earlier: list[bytes] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening and wait for the exchanges that are under way."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "FlakyLink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                [fault] = self._chance.choices(list(self.odds), list(self.odds.values()))
                # One generator an exchange, so that what a thread draws does not hang on which thread is quicker.
                chance = random.Random(self._chance.getrandbits(64))
                self.done[fault] += 1
            thread = threading.Thread(target=self._exchange, args=(client, fault, chance), daemon=True)
            self._threads = [running for running in self._threads if running.is_alive()] + [thread]
            thread.start()

    def _exchange(self, client: socket.socket, fault: Fault, chance: random.Random) -> None:
        # A client or server that was killed in the middle is what this proxy is for.
        with client, suppress(OSError):
            client.settimeout(SOCKET_TIMEOUT_S)
            if fault is Fault.REFUSED:
                return
            request = _read_request(client)
            if not request:
                return
            answer = self._answer(request, fault, chance)
            if fault is Fault.ANSWER_CUT:
                answer = answer[: chance.randrange(len(answer) or 1)]
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)

    def _answer(self, request: bytes, fault: Fault, chance: random.Random) -> bytes:
        """What the client shall hear, after the server heard what it shall."""
        if fault is Fault.PORTAL:
            return PORTAL_ANSWER
        if fault is Fault.REQUEST_CUT:
            self._send(request[: chance.randrange(1, len(request))], whole=False)
            return b""
        if fault is Fault.DELAYED:
            time.sleep(chance.uniform(0, self._delay_s_max))
        if fault is Fault.DUPLICATED:
            answers = self._send_twice(request)
            return answers[chance.randrange(2)]
        if fault is Fault.REPLAYED:
            return self._send_among_earlier(request, chance)
        answer = self._send(request)
        with self._lock:
            self._earlier.append(request)
        return b"" if fault is Fault.ANSWER_LOST else answer

    def _send_twice(self, request: bytes) -> tuple[bytes, bytes]:
        second: list[bytes] = []

        def send() -> None:
            second.append(b"")
            with suppress(OSError):
                second.append(self._send(request))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            first = self._send(request)
        finally:
            thread.join()
        return first, second[-1]

    def _send_among_earlier(self, request: bytes, chance: random.Random) -> bytes:
        with self._lock:
            earlier = chance.choice(self._earlier or [request])
        if chance.random() < 0.5:
            self._send(earlier)
            return self._send(request)
        answer = self._send(request)
        self._send(earlier)
        return answer

    def _send(self, request: bytes, *, whole: bool = True) -> bytes:
        """Send a request to the server, and return the answer to a whole one."""
        with socket.create_connection(("127.0.0.1", self.target_port), SOCKET_TIMEOUT_S) as server:
            # No signature covers Connection: with it the answer ends where the connection does.
            first_line, _, rest = request.partition(b"\r\n")
            server.sendall(first_line + b"\r\nConnection: close\r\n" + rest if whole else request)
            if not whole:  # uvicorn hangs up on a client that half closes
                server.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: server.recv(64 << 10), b""))


def _read_request(client: socket.socket) -> bytes:
    """One whole request with a Content-Length or without a body; nothing when the client gave up."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(64 << 10)
        received += piece
        if not piece or len(received) > HEAD_BYTES_MAX:
            return b""
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")[1:]
        if line.partition(b":")[0].strip().lower() == b"content-length"
    ]
    missing = (lengths[0] if lengths else 0) - len(body)
    while missing > 0:
        piece = client.recv(missing)
        if not piece:
            return b""
        received += piece
        missing -= len(piece)
    return received


@contextmanager
def link_that_fails_with(target_port: int, fault: Fault) -> Iterator[FlakyLink]:
    """A proxy that always does one fault."""
    with FlakyLink(target_port, seed=0, odds={fault: 1}) as link:
        yield link

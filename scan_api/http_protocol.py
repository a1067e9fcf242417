"""HTTP/1.1 for the server: uvicorn's quick parser, with the limit on what surrounds a body that the parser lacks.

Without it a stranger who sends a head without end, trailers, the framing of chunks or a thousand requests at once would
fill the memory, and who sends nothing, or reads nothing, would hold a connection for ever.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES_MAX = 32 * 1024
"""Of a request's target and of its headers' and trailers' names and values, together."""
BESIDE_BODY_BYTES_MAX = 288 * 1024
"""Of all that a request has outside its body, such as the framing of chunks. It is counted after each read from the
socket, which brings up to 256 KiB."""
PIPELINED_MAX = 16
"""Requests that may wait on one connection while the one before them is answered."""
REQUEST_WAIT_S = 30.0
"""From the opening of a connection, or the end of an answer, to the end of the next request: who is slower, goes."""
READER_WAIT_S = 20.0
"""How long a client may leave what was sent to him unread."""


class HeadTooLong(Exception):
    """Raised in the parser, which answers 400 and closes the connection."""


class TooManyRequests(Exception):
    """Raised in the parser likewise."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    _beside_body_bytes = 0
    """What was read since the last request ended, without its body."""
    _request_due: asyncio.TimerHandle | None = None
    _reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        for due in (self._request_due, self._reading_due):
            if due is not None:
                due.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self.loop.call_later(READER_WAIT_S, self.transport.abort)

    def resume_writing(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        if self._request_due is not None:
            self._request_due.cancel()
        self._request_due = self.loop.call_later(REQUEST_WAIT_S, self._request_missed)

    def _request_missed(self) -> None:
        # Who waits for his answer has done his part.
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._await_request()
        else:
            self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        # Who is still being answered, or leaves an answer unread, would be lost sight of.
        is_answering = self.cycle is not None and not self.cycle.response_complete
        most = self.limit_concurrency
        if is_answering or self.flow.write_paused:
            self.transport.close()
        elif most is not None and (len(self.connections) >= most or len(self.tasks) >= most):
            self.transport.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
        else:
            self._stop_waiting()
            super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._beside_body_bytes += len(data)
        super().data_received(data)
        if self._beside_body_bytes > BESIDE_BODY_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("The head of this request is too long.")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            raise TooManyRequests
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._beside_body_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._beside_body_bytes = 0
        super().on_message_complete()

    def _count_head(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > HEADER_BYTES_MAX:
            raise HeadTooLong

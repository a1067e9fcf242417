"""HTTP/1.1 for the server: uvicorn's quick parser, with the limit on what surrounds a body that the parser lacks.

Without it a stranger who sends a head without end, or trailers or the framing of chunks, would fill the memory.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES_MAX = 32 * 1024
"""Of a request's target and of its headers' and trailers' names and values, together."""
BESIDE_BODY_BYTES_MAX = 288 * 1024
"""Of all that a request has outside its body, such as the framing of chunks. It is counted after each read from the
socket, which brings up to 256 KiB."""


class HeadTooLong(Exception):
    """Raised in the parser, which answers 400 and closes the connection."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    _beside_body_bytes = 0
    """What was read since the last request ended, without its body."""

    def data_received(self, data: bytes) -> None:
        self._beside_body_bytes += len(data)
        super().data_received(data)
        if self._beside_body_bytes > BESIDE_BODY_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("The head of this request is too long.")

    def on_message_begin(self) -> None:
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

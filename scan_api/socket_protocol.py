"""Websockets for the server (RFC 6455): uvicorn's protocol over wsproto, with the limits that it lacks.

Without them a client who reads nothing, or whose pings want answers that he does not read, would fill the memory.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import CloseConnection, Request

MESSAGE_BYTES_MAX: Final = 4 * 1024
"""Of what a client says in one message; a longer one closes the socket (1009) while it arrives."""
PING_EVERY_S: Final = 20.0
PONG_WAIT_S: Final = 20.0
"""Who does not answer a ping for so long is gone (1011)."""
READER_WAIT_S = 60.0
"""How long a client may leave unread what was sent to him: 64 KiB and the rest of one message. Then he is cut off."""
GOING_AWAY: Final = 1001
"""What a server that stops closes with (RFC 6455, 7.4.1)."""

# uvicorn tells at level INFO of every opening, with its path; that of an inner code is a secret.
_log = logging.getLogger(__name__)
_log.setLevel(logging.WARNING)


class LimitedSocket(WSProtocol):
    """One connection that became a websocket, or asks to."""

    _reading_due: asyncio.TimerHandle | None = None

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.logger = _log

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # Nothing may be said before the answer, and the parser would keep all of it. To receive reads on.
        self.read_paused = True
        self.transport.pause_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self.loop.call_later(READER_WAIT_S, self.transport.abort)
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def shutdown(self) -> None:
        if not self.handshake_complete or self.close_sent or self.response_started or self.transport.is_closing():
            super().shutdown()
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY})
        self.transport.write(self.conn.send(CloseConnection(code=GOING_AWAY, reason="the server stops")))
        self.transport.close()


OPTIONS: Final[Mapping[str, Any]] = {
    "ws": LimitedSocket,
    "ws_max_size": MESSAGE_BYTES_MAX,
    "ws_ping_interval": PING_EVERY_S,
    "ws_ping_timeout": PONG_WAIT_S,
    # A compressor would hold 300 KiB for every socket.
    "ws_per_message_deflate": False,
}
"""What uvicorn is told of websockets."""

"""How the simulated provider calls back: signed, again when nobody takes it, and never in a good order."""

import hashlib
import hmac
import time
import urllib.error
import urllib.request

from loadtest.carrier_book import OrderBook

TIMEOUT_S = 10.0
TRIES_MAX = 20
_REDIRECTS = 300


class CallbackPost:
    """Sends the callbacks that the book owes. Without a URL they are kept for ever."""

    def __init__(self, book: OrderBook, url: str, secret: str) -> None:
        self._book = book
        self._url = url
        self._secret = secret
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def deliver(self) -> None:
        """Send everything that is due, once or twice each."""
        if not self._url:
            return
        for callback in self._book.due_callbacks():
            body = callback["body"].encode()
            taken = [self._send(callback["event_id"], body) for _copy in range(callback["copies"])]
            self._book.callback_sent(callback["event_id"], taken=all(taken), tries_max=TRIES_MAX)

    def _send(self, event_id: str, body: bytes) -> bool:
        timestamp = str(int(time.time()))
        message = b".".join((timestamp.encode(), event_id.encode(), body))
        signature = hmac.new(self._secret.encode(), message, hashlib.sha256).hexdigest()
        request = urllib.request.Request(  # noqa: S310 - the URL is this process's own argument
            self._url,
            data=body,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "Fanxing-Timestamp": timestamp,
                "Fanxing-Event-Id": event_id,
                "Fanxing-Signature": f"v1={signature}",
            },
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return int(answer.status) < _REDIRECTS
        except (urllib.error.URLError, OSError):
            return False

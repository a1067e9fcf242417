"""Sync: brings a device's scans to its server and news of trust back, over links that fail.

Requests are signed with the device's key by HTTP Message Signatures (RFC 9421). The protocol: docs/scanner-api.md.
"""

import base64
import gzip
import http.client
import json
import random
import re
import secrets
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ED25519

from . import cose
from .device import Device, Enrolment, EnrolmentText, checked_server
from .errors import DeviceRevoked, SyncFailed
from .journal import Answer, Clock, Journal, Moment, Record, Status, read_clock

BATCH_RECORDS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 200 << 10
"""Of a batch as sent: 500 records of the largest fields stay below it."""
ANSWER_BYTES_MAX: Final = 256 << 10
TRUST_BYTES_MAX: Final = cose.DOCUMENT_BYTES_MAX + (1 << 20)
"""The largest bundle, and many root documents before it."""
STEP_TIMEOUT_S: Final = 15.0
"""For connecting, and for each piece that is sent or received."""
EXCHANGE_TIMEOUT_S: Final = 120.0
"""For a whole request and its answer, however busily they trickle."""
PIECE_BYTES: Final = 64 << 10
"""Of an answer that comes in chunks, read at a time."""
TIME_MAX_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z in unix milliseconds."""
RETRY_AFTER_S_MAX: Final = 3600.0
TAG: Final = "fanxing-device"
LABEL: Final = "sig1"
NONCE_BYTES: Final = 16

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"  # RFC 9457, 6.1
_TRUST: Final = "application/cbor-seq"
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_TIME_MS: Final = re.compile(r"[0-9]{1,15}")
_NEXT_STEP: Final = {
    "EnrolmentCodeInvalid": "the code is unknown or has expired: check it, or ask for a new invitation",
    "EnrolmentCodeUsed": "another device has used the code: tell the administrator, and ask for a new invitation",
}
"""What to do about a refusal that waiting does not mend."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of a server. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body read as JSON. Raises SyncFailed when it is not."""
        return self._read(_JSON)

    def _read(self, media_type: str) -> Any:
        with suppress(ValueError, RecursionError):
            if self.media_type == media_type:
                return json.loads(self.body.decode("utf-8"))
        raise SyncFailed("what answered is not the Fanxing server; does this network ask for a sign-in first?")

    @property
    def error_code(self) -> str | None:
        """The code of a refusal, a problem with the member `code` (RFC 9457), or None."""
        with suppress(SyncFailed, KeyError, TypeError):
            code = self._read(_PROBLEM)["code"]
            if isinstance(code, str) and _CODE.fullmatch(code):
                return code
        return None


class Link:
    """The way to one server. It keeps how far the server's clock is from the device's, in memory only.

    `server` is an https URL; http is taken for this machine, or for any with `insecure`. Certificates are verified by
    `tls`, by default against the system's authorities. Raises EnrolmentInvalid for another URL.
    """

    def __init__(
        self,
        server: str,
        *,
        insecure: bool = False,
        tls: ssl.SSLContext | None = None,
        clock: Clock = read_clock,
        step_timeout_s: float = STEP_TIMEOUT_S,
        exchange_timeout_s: float = EXCHANGE_TIMEOUT_S,
    ) -> None:
        self.server = checked_server(server, insecure=insecure)
        self.clock_offset_ms: int | None = None
        """The server's clock less the device's, as of the last answer; None before the first."""
        parts = urlsplit(self.server)
        self._host = parts.hostname or ""
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._clock = clock
        self._step_timeout_s = step_timeout_s
        self._exchange_timeout_s = exchange_timeout_s

    def get(self, path: str, bytes_max: int) -> Reply:
        """Ask for a path with its query, unsigned. Raises SyncFailed."""
        return self._exchange(_Message("GET", self.server + path, {}), None, bytes_max)

    def post(self, device: Device, keyid: str, path: str, body: Mapping[str, Any]) -> Reply:
        """Send a body as JSON, packed by gzip and signed by the device, and return what the server answers.

        Sent once more when the server finds the signature's time too far from its own. Raises SyncFailed, and
        DeviceRevoked when the server says so.
        """
        content = gzip.compress(json.dumps(body, separators=(",", ":")).encode(), mtime=0)
        assert len(content) <= BATCH_BYTES_MAX
        reply = self._exchange(self._signed(device, keyid, path, content), content, ANSWER_BYTES_MAX)
        if reply.status == 401 and reply.error_code == "SignatureClockSkewed":
            reply = self._exchange(self._signed(device, keyid, path, content), content, ANSWER_BYTES_MAX)
        if reply.status == 403 and reply.error_code == "DeviceRevoked":
            raise DeviceRevoked(f"{self.server} has revoked this device; keep its journal and ask who runs the server")
        return reply

    def refused(self, reply: Reply) -> SyncFailed:
        """The error for an answer that nobody hoped for."""
        code = reply.error_code
        said = f"status {reply.status}" if code is None else f"status {reply.status}, {code}"
        after = reply.headers.get("retry-after", "")
        wait_s = min(float(after), RETRY_AFTER_S_MAX) if _SECONDS.fullmatch(after) else None
        next_step = _NEXT_STEP.get(code or "", "nothing is lost, try again later")
        return SyncFailed(f"{self.server} answered with {said}; {next_step}", code, wait_s)

    def _signed(self, device: Device, keyid: str, path: str, content: bytes) -> "_Message":
        """A POST with its RFC 9421 signature, made at the server's time as far as it is known."""
        # The offset may be a stranger's word: with the device's clock it must still be a time, or no request went out.
        now_ms = self._clock().wall_ms + (self.clock_offset_ms or 0)
        message = _Message(
            "POST", self.server + path, {"Content-Type": _JSON, "Content-Encoding": "gzip", "Accept": _JSON}
        )
        signer = HTTPMessageSigner(
            signature_algorithm=ED25519,
            key_resolver=MappingKeyResolver(public_keys={}, private_keys={keyid: device.key}),
        )
        signer.sign(
            message,
            key_id=keyid,
            created=datetime.fromtimestamp(min(max(now_ms, 0), TIME_MAX_MS) // 1000, UTC),
            nonce=base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode("ascii"),
            label=LABEL,
            tag=TAG,
            covered_component_ids=("@method", "@path", "content-digest", "content-type", "content-encoding"),
            body=content,
        )
        return message

    def _exchange(self, message: "_Message", content: bytes | None, bytes_max: int) -> Reply:
        try:
            with self._connection() as connection:
                connection.request(message.method, message.url[len(self.server) :], content, message.headers)
                reply = _whole(connection.getresponse(), bytes_max)
        # What http.client makes of a stranger's bytes, and the resolver of a name, may be a plain ValueError.
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SyncFailed(f"{self.server} was not reached ({reason}); nothing is lost, try again later") from error
        server_ms = reply.headers.get("fanxing-time", "")
        if _TIME_MS.fullmatch(server_ms) and int(server_ms) <= TIME_MAX_MS:
            self.clock_offset_ms = int(server_ms) - self._clock().wall_ms
        return reply

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = (
            http.client.HTTPConnection(self._host, self._port)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, context=self._tls)
        )
        raw = socket.create_connection((self._host, self._port), self._step_timeout_s)
        with _ended_after(raw, self._exchange_timeout_s):
            try:
                connection.sock = raw if self._tls is None else self._tls.wrap_socket(raw, server_hostname=self._host)
                yield connection
            finally:
                connection.close()
                raw.close()


@dataclass
class _Message:
    """A request in the form that the signing library takes."""

    method: str
    url: str
    headers: dict[str, str]


@contextmanager
def _ended_after(raw: socket.socket, seconds: float) -> Iterator[None]:
    """Cut the connection when it is still in use so much later: a socket's timeout begins anew with each byte."""
    switch = raw.dup()

    def cut() -> None:
        with suppress(OSError):
            switch.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        switch.close()


def _whole(response: http.client.HTTPResponse, bytes_max: int) -> Reply:
    """Read an answer to its end. Raises HTTPException when it is cut, too long, or does not tell where it ends."""
    if response.chunked:
        body = _chunks(response, bytes_max)
    elif response.length is None or response.length > bytes_max:
        raise http.client.HTTPException("no length, or a length above what is taken")
    else:
        body = response.read()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def _chunks(response: http.client.HTTPResponse, bytes_max: int) -> bytes:
    # In pieces: `read` takes a chunk's length as it is told, and reads whatever comes when that is below 0.
    body = bytearray()
    while piece := response.read1(PIECE_BYTES):
        body += piece
        if len(body) > bytes_max:
            raise http.client.HTTPException("longer than what is taken")
    return bytes(body)


def enrol(link: Link, device: Device, text: EnrolmentText, name: str) -> Enrolment:
    """Enrol a device by an enrolment text, and keep what the server says.

    Repeat it with the same text when the answer is lost. Raises EnrolmentInvalid, SyncFailed (`server_code`
    EnrolmentCodeInvalid, EnrolmentCodeUsed or TooManyEnrolments when the server refused), PinMismatch.
    """
    reply = link.post(device, device.public_key, "/v1/devices", device.enrolment_request(text, name))
    if reply.status not in (200, 201):
        raise link.refused(reply)
    return device.keep_enrolment(text, name, reply.json())


def fetch_trust(link: Link, root_version: int | None, seq: int | None) -> bytes | None:
    """Fetch what is newer than this root version and bundle, or everything; None when nothing is.

    What it returns is as untrusted as a file from a stranger: give it to TrustStore.update. Raises SyncFailed.
    """
    known = {"root": root_version, "seq": seq}
    query = urlencode({name: value for name, value in known.items() if value is not None})
    reply = link.get(f"/v1/trust?{query}" if query else "/v1/trust", TRUST_BYTES_MAX)
    if reply.status == 204:
        return None
    if reply.status != 200:
        raise link.refused(reply)
    if reply.media_type != _TRUST:
        raise SyncFailed("what answered is not the Fanxing server; does this network ask for a sign-in first?")
    return reply.body


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of one batch: records by the server's answer, refusals by their code, and how many still wait."""

    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0

    @property
    def sent(self) -> int:
        """Records in the batch."""
        return self.accepted + self.duplicate + self.refused


class Sync:
    """Brings a journal's records to the server where the device is enrolled. Its threads may share it.

    Raises NotEnrolled for a device that is not, and EnrolmentInvalid for a server that Link does not take.
    """

    def __init__(self, device: Device, journal: Journal, link: Link | None = None) -> None:
        self._device = device
        self._journal = journal
        self.link = link or Link(device.enrolment.server, clock=journal.now)
        self._device_id = device.enrolment.device_id
        self._revoked: DeviceRevoked | None = None
        self._lock = threading.Lock()

    def push(
        self, bundle_seq: int | None = None, root_version: int | None = None, *, also_empty: bool = False
    ) -> Pushed:
        """Send the oldest batch that waits, and keep the answers.

        With nothing waiting nothing is sent, unless `also_empty`: a sign of life, so that the list of devices tells a
        quiet scanner from a lost one.

        `bundle_seq` and `root_version` tell the server what the device trusts now. Raises SyncFailed, with which
        nothing has changed here, and DeviceRevoked, from then on without asking again.
        """
        with self._lock:
            if self._revoked is not None:
                raise self._revoked
            records = self._journal.waiting_records(BATCH_RECORDS_MAX)
            if not records and not also_empty:
                return Pushed()
            body = self._batch(records, bundle_seq, root_version)
            try:
                reply = self.link.post(self._device, self._device_id, f"/v1/devices/{self._device_id}/scans", body)
            except DeviceRevoked as revoked:
                self._revoked = revoked
                raise
            if reply.status != 200:
                raise self.link.refused(reply)
            answers = _answers(reply.json(), records)
            if answers:
                self._journal.keep_answers(answers)
        statuses = Counter(answer.status for answer in answers)
        return Pushed(
            statuses[Status.ACCEPTED],
            statuses[Status.DUPLICATE],
            statuses[Status.REFUSED],
            Counter(answer.error for answer in answers if answer.error is not None),
            self._journal.waiting,
        )

    def _batch(self, records: tuple[Record, ...], bundle_seq: int | None, root_version: int | None) -> dict[str, Any]:
        now = self._journal.now()
        return {
            "journal": self._journal.journal_id,
            "device_time_ms": now.wall_ms,
            "bundle_seq": bundle_seq,
            "root_version": root_version,
            "waiting": self._journal.waiting,
            "records": [_as_json(record, now) for record in records],
        }


def _as_json(record: Record, now: Moment) -> dict[str, Any]:
    scan = record.scan
    return {
        "number": record.number,
        "at_ms": record.moment.wall_ms,
        "elapsed_ms": now.ms_since(record.moment),
        "verdict": scan.verdict,
        "error": scan.error,
        "profile": scan.profile,
        "kid": scan.kid,
        "gtin": scan.gtin,
        "serial": scan.serial,
        "bundle_seq": scan.bundle_seq,
        "bundle_state": scan.bundle_state,
        "clock_suspect": scan.clock_suspect,
    }


def _answers(body: Any, records: tuple[Record, ...]) -> list[Answer]:
    """Read one answer a record, in the records' order. Raises SyncFailed for anything else."""
    with suppress(KeyError, TypeError, ValueError):
        answers = [_answer(fields) for fields in body["answers"]]
        is_timed = type(body["server_time_ms"]) is int
        if is_timed and [answer.number for answer in answers] == [record.number for record in records]:
            return answers
    raise SyncFailed("the server's answer has not the form that was agreed; nothing is lost, update this program")


def _answer(fields: Any) -> Answer:
    number, status, error = fields["number"], Status(fields["status"]), fields["error"]
    if status is Status.REFUSED:
        is_right = isinstance(error, str) and _CODE.fullmatch(error) is not None
    else:
        is_right = error is None
    if not is_right or type(number) is not int:
        raise ValueError
    return Answer(number, status, error)


class Backoff:
    """How long to wait after failures: twice as long each time, up to a most, a random half to whole of it.

    Random, so that the scanners of a chain do not all come back in the second that its network does.
    """

    def __init__(
        self, first_s: float = 2.0, most_s: float = 600.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._chance = chance
        self._failures = 0

    def failed(self, retry_after_s: float | None = None) -> float:
        """Seconds to wait now, no fewer than the server asked for."""
        longest_s = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return max(longest_s * (1 + self._chance()) / 2, retry_after_s or 0.0)

    def succeeded(self) -> None:
        """Begin anew from the shortest wait."""
        self._failures = 0

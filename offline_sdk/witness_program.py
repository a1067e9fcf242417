"""fanxing-witness: an independent witness of transparency logs, over HTTP (C2SP tlog-witness).

Its folder has its private key, and the head of each log that it cosigned last. A head is on the disk before the
cosignature leaves, so that no crash makes it cosign two histories.
"""

import argparse
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NoReturn

from nacl.signing import SigningKey

from . import program
from .errors import LogError, LogMalformed, WitnessUnusable
from .transparency.checkpoint import LINE_CHARS_MAX, Checkpoint
from .transparency.note import (
    KEY_CHARS_MAX,
    SignatureType,
    VerifierKey,
    decode_base64,
    decode_text,
    encode_base64,
)
from .transparency.witness import ANSWER_TEXT, REQUEST_BYTES_MAX, Answer, Head, Witness

EXIT_DONE: Final = 0
EXIT_UNUSABLE: Final = 2

KEY_FILE: Final = "witness.key"
HEADS_FILE: Final = "heads.json"
LOCK_FILE: Final = "lock"
SUBMISSION_PATH: Final = "/add-checkpoint"
LOGS_MAX: Final = 1_000
HEADS_BYTES_MAX: Final = LOGS_MAX * 6 * LINE_CHARS_MAX
CONNECTIONS_MAX: Final = 64
SILENCE_S_MAX: Final = 10
"""How long a client may leave a connection without a byte."""
PORT_DEFAULT: Final = 8090

_KEY_PREFIX: Final = "PRIVATE+KEY+"
_SEED_BYTES: Final = 32
_FORMAT: Final = "fanxing-witness-1"
_EPILOG: Final = """\
commands:
  init   make the folder with a new private key, which its owner alone can read, and print the verifier key
  serve  answer POST /add-checkpoint of the logs whose verifier keys are given, until SIGTERM or SIGINT

exit status:
  0  done
  2  bad usage, or the folder cannot be used or is in use; the reason is on stderr

Give the verifier key to who shall trust the witness. Keep the folder: a witness that forgot what it cosigned must not
go on with the same key. There is no TLS here: on a public address put a proxy before it.
"""


def run() -> NoReturn:
    """Run the program on the process's own arguments and streams, and exit."""
    os.umask(0o077)  # what the witness writes is for its user alone
    program.run(main)


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments ask and return the exit status; argparse exits by itself on bad usage (status 2)."""
    wanted = _parser().parse_args(arguments)
    try:
        if wanted.command == "init":
            print(init(wanted.folder, wanted.name))
        else:
            _serve(wanted.folder, tuple(map(VerifierKey.read, wanted.log)), wanted.host, wanted.port)
    except LogError as error:
        return _unusable(f"{error.code}: {error.message}")
    except BrokenPipeError:
        raise
    except OSError as error:
        return _unusable(f"{error.filename or wanted.folder}: {error.strerror or error}")
    return EXIT_DONE


def init(folder: Path, name: str) -> VerifierKey:
    """Make a witness's folder with a new private key. Raises WitnessUnusable where there is a key already."""
    signing = SigningKey.generate()
    key = VerifierKey(name, SignatureType.COSIGNATURE, bytes(signing.verify_key))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder):
        if (folder / KEY_FILE).exists():
            raise WitnessUnusable(f"{folder} is a witness's already; choose another folder")
        # The key comes last: a folder without it was never a witness's, and a new key may begin with no heads.
        _write(folder / HEADS_FILE, _heads_written({}))
        secret = encode_base64(bytes([key.type]) + bytes(signing))
        _write(folder / KEY_FILE, f"{_KEY_PREFIX}{name}+{key.id.hex()}+{secret}\n".encode())
    return key


class Service:
    """A witness with its folder: one request at a time is judged, kept and answered."""

    def __init__(self, folder: Path, logs: Sequence[VerifierKey]) -> None:
        if len(logs) > LOGS_MAX:
            raise WitnessUnusable(f"a witness follows at most {LOGS_MAX} logs")
        signing, key = _load_key(folder / KEY_FILE)
        heads = _load_heads(folder / HEADS_FILE)
        self._folder = folder
        self._turn = threading.Lock()
        self._witness = Witness(key, lambda message: signing.sign(message).signature, tuple(logs), heads)

    @property
    def key(self) -> VerifierKey:
        """The witness's verifier key."""
        return self._witness.key

    def add_checkpoint(self, body: bytes) -> Answer:
        """Judge a request, and have what it changes on the disk before returning. Raises OSError."""
        with self._turn:
            answer = self._witness.add_checkpoint(body, int(time.time()))
            if answer.heads is not self._witness.heads:
                _write(self._folder / HEADS_FILE, _heads_written(answer.heads))
                self._witness = self._witness.following(answer.heads)
        return answer


class _Server(ThreadingHTTPServer):
    """Serves a bounded number of connections at a time; further ones are closed at once."""

    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], service: Service) -> None:
        self.service = service
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is nothing to tell of
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Reads one request after another from a connection, and answers."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "fanxing-witness"
    sys_version = ""
    timeout = SILENCE_S_MAX
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != SUBMISSION_PATH:
            self._refuse(HTTPStatus.NOT_FOUND, f"post to {SUBMISSION_PATH}")
        elif not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "say the length of the body")
        elif len(length) > 9 or int(length) > REQUEST_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {REQUEST_BYTES_MAX} bytes")
        else:
            self._add_checkpoint(self.rfile.read(int(length)), int(length))

    def do_GET(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"post to {SUBMISSION_PATH}", {"Allow": "POST"})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests: who runs the witness has the proxy's log."""

    def _add_checkpoint(self, body: bytes, length: int) -> None:
        if len(body) < length:
            self.close_connection = True
            return
        try:
            answer = self.server.service.add_checkpoint(body)
        except OSError as error:
            print(f"fanxing-witness: cannot keep a head: {error}", file=sys.stderr, flush=True)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the witness cannot write; try again later")
            return
        self._answer(answer.status, answer.content_type, answer.body)

    def _refuse(self, status: HTTPStatus, why: str, headers: Mapping[str, str] | None = None) -> None:
        # What was sent of a body was not read, so nothing that follows could be told from it.
        self.close_connection = True
        self._answer(status, ANSWER_TEXT, f"{why}\n".encode(), {**(headers or {}), "Connection": "close"})

    def _answer(
        self, status: HTTPStatus, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _serve(folder: Path, logs: Sequence[VerifierKey], host: str, port: int) -> None:
    import signal  # noqa: PLC0415 - only a main thread may

    with _locked(folder):
        service = Service(folder, logs)
        with _Server((host, port), service) as server:
            signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
            told_host, told_port = server.server_address[:2]
            print(f"{service.key} at http://{told_host!s}:{told_port}{SUBMISSION_PATH}", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever()


def _load_key(path: Path) -> tuple[SigningKey, VerifierKey]:
    unusable = WitnessUnusable(f"{path} holds no key of a witness; move the folder away and begin a new witness")
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise WitnessUnusable(f"other users can read {path}; the key is not secret any more, so make a new one")
            text = decode_text(file.read(KEY_CHARS_MAX + 1), KEY_CHARS_MAX, "a private key").removesuffix("\n")
    except FileNotFoundError:
        raise WitnessUnusable(f"{path} is not there; run fanxing-witness init") from None
    except LogMalformed:
        raise unusable from None
    try:
        name, key_id, secret = text.removeprefix(_KEY_PREFIX).split("+", 2)
        content = decode_base64(secret, "a private key")
        signing = SigningKey(content[1:])
        key = VerifierKey(name, SignatureType(content[0]), bytes(signing.verify_key))
    except (ValueError, IndexError, LogMalformed):
        raise unusable from None
    if not text.startswith(_KEY_PREFIX) or key.id.hex() != key_id or key.type is not SignatureType.COSIGNATURE:
        raise unusable
    return signing, key


def _load_heads(path: Path) -> dict[str, Head]:
    """The heads that were cosigned last. A witness that does not know them must not cosign, so nothing is made up."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(HEADS_BYTES_MAX))
        if content["format"] != _FORMAT:
            raise ValueError
        heads = {}
        for origin, kept in content["heads"].items():
            checkpoint = Checkpoint(origin, kept["size"], decode_base64(kept["root"], "a root"))
            heads[origin] = Head(checkpoint.size, checkpoint.root)
    except FileNotFoundError:
        raise WitnessUnusable(f"{path} is not there, so what was cosigned is not known; begin a new witness") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, LogMalformed):
        raise WitnessUnusable(f"{path} is damaged, so what was cosigned is not known; begin a new witness") from None
    return heads


def _heads_written(heads: Mapping[str, Head]) -> bytes:
    kept = {origin: {"size": head.size, "root": encode_base64(head.root)} for origin, head in heads.items()}
    return (json.dumps({"format": _FORMAT, "heads": kept}, indent=1) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Replace a file so that the old or the new one is there whole, and on the disk, whenever the machine dies."""
    beside = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Have the folder alone: two programs would cosign two histories. Raises WitnessUnusable."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WitnessUnusable(f"another fanxing-witness works in {folder}") from None
        yield
    finally:
        os.close(descriptor)


def _unusable(reason: str) -> int:
    print(f"fanxing-witness: {reason}", file=sys.stderr)
    return EXIT_UNUSABLE


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise ValueError
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanxing-witness",
        description="An independent witness of transparency logs, over HTTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    init_ = commands.add_parser("init", description="Make a witness's folder and private key.")
    serve = commands.add_parser("serve", description="Answer logs that ask for cosignatures.")
    for command in (init_, serve):
        command.add_argument("folder", metavar="FOLDER", type=Path, help="the witness's folder")
    init_.add_argument("--name", required=True, help="the witness's name, such as witness.example.org/w1")
    serve.add_argument(
        "--log", metavar="KEY", action="append", required=True, help="the verifier key of a log; may be repeated"
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, default=PORT_DEFAULT, help=f"the port (default: {PORT_DEFAULT}; 0: any)")
    return parser


if __name__ == "__main__":
    run()

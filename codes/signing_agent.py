"""The signing agent: signs for workers that hold no key, each for the one order and the ranges that a run leased it.

It listens on a Unix socket of its machine and forks a process for each connection, so that as many cores sign as
there are workers. A client shows its run's lease secret, 32 bytes, and then asks for sections of the run:

    request    u8 face | u64 first issue index | u32 count                                (big-endian)
    answer     u8 0 | count × u32 item number | count × 64-byte signature
               u8 1 | u32 length | JSON {"code", "message"}: nothing was signed

The secret itself is answered by an empty section: u8 0. Whatever a worker does, it gets no more than the signatures
that its run was to make: the agent computes the item numbers itself, and looks at the lease in the database each time.
"""

import asyncio
import json
import os
import signal
import socket
import socketserver
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from codes import runs
from codes.orders import CodeOrder, scheme_of_order
from codes.pipeline import Recipe, Sign, Signed
from codes.runs import RunSpec
from codes.signing import CustodyAccess
from kit.clock import Clock
from kit.db import Database
from kit.errors import Conflict, FanxingError, Forbidden, Unavailable
from kit.vault import Vault
from offline_sdk.code_text import ORDER_DIGITS, SIGNATURE_BYTES, Profile
from signer.keys import SigningKey
from signer.service import SigningAccess

SECRET_BYTES = 32
SECTION_ITEMS_MAX = 100_000
CONNECTIONS_MAX = 256
ANSWER_S_MAX = 120
"""How long a worker waits for the agent: to sign the largest section takes a few seconds."""
IDLE_S_MAX = 3_600
STOP_S_MAX = 0.2
"""How long an agent that is told to end goes on waiting for a connection."""
_REQUEST = Struct(">BQI")
_LENGTH = Struct(">I")
_SIGNED, _REFUSED = b"\0", b"\1"
_REFUSAL_BYTES_MAX = 65_536


class LeaseRefused(Forbidden):
    code = "LeaseRefused"


class AgentMissing(Unavailable):
    code = "AgentMissing"


class AgentRunning(Conflict):
    code = "AgentRunning"


class SigningRefused(Unavailable):
    code = "SigningRefused"


@dataclass(frozen=True, slots=True)
class LeasedSigner:
    """How a worker without keys signs: through the agent of its machine, for one run."""

    path: Path
    secret: bytes = field(repr=False)

    def signer(self, recipe: Recipe) -> Sign:
        """Raises AgentMissing when nobody listens, SigningRefused when the lease is not, or no longer, good."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S_MAX)
        try:
            connection.connect(str(self.path))
        except OSError as error:
            connection.close()
            raise AgentMissing(
                f"no signing agent at {self.path}: {error.strerror or error}", hint="`fanxing signer agent` starts one."
            ) from None
        stream = connection.makefile("rwb")
        connection.close()  # the stream keeps it open, for as long as somebody can sign through it
        prefix = f"{recipe.order_number:0{ORDER_DIGITS}d}"

        def exactly(count: int) -> bytes:
            try:
                content = stream.read(count)
            except OSError as error:
                raise AgentMissing(f"the signing agent at {self.path} does not answer: {error}") from None
            if len(content) < count:
                raise AgentMissing(f"the signing agent at {self.path} ended")
            return content

        def ask(request: bytes) -> None:
            try:
                stream.write(request)
                stream.flush()
            except OSError as error:
                raise AgentMissing(f"the signing agent at {self.path} ended: {error}") from None
            if exactly(1) != _SIGNED:
                (length,) = _LENGTH.unpack(exactly(_LENGTH.size))
                refusal = json.loads(exactly(min(length, _REFUSAL_BYTES_MAX)))
                raise SigningRefused(f"the signing agent refused, {refusal['code']}: {refusal['message']}")

        def sign(face: Profile, start: int, count: int) -> Signed:
            ask(_REQUEST.pack(int(face), start, count))
            numbers = np.frombuffer(exactly(4 * count), dtype=">u4").tolist()
            signatures = exactly(SIGNATURE_BYTES * count)
            return Signed(
                [f"{prefix}{number:09d}" for number in numbers],
                [signatures[at : at + SIGNATURE_BYTES] for at in range(0, len(signatures), SIGNATURE_BYTES)],
            )

        try:
            ask(self.secret)
        except BaseException:
            stream.close()
            raise
        return sign


@dataclass(frozen=True)
class SigningRoom:
    """What the agent signs with: the database that knows the leases, the vault of the serial keys, the private keys."""

    database_url: str = field(repr=False)  # it may hold the database's password
    vault: Vault
    custody: SigningAccess
    clock: Clock


class _Grant:
    """What one connection may have signed."""

    def __init__(self, room: SigningRoom, secret: bytes) -> None:
        self._room = room
        self._secret = secret
        self._database = Database(room.database_url)
        self._runner = asyncio.Runner()
        self._sign, self._spec = self._runner.run(self._open())

    async def _open(self) -> tuple[Sign, RunSpec]:
        async with self._database.reading() as session:
            run = await runs.run_leased_to(session, self._secret, self._room.clock())
            if run is None:
                raise LeaseRefused("no run has this lease now")
            order = await session.get_one(CodeOrder, run.order_id)
            key = await session.get_one(SigningKey, order.kid)
            scheme = await scheme_of_order(session, self._room.vault, order)
        sign = CustodyAccess(self._room.custody, key, scheme).signer(order.recipe)
        return sign, RunSpec.from_text(run.spec)

    def sign(self, face: int, start: int, count: int) -> Signed:
        """Raises LeaseRefused for a section that is none of the run's, or when its lease is over."""
        inside = any(first <= start and start + count - 1 <= last for first, last in self._spec.ranges)
        if face not in self._spec.faces or not 1 <= count <= SECTION_ITEMS_MAX or not inside:
            raise LeaseRefused("the lease does not cover these items")
        if not self._runner.run(self._still_leased()):
            raise LeaseRefused("the lease is over")
        return self._sign(Profile(face), start, count)

    async def _still_leased(self) -> bool:
        async with self._database.reading() as session:
            leased = await runs.run_leased_to(session, self._secret, self._room.clock()) is not None
        await self._database.close()  # a process for each worker must not be a connection for each, for hours
        return leased

    def close(self) -> None:
        self._runner.run(self._database.close())
        self._runner.close()


class _Handler(socketserver.StreamRequestHandler):
    timeout = IDLE_S_MAX
    server: "SigningAgent"

    def handle(self) -> None:
        # This process was forked for one connection. While it held the agent's own socket too, an agent that was killed
        # would seem to be there: its successor would be refused, and workers would wait for it.
        self.server.socket.close()
        try:
            self._serve()
        except SQLAlchemyError as error:
            self._refuse(Unavailable(f"the agent's database does not answer: {type(error).__name__}"))
        except OSError:
            pass  # the worker is gone

    def _serve(self) -> None:
        secret = self.rfile.read(SECRET_BYTES)
        if len(secret) < SECRET_BYTES:
            return
        try:
            grant = _Grant(self.server.room, secret)
        except FanxingError as error:
            self._refuse(error)
            return
        self.wfile.write(_SIGNED)
        try:
            while len(request := self.rfile.read(_REQUEST.size)) == _REQUEST.size:
                self._answer(grant, *_REQUEST.unpack(request))
        finally:
            grant.close()

    def _answer(self, grant: _Grant, face: int, start: int, count: int) -> None:
        try:
            signed = grant.sign(face, start, count)
        except FanxingError as error:
            self._refuse(error)
            return
        numbers = np.array([int(serial[ORDER_DIGITS:]) for serial in signed.serials], dtype=">u4")
        self.wfile.write(b"".join((_SIGNED, numbers.tobytes(), *signed.signatures)))

    def _refuse(self, error: FanxingError) -> None:
        content = json.dumps({"code": error.code, "message": error.message}).encode()
        self.wfile.write(_REFUSED + _LENGTH.pack(len(content)) + content)


class SigningAgent(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Serves until it is stopped. Must be made in a process of one thread, since it forks."""

    timeout = STOP_S_MAX
    max_children = CONNECTIONS_MAX
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, path: Path, room: SigningRoom) -> None:
        """Listen at `path`, which only this user may open. Raises AgentRunning when another agent does already."""
        self.room = room
        self._stopped = False
        _make_way(path)
        previous = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        finally:
            os.umask(previous)

    def serve(self, ready: Callable[[], None]) -> None:
        """Answer connections until SIGTERM or SIGINT. Must be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        ready()
        try:
            while not self._stopped:
                self.handle_request()
                self.service_actions()
        finally:
            for child in self.active_children or ():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)  # an agent that is stopped signs nothing more
            self.server_close()
            Path(str(self.server_address)).unlink(missing_ok=True)

    def _stop(self, *_signal: object) -> None:
        # Raising here instead would be lost when the signal comes inside a hook of fork(), which swallows exceptions.
        self._stopped = True


def _make_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # left behind by an agent that was killed
        else:
            raise AgentRunning(f"a signing agent answers at {path} already")

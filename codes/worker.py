"""A worker process of the local engine: reads sections from standard input, writes what it made to standard output.

    python -m codes.worker

Both ends are this program, on one machine and of one user. Messages are a length (8 bytes, big-endian) and a pickle.
The first one in says what to make and how to sign; the first one out is None, when the worker is ready. After that each
section is answered by its parts, or by the error that making it raised. The end of the input ends the worker, so none
outlives the process that started it.
"""

import os
import pickle
import sys
from struct import Struct
from typing import Any, BinaryIO

from codes.rendering import Renderer
from kit.errors import FanxingError

LENGTH = Struct(">Q")


def frame(message: object) -> bytes:
    """A message as it goes through a pipe."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(content)) + content


def _receive(source: BinaryIO) -> Any:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    return pickle.loads(source.read(*LENGTH.unpack(head)))  # noqa: S301 - the parent process writes it


def work(source: BinaryIO, sink: BinaryIO) -> None:
    """Serve until the input ends."""
    job, access = _receive(source)
    try:
        renderer, ready = Renderer(job, access.signer(job.recipe)), None
    except FanxingError as error:
        renderer, ready = None, error
    sink.write(frame(ready))
    sink.flush()
    while renderer is not None:
        section = _receive(source)
        try:
            answer: object = renderer.render(section)
        except (FanxingError, OSError) as error:
            answer = error
        sink.write(frame(answer))
        sink.flush()


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not get between the messages
    try:
        work(sys.stdin.buffer, pipe)
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        os._exit(0)  # whoever waited for an answer is gone; flushing the pipe would only complain

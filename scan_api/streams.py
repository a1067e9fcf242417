"""Long answers, made whole before they are sent: who reads slowly holds a file, and no connection to the database."""

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile

from kit.errors import Unavailable

MADE_AT_ONCE_MAX = 4
"""Long answers that one server makes at the same time; who comes when so many wait already is asked to come later."""
WAITING_MAX = 16
MEMORY_BYTES_MAX = 1 << 20
"""Of one answer; what is longer lies in a temporary file."""
BLOCK_BYTES = 64 * 1024


class TooManyStreams(Unavailable):
    """Others are being given long answers."""

    code = "TooManyStreams"


class Streams:
    """The long answers of one server."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(MADE_AT_ONCE_MAX)
        self._waiting = 0

    async def made(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The parts put together, to be sent on in blocks. Raises TooManyStreams, and what the parts raise."""
        if self._waiting >= WAITING_MAX:
            raise TooManyStreams("many long answers are being made just now", hint="Try again in a minute.")
        file = SpooledTemporaryFile(MEMORY_BYTES_MAX)  # noqa: SIM115 - it is closed with the last block
        self._waiting += 1
        try:
            async with self._turn:
                async for part in parts:
                    file.write(part)
        except BaseException:
            file.close()
            raise
        finally:
            self._waiting -= 1
        file.seek(0)
        return _blocks(file)


async def _blocks(file: "SpooledTemporaryFile[bytes]") -> AsyncIterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block

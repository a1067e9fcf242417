"""Long answers: made whole before they are sent, a few at a time, and nothing is held for who reads slowly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from scan_api.streams import MADE_AT_ONCE_MAX, MEMORY_BYTES_MAX, WAITING_MAX, Streams, TooManyStreams


async def parts(count: int, ended: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for number in range(count):
        yield number.to_bytes(2, "big") * 500
    if ended is not None:
        ended.set()


@pytest.mark.parametrize("count", [0, 1, 2 * MEMORY_BYTES_MAX // 1_000])
async def test_what_is_sent_is_what_was_made(count: int) -> None:
    ended = asyncio.Event()
    blocks = await Streams().made(parts(count, ended))
    assert ended.is_set()  # before the first byte leaves
    assert b"".join([block async for block in blocks]) == b"".join([part async for part in parts(count)])


async def test_what_breaks_while_it_is_made_is_refused_and_not_cut_short() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Streams().made(broken())


async def test_few_are_made_at_once_and_too_many_are_sent_away() -> None:
    streams, go_on, working = Streams(), asyncio.Event(), 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal working
        working += 1
        await go_on.wait()
        yield b"done"

    asked = [asyncio.create_task(streams.made(slow())) for _ in range(WAITING_MAX)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert working == MADE_AT_ONCE_MAX
    with pytest.raises(TooManyStreams):
        await streams.made(slow())
    go_on.set()
    done = [[block async for block in blocks] for blocks in await asyncio.gather(*asked)]
    assert done == [[b"done"]] * WAITING_MAX
    assert [block async for block in await streams.made(slow())] == [b"done"]

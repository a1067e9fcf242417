"""A load client that costs little: keep-alive connections over bare sockets, in a process of its own.

    python -m tests.bench.client < job.json

The job names host, ports, connections, seconds and requests (each "method", "path", "headers", "body"). Every request
is sent once, in order, over whichever connection is free; with "repeat" they start over. Connections go to the ports
in turns. The answer is one JSON object:
answers by status, seconds, what percentiles of the answers took, and this process's own CPU seconds, so that one sees
whether it was the bottleneck.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast

import uvloop

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length: "
_STATUS = slice(9, 12)


class _Connection(asyncio.Protocol):
    """One request at a time; the next goes out as soon as the answer is complete."""

    def __init__(self, requests: Iterator[bytes], deadline: float, answers: Counter[int], taken_s: list[float]) -> None:
        self._requests = requests
        self._deadline = deadline
        self._answers = answers
        self._taken_s = taken_s
        self._received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own do not derive from it
        self._send()

    def _send(self) -> None:
        request = next(self._requests, None) if time.perf_counter() < self._deadline else None
        if request is None:
            self._transport.close()
        else:
            self._sent_at = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(_HEAD_END)
        if head < 0:
            return
        at = self._received.find(_LENGTH, 0, head) + len(_LENGTH)
        length = int(self._received[at : self._received.find(b"\r\n", at)]) if at >= len(_LENGTH) else 0
        if len(self._received) < head + len(_HEAD_END) + length:
            return
        self._taken_s.append(time.perf_counter() - self._sent_at)
        self._answers[int(self._received[_STATUS])] += 1
        self._received = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def percentiles_ms(taken_s: Sequence[float]) -> dict[str, float]:
    """What half of these, 95 and 99 of a hundred took at most, in milliseconds; of at least two."""
    hundredths = statistics.quantiles(taken_s, n=100) if len(taken_s) > 1 else [0.0] * 99
    return {f"p{percent}": hundredths[percent - 1] * 1_000 for percent in (50, 95, 99)}


def _bytes(request: dict[str, Any], host: str) -> bytes:
    body: bytes = request.get("body", "").encode()
    headers = {"host": host, "content-length": str(len(body)), **request.get("headers", {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{request['method']} {request['path']} HTTP/1.1\r\n{head}\r\n".encode() + body


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    prepared = [_bytes(request, job["host"]) for request in job["requests"]]
    requests = itertools.cycle(prepared) if job.get("repeat") else iter(prepared)
    answers: Counter[int] = Counter()
    taken_s: list[float] = []
    loop = asyncio.get_running_loop()
    started, started_cpu = time.perf_counter(), time.process_time()
    deadline = started + job["seconds"]
    protocols = []
    for _, port in zip(range(job["connections"]), itertools.cycle(job["ports"]), strict=False):
        _, protocol = await loop.create_connection(
            lambda: _Connection(requests, deadline, answers, taken_s), job["host"], port
        )
        protocols.append(protocol)
    await asyncio.gather(*(protocol.done for protocol in protocols))
    return {
        "answers": dict(answers),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - started_cpu,
        "taken_ms": percentiles_ms(taken_s),
    }


if __name__ == "__main__":
    json.dump(uvloop.run(_run(json.load(sys.stdin))), sys.stdout)

"""The engine of a Ray cluster: the same sections on many machines, each of which has a signing agent of its own."""

import asyncio
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from codes.engines import SignerAccess, WorkerLost
from codes.pipeline import Section
from codes.rendering import Job, RenderedPart, Renderer
from kit.errors import FanxingError, Unavailable

REACH_S_MAX = 10
START_S_MAX = 120
"""How long until a first worker has a core of the cluster; later ones are not waited for."""
RESTARTS_MAX = 3
"""How often a worker may die, with its machine or alone, and be started again elsewhere."""


class ClusterMissing(Unavailable):
    code = "ClusterMissing"


class _Worker:
    """Lives on a node of the cluster."""

    def __init__(self, job: Job, access: SignerAccess) -> None:
        self._job, self._access = job, access
        self._renderer: Renderer | None = None

    def ready(self) -> None:
        """Answers once the worker lives."""

    def render(self, section: Section) -> Sequence[RenderedPart]:
        if self._renderer is None:  # not when it is made: an error in there could not be told from a dead machine
            self._renderer = Renderer(self._job, self._access.signer(self._job.recipe))
        return self._renderer.render(section)


class ClusterEngine:
    """Hands each section to whichever worker of the cluster is free."""

    def __init__(self, job: Job, access: SignerAccess, workers: int | None, address: str | None) -> None:
        """`workers` None: one a core of the cluster. `address` None: a cluster of this machine alone, made for the run.

        Raises ClusterMissing when Ray is not installed.
        """
        try:
            import ray  # noqa: PLC0415 - an extra of the distribution, and slow to import
        except ImportError:
            raise ClusterMissing("Ray is not installed", hint="pip install 'fanxing[cluster]'") from None
        self._ray: Any = ray
        self._job, self._access = job, access
        self._wanted = workers
        self._address = address
        self._actors: list[Any] = []
        self._starting: list[asyncio.Task[None]] = []
        self._idle: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def workers(self) -> int:
        return len(self._actors)

    async def __aenter__(self) -> Self:
        ray = self._ray
        alone = {} if self._address else {"num_cpus": self._wanted, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody else need know what a factory makes, and when
        try:
            await asyncio.to_thread(self._reach)
            await asyncio.to_thread(
                ray.init, address=self._address, log_to_driver=False, logging_level="error", **alone
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterMissing(f"no Ray cluster: {error}", hint="`ray start --head` starts one.") from None
        try:
            await self._hire()
        except BaseException:
            await self._end()
            raise
        return self

    def _reach(self) -> None:
        """Raises OSError when nobody listens at the cluster's address; Ray would try for minutes, deaf to Ctrl-C."""
        host, _, port = (self._address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), REACH_S_MAX).close()

    async def _hire(self) -> None:
        ray = self._ray
        count = self._wanted or int(ray.cluster_resources().get("CPU", 1))
        remote = ray.remote(num_cpus=1, max_restarts=RESTARTS_MAX, max_task_retries=RESTARTS_MAX)(_Worker)
        self._actors = [remote.remote(self._job, self._access) for _ in range(count)]
        # Other work may have the cores. A section handed to a worker that has none yet would wait for ever.
        self._starting = [asyncio.create_task(self._welcome(actor)) for actor in self._actors]
        await asyncio.wait(self._starting, timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if self._idle.empty():
            raise ClusterMissing(
                "no core of the cluster could be had", hint="`ray status` shows what the cluster is busy with."
            )

    async def _welcome(self, actor: Any) -> None:
        await actor.ready.remote()
        self._idle.put_nowait(actor)

    async def render(self, section: Section) -> Sequence[RenderedPart]:
        errors = self._ray.exceptions
        actor = await self._idle.get()
        try:
            parts: Sequence[RenderedPart] = await actor.render.remote(section)
        except errors.RayTaskError as error:
            if isinstance(error.cause, FanxingError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            raise WorkerLost(
                f"a worker of the cluster was lost: {type(error).__name__}", hint="Go on with `fanxing order resume`."
            ) from None
        self._idle.put_nowait(actor)
        return parts

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for starting in self._starting:
            starting.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        self._actors.clear()
        await asyncio.to_thread(self._ray.shutdown)

"""Engines: where the sections of a run are made, on this machine or on a cluster of them."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from codes.pipeline import Recipe, Section, Sign
from codes.rendering import RenderedPart
from kit.errors import Unavailable


class WorkerLost(Unavailable):
    code = "WorkerLost"


class SignerAccess(Protocol):
    """How a worker comes to sign; it travels to the worker."""

    def signer(self, recipe: Recipe) -> Sign:
        """Sign for this order, from the process that calls. Raises CustodyError, SigningRefused."""
        ...


class Engine(AbstractAsyncContextManager["Engine"], Protocol):
    """Makes sections, several at a time. The same section gives the same bytes on every engine."""

    @property
    def workers(self) -> int:
        """How many sections are made at the same time, 1 or more."""
        ...

    async def render(self, section: Section) -> Sequence[RenderedPart]:
        """Make a section, as soon as a worker is free. Raises WorkerLost, and what `Renderer.render` raises."""
        ...

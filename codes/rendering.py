"""Rendering: from a section of an order to the bytes of every file that it has a part in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from codes.exports import ExportKind, open_export
from codes.exports.layout import Layout
from codes.pipeline import Recipe, Section, Sign, make


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run is told. It holds no secret."""

    recipe: Recipe
    kinds: tuple[ExportKind, ...]
    layout: Layout


@dataclass(frozen=True, slots=True)
class RenderedPart:
    """Bytes to append to a file: its path relative to the run's folder, and their SHA-256 in hex."""

    path: str
    content: bytes
    sha256: str


class Renderer:
    """Makes sections of one job, one after the other."""

    def __init__(self, job: Job, sign: Sign) -> None:
        self._recipe = job.recipe
        self._sign = sign
        self._exports = [open_export(kind, job.recipe, job.layout) for kind in job.kinds]

    def render(self, section: Section) -> Sequence[RenderedPart]:
        """One part for each kind of the job, in their order."""
        chunk = make(self._recipe, self._sign, section)
        parts = []
        for export in self._exports:
            content = export.render(chunk)
            parts.append(RenderedPart(export.path(section), content, hashlib.sha256(content).hexdigest()))
        return parts

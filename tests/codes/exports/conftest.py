"""What the export tests share: every file of a recipe, as a run would leave it on the disk."""

from collections.abc import Callable

import pytest

from codes.exports import ExportKind, open_export, section_items
from codes.exports.layout import Layout
from codes.pipeline import Recipe
from tests.codes.conftest import Chunks

Written = dict[str, bytes]
Write = Callable[..., Written]
"""Bytes by path: (kind, recipe, layout=Layout(), items_max=what a run would take)."""


@pytest.fixture(scope="session")
def write(chunks: Chunks) -> Write:
    def written(
        kind: ExportKind, recipe: Recipe, layout: Layout | None = None, items_max: int | None = None
    ) -> Written:
        layout = layout or Layout()
        export = open_export(kind, recipe, layout)
        files: Written = {}
        for chunk in chunks(recipe, items_max or section_items([kind], recipe, layout)):
            path = export.path(chunk.section)
            files[path] = files.get(path, b"") + export.render(chunk)
        return files

    return written

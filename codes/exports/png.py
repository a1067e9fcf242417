"""PNG export: one picture a code, one bit a pixel, in a folder a face, which is its owner's alone."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from codes import qr
from codes.orders import CodeOrder
from codes.pipeline import Chunk

MODULE_PX = 8


class PngExport:
    """png/outer/SERIAL.png and png/inner/SERIAL.png in a folder."""

    def __init__(self, order: CodeOrder, folder: Path) -> None:
        self._faces = order.faces
        self._folder = folder / "png"
        self._beside = folder / "png.part"

    @property
    def paths(self) -> list[Path]:
        return [self._folder / face.name.lower() for face in self._faces]

    def __enter__(self) -> Self:
        shutil.rmtree(self._beside, ignore_errors=True)
        self._beside.mkdir(parents=True, mode=0o700)
        for face in self._faces:
            (self._beside / face.name.lower()).mkdir()
        return self

    def add(self, chunk: Chunk) -> None:
        folder = self._beside / chunk.face.name.lower()
        for serial, text in zip(chunk.serials, chunk.texts, strict=True):
            qr.image(qr.symbol(text), MODULE_PX).save(folder / f"{serial}.png", bits=1, optimize=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._beside.replace(self._folder)
        else:
            shutil.rmtree(self._beside, ignore_errors=True)

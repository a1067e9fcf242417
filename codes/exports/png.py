"""PNG export: one picture a code, one bit a pixel, in a folder a face."""

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
        self._folders = {face: folder / "png" / face.name.lower() for face in order.faces}

    @property
    def paths(self) -> list[Path]:
        return list(self._folders.values())

    def __enter__(self) -> Self:
        for folder in self._folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, chunk: Chunk) -> None:
        folder = self._folders[chunk.face]
        for serial, text in zip(chunk.serials, chunk.texts, strict=True):
            qr.image(qr.symbol(text), MODULE_PX).save(folder / f"{serial}.png", bits=1, optimize=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

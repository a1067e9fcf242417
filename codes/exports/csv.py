"""CSV export: `serial,code_text`, one file a face, for variable-data presses.

RFC 4180 with LF line ends and a header line. Both columns hold digits and URL characters only, so nothing is quoted.
The files are their owner's alone: whoever reads an inner code can claim its reward.
"""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from codes.orders import CodeOrder
from codes.pipeline import Chunk
from kit.files import PRIVATE_MODE, replacing
from offline_sdk.code_text import Profile

HEADER = b"serial,code_text\n"


class CsvExport:
    """outer.csv and inner.csv in a folder."""

    def __init__(self, order: CodeOrder, folder: Path) -> None:
        self._folder = folder
        self._faces = order.faces
        self._files: dict[Profile, BinaryIO] = {}
        self._open = ExitStack()

    @property
    def paths(self) -> list[Path]:
        return [self._folder / f"{face.name.lower()}.csv" for face in self._faces]

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            for face, path in zip(self._faces, self.paths, strict=True):
                self._files[face] = opening.enter_context(replacing(path, PRIVATE_MODE))
                self._files[face].write(HEADER)
            self._open = opening.pop_all()
        return self

    def add(self, chunk: Chunk) -> None:
        lines = "".join([f"{serial},{text}\n" for serial, text in zip(chunk.serials, chunk.texts, strict=True)])
        self._files[chunk.face].write(lines.encode("ascii"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

"""CSV export: `serial,code_text`, one file a face, for variable-data presses.

RFC 4180 with LF line ends and a header line. Both columns hold digits and URL characters only, so nothing is quoted.
"""

from codes.pipeline import Chunk, Recipe, Section
from offline_sdk.code_text import PATH_CHARS, SERIAL_DIGITS

HEADER = "serial,code_text\n"


class CsvExport:
    """outer.csv and inner.csv."""

    def __init__(self, recipe: Recipe) -> None:
        self._line_bytes = SERIAL_DIGITS + len(",") + len(recipe.base_url) + PATH_CHARS + len("\n")

    def path(self, section: Section) -> str:
        return f"{section.face.name.lower()}.csv"

    def render(self, chunk: Chunk) -> bytes:
        lines = "".join([f"{serial},{text}\n" for serial, text in zip(chunk.serials, chunk.texts, strict=True)])
        return ((HEADER if chunk.section.number == 0 else "") + lines).encode("ascii")

    def bytes_max(self, items: int) -> int:
        return len(HEADER) + items * self._line_bytes

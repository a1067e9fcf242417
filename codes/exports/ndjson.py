"""NDJSON export: one JSON object a line, one file a face, for programs that read line by line."""

from codes.pipeline import Chunk, Recipe, Section
from offline_sdk.code_text import PATH_CHARS, SERIAL_DIGITS


class NdjsonExport:
    """outer.ndjson and inner.ndjson."""

    def __init__(self, recipe: Recipe) -> None:
        self._line_bytes = len(_line("", "")) + SERIAL_DIGITS + len(recipe.base_url) + PATH_CHARS

    def path(self, section: Section) -> str:
        return f"{section.face.name.lower()}.ndjson"

    def render(self, chunk: Chunk) -> bytes:
        return "".join(map(_line, chunk.serials, chunk.texts)).encode("ascii")

    def bytes_max(self, items: int) -> int:
        return items * self._line_bytes


def _line(serial: str, text: str) -> str:
    # Digits and URL characters only: no JSON string needs to escape any of them (RFC 8259, 7).
    return f'{{"serial":"{serial}","code_text":"{text}"}}\n'

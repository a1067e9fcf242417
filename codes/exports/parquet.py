"""Parquet export: a data set a face, a folder of files with one section each, for data platforms."""

import pyarrow as pa
import pyarrow.parquet

from codes.pipeline import CHUNK_ITEMS, Chunk, Recipe, Section

SCHEMA = pa.schema(
    [
        pa.field("issue_index", pa.int64(), nullable=False),
        pa.field("serial", pa.string(), nullable=False),
        pa.field("code_text", pa.string(), nullable=False),
    ]
)
_ITEM_BYTES_MAX = 120
_FILE_BYTES_MAX = 4_000


class ParquetExport:
    """outer.parquet/part-00000.parquet and so on, in the order of their numbers."""

    def __init__(self, recipe: Recipe) -> None:
        # A long host is compressed away, save where a file holds too few texts to repeat it.
        self._file_bytes = _FILE_BYTES_MAX + 2 * len(recipe.base_url)

    def path(self, section: Section) -> str:
        return f"{section.face.name.lower()}.parquet/part-{section.number:05d}.parquet"

    def render(self, chunk: Chunk) -> bytes:
        indexes = [index for first, last in chunk.section.ranges for index in range(first, last + 1)]
        table = pa.table([indexes, chunk.serials, chunk.texts], schema=SCHEMA)
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(
            table,
            sink,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,  # no value comes twice
            write_statistics=["issue_index"],  # a reader that looks for a range skips files; the others are random
        )
        content: bytes = sink.getvalue().to_pybytes()
        return content

    def bytes_max(self, items: int) -> int:
        return items * _ITEM_BYTES_MAX + (1 + 2 * items // CHUNK_ITEMS) * self._file_bytes

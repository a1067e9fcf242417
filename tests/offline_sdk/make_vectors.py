"""Write the test vectors of the offline SDK: `python -m tests.offline_sdk.make_vectors`.

Fixed keys, fixed clock: the same files each time. offline_sdk/vectors/README.md explains them.
"""

import json
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tests.vector_cases import bundles, clocks, deltas, revocations, roots, texts

FOLDER: Final = Path(__file__).parents[2] / "offline_sdk" / "vectors"
FORMAT: Final = "fanxing-vector-1"


def main() -> None:
    for old in FOLDER.glob("*/*.json"):
        old.unlink()
    for name, content in files(large=True).items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def files(*, large: bool = False) -> dict[str, bytes]:
    """The content of each vector's file by its path; with the large bundles, which take seconds, or without."""
    kinds = [
        texts.vectors(),
        bundles.vectors(),
        revocations.vectors(),
        clocks.vectors(),
        roots.vectors(),
        deltas.vectors(),
    ]
    cases = chain(*kinds, bundles.large() if large else ())
    return {f"{name}.json": _written(content) for name, content in cases}


def _written(content: dict[str, Any]) -> bytes:
    return (json.dumps({"format": FORMAT, **content}, indent=1, ensure_ascii=True) + "\n").encode()


if __name__ == "__main__":
    main()

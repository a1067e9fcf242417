"""Run the measurements and print a line each: name, value, unit | yardstick, its value | ratio."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    books,
    capturing,
    checking,
    drawing,
    importing,
    issuing,
    logging_leaves,
    millions,
    pools,
    serving,
    sheets,
    tracing,
    trusting,
)
from tests.bench.figures import Figure

BENCHES: dict[str, Callable[[Path], list[Figure]]] = {
    "codes": issuing.codes,
    "symbols": drawing.symbols,
    "sheets": sheets.sheets,
    "checks": checking.checks,
    "trust": trusting.trust,
    "serving": serving.serving,
    "importing": importing.importing,
    "pools": pools.pools,
    "capturing": capturing.capturing,
    "logging": logging_leaves.logging,
    "tracing": tracing.tracing,
}
LONG: dict[str, Callable[[Path], list[Figure]]] = {"books": books.books, "millions": millions.millions}
"""Ten minutes and more: measured when they are named."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)} (default), {', '.join(LONG)}"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    asked = parser.parse_args()
    known = BENCHES | LONG
    if unknown := set(asked.benches) - known.keys():
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    figures = []
    for name in asked.benches or BENCHES:
        with tempfile.TemporaryDirectory(prefix="fanxing-bench-") as folder:
            Path(folder).chmod(0o755)  # PostgreSQL refuses to run as root and must get in as another
            for measured in known[name](Path(folder)):
                figures.append(measured)
                if not asked.json:
                    print(measured.line(), flush=True)
    if asked.json:
        print(json.dumps({"cores": os.cpu_count(), "figures": [one.as_json() for one in figures]}, indent=1))


if __name__ == "__main__":
    main()

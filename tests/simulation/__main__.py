"""Run the simulator's seeds, or one of them again: `python -m tests.simulation --seed 7`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import tests.conftest  # noqa: F401 - imports every table
from tests.simulation import simulation
from tests.simulation.inline_sqlite import make_template


def main() -> int:
    """0 when every seed was sound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="this one, once")
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0")
    asked = parser.parse_args()
    seeds = range(asked.seeds) if asked.seed is None else [asked.seed]
    started, unsound = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        template = make_template(Path(folder) / "template.db")
        for seed in seeds:
            try:
                story = simulation.run(seed, Path(folder) / f"{seed}.db", template)
            except simulation.Unsound as error:
                unsound += 1
                print(error)
                continue
            print(
                f"seed {seed}: {story.orders} orders, {story.turns} turns, {story.kills} kills, "
                f"{story.lasted.total_seconds() / 3600:.0f} h, {story.digest[:16]}"
            )
    print(f"{len(seeds)} seeds, {unsound} unsound, {time.monotonic() - started:.1f} s")
    return int(unsound > 0)


if __name__ == "__main__":
    sys.exit(main())

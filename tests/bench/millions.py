"""Large orders: whether time grows with quantity alone, and memory not at all. Ten minutes, so never by default.

Each order is made by the `fanxing` command in a process of its own. Time is the process's own (user and system), since
other work on the machine would stretch the long run more than the short one.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from loadtest.installation import GTIN, Installation
from tests.bench.figures import Figure

SMALL, LARGE = 1_000_000, 10_000_000
MEMORY_MIB_MAX = 300
_WATCH_S = 0.2


def millions(folder: Path) -> list[Figure]:
    """Seconds a million codes of a large order beside those of a small one, and the peak of memory."""
    installation = Installation(folder)
    installation.fanxing("init", "--make-passphrase")
    installation.fanxing("issuer", "create", "--name", "Bench", "--gtin-prefix", "9506000")
    names = ("--name-zh", "测", "--name-en", "Bench")
    installation.fanxing("brand", "create", "--slug", "bench", "--issuer", "Bench", "--group", "bench", *names)
    installation.fanxing("product", "create", "--brand", "bench", "--gtin", GTIN, *names)
    made = {quantity: _make(installation, quantity, 1) for quantity in (SMALL, LARGE)}
    two = _make(installation, SMALL, 2)
    small_s, large_s = (seconds / (quantity / 1_000_000) for quantity, (seconds, _mib) in made.items())
    return [
        Figure("10,000,000 codes to CSV, CPU", large_s, "s a million", "1,000,000 codes", small_s, large_s / small_s),
        Figure("  its peak memory, one process", made[LARGE][1], "MiB", "bar", MEMORY_MIB_MAX, made[LARGE][1] / 300),
        Figure("  1,000,000 codes, two workers, all", two[1], "MiB", "bar", MEMORY_MIB_MAX, two[1] / 300),
    ]


def _make(installation: Installation, quantity: int, workers: int) -> tuple[float, float]:
    """CPU seconds and peak MiB of the command and its workers, shared pages counted once."""
    out = installation.folder / f"{quantity}-{workers}"
    command = ("order", "create", "--gtin", GTIN, "--quantity", str(quantity), "--face", "outer", "--export", "csv")
    before = os.times()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("fanxing"), *command, "--out", out, "--workers", str(workers), "--json"],
        env=installation.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _mib(process.pid))
        time.sleep(_WATCH_S)
    assert process.returncode == 0
    after = os.times()
    (out / "outer.csv").unlink()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return spent, peak


def _mib(pid: int) -> float:
    """Proportional set size of a process and its children."""
    total = 0
    for member in (pid, *_children(pid)):
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has just ended
            continue
        total += int(rollup.split("\nPss:")[1].split()[0])
    return total / 1024


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []

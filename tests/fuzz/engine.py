"""Engine: runs a target on mutated inputs, by itself or under atheris, and keeps what it finds.

By itself it is quick, deterministic for a seed, and keeps each input that has a new outcome (which error by which
lines) to go on from there. Atheris is steered by the coverage of the package's bytecode instead.
"""

import hashlib
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

from tests.fuzz.target import INPUT_BYTES_MAX, Finding, Target

INPUT_S_MAX: Final = 5.0
"""Seconds of the processor's time that one input may take."""
CORPUS_MAX: Final = 2_000
FINDINGS_MAX: Final = 10
_PROGRESS_EVERY_S: Final = 10


@dataclass
class Outcome:
    """What a run came to; `findings` are inputs by what was wrong with them."""

    target: str
    engine: str
    seed: int
    runs: int = 0
    seconds: float = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, bytes]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For json.dumps: counts, rates, and findings in hex."""
        kinds = Counter[str]()
        for outcome, count in self.outcomes.items():
            kinds[outcome.partition(" ")[0]] += count
        return {
            "target": self.target,
            "engine": self.engine,
            "seed": self.seed,
            "runs": self.runs,
            "seconds": round(self.seconds, 1),
            "runs_a_second": round(self.runs / max(self.seconds, 0.001)),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "different_outcomes": len(self.outcomes),
            "outcomes": dict(kinds.most_common()),
            "findings": [{"what": what, "input_hex": data.hex()} for what, data in self.findings],
        }


def run(
    target: Target,
    runs: int,
    seed: int = 1,
    progress: Callable[[Outcome], None] | None = None,
    findings_max: int = FINDINGS_MAX,
) -> Outcome:
    """Run the seeds, the regressions and then mutated inputs, `runs` in all, or until there are that many findings."""
    dice, outcome = Random(seed), Outcome(target.name, "plain", seed)
    fixed = [*target.seeds, *(path.read_bytes() for path in target.regressions())]
    corpus, start, told = list(fixed), time.monotonic(), time.monotonic()
    with _watched():
        for number in range(runs):
            data = fixed[number] if number < len(fixed) else target.mutate(dice.choice(corpus), dice)[:INPUT_BYTES_MAX]
            new = _one(target, data, outcome)
            if new and len(corpus) < CORPUS_MAX:
                corpus.append(data)
            if len(outcome.findings) >= findings_max:
                break
            if progress is not None and number % 256 == 0 and time.monotonic() - told > _PROGRESS_EVERY_S:
                told, outcome.seconds = time.monotonic(), time.monotonic() - start
                progress(outcome)
    outcome.seconds = time.monotonic() - start
    return outcome


def run_under_atheris(target: Target, runs: int, seed: int, done: Callable[[Outcome], None]) -> None:
    """Let libFuzzer steer; calls `done` after `runs` inputs, or at the first finding, and ends the process."""
    import atheris

    outcome, start = Outcome(target.name, "atheris", seed), time.monotonic()

    def one(data: bytes) -> None:
        _one(target, data, outcome)
        if outcome.runs >= runs or outcome.findings:
            outcome.seconds = time.monotonic() - start
            done(outcome)
            sys.stdout.flush()
            os._exit(1 if outcome.findings else 0)

    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        return target.mutate(data or target.seeds[0], Random(number))[:max_size]

    folder = Path("var/fuzz/corpus") / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds:
        (folder / _name(data)).write_bytes(data)
    options = [f"-seed={seed}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_S_MAX:.0f}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(folder), *options], one, custom_mutator=mutate)
    with _watched():
        atheris.Fuzz()


def keep(outcome: Outcome, folder: Path) -> list[Path]:
    """Write the inputs of findings down, and return where."""
    kept = []
    for _what, data in outcome.findings:
        path = folder / outcome.target / f"{_name(data)}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kept.append(path)
    return kept


def _one(target: Target, data: bytes, outcome: Outcome) -> bool:
    """Run one input; tell whether its outcome is a new one."""
    outcome.runs += 1
    signal.setitimer(signal.ITIMER_VIRTUAL, INPUT_S_MAX)
    try:
        came = target.check(data)
    # Whatever gets out, be it a finding or an error that no caller expects, is what fuzzing is for.
    except Exception as error:
        outcome.findings.append((f"{type(error).__name__}: {error}", data))
        return False
    new = came not in outcome.outcomes
    if new or len(outcome.outcomes) < CORPUS_MAX:
        outcome.outcomes[came] += 1
    return new


@contextmanager
def _watched() -> Iterator[None]:
    before = signal.signal(signal.SIGVTALRM, _too_long)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Finding(f"an input takes more than {INPUT_S_MAX:.0f} s")


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

"""Fuzz what reads strangers' bytes, print what came of it, and end with status 1 when anything was found."""

import argparse
import json
import resource
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.fuzz import engine, trace
from tests.fuzz.target import Target

TARGETS: Final = {
    "code_text": "code_texts.TARGET",
    "item_set": "item_sets.TARGET",
    "bundle_parser": "parsers.BUNDLES",
    "delta_parser": "parsers.DELTAS",
    "root_parser": "parsers.ROOTS",
    "bundle": "bundles.TARGET",
    "delta": "deltas.TARGET",
    "root": "roots.TARGET",
}
FOUND: Final = Path("var/fuzz")
MEMORY_BYTES_MAX: Final = 2 * 1024**3
MEASURED: Final = (
    "algorithms", "bundle", "code_text", "cose", "delta", "gtin", "item_set", "p256", "revocation", "root", "strict",
    "trust_store", "verifier",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--runs", type=int, default=100_000, metavar="N", help="inputs for each target (100,000)")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--atheris", action="store_true", help="steered by coverage; one target, to its first finding")
    parser.add_argument("--coverage", action="store_true", help="tell which lines were run (many times slower)")
    parser.add_argument("--json", action="store_true", help="one JSON document a target instead of lines")
    asked = parser.parse_args()
    names = asked.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if asked.atheris and len(names) != 1:
        parser.error("atheris runs one target at a time; name it")
    _limit_memory(asked.atheris)
    if asked.atheris:
        _under_atheris(names[0], asked)
    targets = [target_named(name) for name in names]
    found: list[int] = []
    if asked.coverage:
        modules = [import_module(f"offline_sdk.{name}") for name in MEASURED]
        lines = trace.lines_run(lambda: found.extend(_fuzz(target, asked) for target in targets), modules)
        _tell_lines(lines, asked.json)
    else:
        found.extend(_fuzz(target, asked) for target in targets)
    sys.exit(1 if any(found) else 0)


def target_named(name: str) -> Target:
    module, _, attribute = TARGETS[name].partition(".")
    target: Target = getattr(import_module(f"tests.fuzz.{module}"), attribute)
    return target


def _fuzz(target: Target, asked: argparse.Namespace) -> int:
    """Run one target; return how many findings there are."""
    outcome = engine.run(target, asked.runs, asked.seed, None if asked.json else _say)
    _tell(outcome, asked.json)
    return len(outcome.findings)


def _under_atheris(name: str, asked: argparse.Namespace) -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed; install it: .venv/bin/pip install atheris")
    # Only modules that are imported in here are instrumented, so those imported above are forgotten first.
    for imported in [one for one in sys.modules if one.partition(".")[0] in ("offline_sdk", "tests")]:
        del sys.modules[imported]
    with atheris.instrument_imports(include=["offline_sdk"]):
        target = target_named(name)
        steered = import_module("tests.fuzz.engine")
    steered.run_under_atheris(target, asked.runs, asked.seed, lambda outcome: _tell(outcome, asked.json))


def _tell_lines(lines: dict[str, tuple[int, int, list[int]]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: {"run": ran, "of": all_, "missed": left} for name, (ran, all_, left) in lines.items()}))
        return
    for name, (ran, all_, left) in lines.items():
        print(f"  {name:12} {ran:4} of {all_:4} lines of functions; not run: {' '.join(map(str, left)) or 'none'}")


def _say(outcome: engine.Outcome) -> None:
    told = outcome.as_json()
    print(
        f"{told['target']}: {told['runs']:,} inputs, {told['runs_a_second']:,}/s, "
        f"{told['different_outcomes']} outcomes, {len(told['findings'])} findings",
        file=sys.stderr,
        flush=True,
    )


def _tell(outcome: engine.Outcome, as_json: bool) -> None:
    kept = engine.keep(outcome, FOUND)
    if as_json:
        print(json.dumps(outcome.as_json()), flush=True)
        return
    _say(outcome)
    for kind, count in outcome.as_json()["outcomes"].items():
        print(f"  {kind:20} {count:,}")
    for (what, _data), path in zip(outcome.findings, kept, strict=True):
        print(f"  FOUND {what}\n    {path}")


def _limit_memory(under_atheris: bool) -> None:
    if not under_atheris:  # libFuzzer has a limit of its own, and its instrumentation maps much that it does not use
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))


if __name__ == "__main__":
    main()

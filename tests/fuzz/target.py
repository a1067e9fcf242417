"""Target: what is fuzzed, with its seeds, a mutator that knows the format, and what must hold for any input.

An input is bytes whose first one says how the rest is taken: as a stranger would send it, or as the content of
something that a right key is made to sign here, so that what lies behind the signature is reached as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.offline_sdk.named_keys import Key, key, keys

RAW, SIGNED, SIGNED_P256, FOREIGN = range(4)
INPUT_BYTES_MAX: Final = 8192
"""Longer inputs are cut: they reach nothing that shorter ones do not."""
REGRESSIONS: Final = Path(__file__).with_name("regressions")
PUBLISHERS: Final = keys("publisher 1", "p256 publisher 2")
_BY_MODE: Final = {SIGNED: key("publisher 1"), SIGNED_P256: key("p256 publisher 2"), FOREIGN: key("stranger")}


class Finding(AssertionError):
    """Something that must hold did not."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed. `check` returns a word for the outcome, and raises anything at all for a finding."""

    name: str
    seeds: tuple[bytes, ...]
    mutate: Callable[[bytes, Random], bytes]
    check: Callable[[bytes], str]

    def regressions(self) -> list[Path]:
        """Inputs that once were findings."""
        return sorted((REGRESSIONS / self.name).glob("*.bin"))


def must(holds: object, what: str) -> None:
    """Require something, or raise the Finding of this name."""
    if not holds:
        raise Finding(what)


def mode_of(data: bytes, modes: int) -> tuple[int, bytes]:
    """How an input is to be taken, and the rest of it."""
    return (data[0] % modes, data[1:]) if data else (RAW, b"")


def signer_of(mode: int) -> Key:
    """Who signs an input of this mode."""
    return _BY_MODE[mode]

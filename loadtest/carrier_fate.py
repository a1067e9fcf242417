"""What becomes of the simulated provider's orders: decided by order id and seed, so that every run is the same."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Misbehaviour:
    """What goes wrong: probabilities 0..1, see `python -m loadtest.carrier --help`."""

    delay_s: float = 0.0
    lose: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    fail: float = 0.0
    reverse: float = 0.0
    lie: float = 0.0
    await_user: float = 0.0
    lose_callback: float = 0.0
    shuffle: float = 0.0
    wrong_amount: float = 0.0
    omit_line: float = 0.0
    repeat_line: float = 0.0
    refuse: frozenset[str] = frozenset()
    """Phone numbers that are not this provider's: refused for good."""
    queries_until_settled: int = 1
    """Steps from the first state to the end; 0: an order ends on submission."""
    seed: int = 0


@dataclass(frozen=True)
class Chance:
    """Decisions about one event of one order."""

    misbehaviour: Misbehaviour
    about: str

    def share(self, what: str) -> float:
        """A number 0..1 that depends on seed, order, event and `what` alone."""
        digest = hashlib.sha256(f"{self.misbehaviour.seed} {self.about} {what}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48

    def hits(self, what: str) -> bool:
        """Whether it goes wrong in this way; "half" is true as often as not."""
        probability: float = 0.5 if what == "half" else getattr(self.misbehaviour, what)
        return self.share(what) < probability


@dataclass(frozen=True)
class Fate:
    """Decides for every order."""

    misbehaviour: Misbehaviour

    def of(self, order_id: str, event: str) -> Chance:
        return Chance(self.misbehaviour, f"{order_id} {event}")

    def path(self, order_id: str, phone: str) -> list[str]:
        """The states that the order goes through, in order. Their numbers are their places, from 1."""
        given = self.misbehaviour
        share = self.of(order_id, "path").share("path")
        if phone in given.refuse:
            return ["failed"]
        way = ["accepted", *["pending"] * (given.queries_until_settled - 1)] if given.queries_until_settled else []
        for probability, path in (
            (given.fail, ["failed"]),
            (given.lie, [*way, "failed", "completed"]),
            (given.reverse, [*way, "completed", "reversed"]),
            (given.await_user / 2, [*way, "await_user", "completed"]),
            (given.await_user / 2, [*way, "await_user", "reversed"]),
        ):
            if share < probability:
                return path
            share -= probability
        return [*way, "completed"]

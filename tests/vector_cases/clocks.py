"""Clocks: checks of one genuine code at one time after another, and what the bundle's age and the clock make of it."""

from datetime import timedelta
from typing import Any

from offline_sdk import Action, Bundle, BundleKey, Policy, Verifier
from offline_sdk.code_text import encode_message, encode_text
from tests.offline_sdk.named_keys import DAY_S, DOMAIN, EXPIRES, ISSUED, ROOT_EXPIRES, key, published
from tests.vector_cases.common import (
    GTIN_A,
    PUBLISHER,
    PUBLISHERS,
    Vectors,
    document_json,
    moment,
    named,
    policy_json,
    signers_json,
)

_STALE = ISSUED + 3 * DAY_S
_CODE = key("code 1")
_SERIAL = "00001000000007"


def vectors() -> Vectors:
    taken: set[str] = set()
    default, tolerance = Policy(), 300
    ask = Policy(on_stale=Action.ASK, on_expired=Action.ASK, on_clock_suspect=Action.ACCEPT)
    strict = Policy(on_stale=Action.REFUSE, on_clock_suspect=Action.REFUSE)
    lenient = Policy(on_expired=Action.ACCEPT, on_clock_suspect=Action.ACCEPT)
    seen = ISSUED + DAY_S
    cases: tuple[tuple[str, Policy, int, int, list[float]], ...] = (
        ("stale below, at and above", default, 0, ROOT_EXPIRES, [_STALE - 1, _STALE, _STALE + 1]),
        ("expired below, at and above", default, 0, ROOT_EXPIRES, [EXPIRES - 1, EXPIRES, EXPIRES + 1]),
        ("parts of a second around the expiry", default, 0, ROOT_EXPIRES, [EXPIRES - 0.001, EXPIRES]),
        ("root expires before the bundle", default, 0, EXPIRES - 10, [EXPIRES - 11, EXPIRES - 10]),
        ("root expires before the bundle is stale", default, 0, _STALE - 10, [_STALE - 11, _STALE - 10]),
        ("clock behind the time seen, within and beyond the tolerance", default, seen, ROOT_EXPIRES,
         [seen, seen - 1, seen - tolerance + 1, seen - tolerance, seen - tolerance - 1, seen - 40 * DAY_S, seen]),
        ("clock behind the bundle's issue", default, 0, ROOT_EXPIRES,
         [ISSUED, ISSUED - tolerance, ISSUED - tolerance - 1, 0, ISSUED + 1]),
        ("clock set back during use", default, 0, ROOT_EXPIRES, [ISSUED + 5_000, ISSUED + 4_700, ISSUED + 4_699]),
        ("clock set back behind the expiry stays expired", default, EXPIRES, ROOT_EXPIRES,
         [ISSUED + 100, EXPIRES - 300]),
        ("clock set back behind stale stays stale", default, _STALE, ROOT_EXPIRES, [ISSUED, _STALE - 300]),
        ("clock far in the future, then right", default, 0, ROOT_EXPIRES, [ISSUED + 10 * 365 * DAY_S, ISSUED + 1]),
        ("policy asks for stale and expired", ask, 0, ROOT_EXPIRES, [_STALE - 1, _STALE, EXPIRES, ISSUED]),
        ("policy refuses stale and clocks set back", strict, seen, ROOT_EXPIRES, [seen, seen - 301, _STALE, EXPIRES]),
        ("policy accepts all, with flags", lenient, 0, ROOT_EXPIRES, [_STALE, EXPIRES, ISSUED]),
        ("stale at once", Policy(stale_after=timedelta(0)), 0, ROOT_EXPIRES, [ISSUED, ISSUED + 1]),
        ("stale after the expiry is never stale", Policy(stale_after=timedelta(days=400)), 0, ROOT_EXPIRES,
         [EXPIRES - 1, EXPIRES]),
    )  # fmt: skip
    for note, policy, seen_before, root_expires, times in cases:
        yield f"clocks/{named(note, taken)}", _vector(note, policy, seen_before, root_expires, times)


def _vector(note: str, policy: Policy, seen: int, root_expires: int, times: list[float]) -> dict[str, Any]:
    bundle = Bundle(DOMAIN, 1, ISSUED, EXPIRES, (BundleKey(1, _CODE.public, "Fanxing Demo Dairy", ("690123456",)),))
    signature = _CODE.sign(encode_message(1, 1, GTIN_A, _SERIAL))
    text = encode_text("https://id.example.cn", 1, 1, signature, GTIN_A, _SERIAL)
    time = [0.0]
    verifier = Verifier(bundle, policy, lambda: moment(time[0]), seen=seen, root_expires=root_expires)
    steps = []
    for now in times:
        before, time[0] = verifier.seen, now
        verdict = verifier.check(text)
        floor = max(before, ISSUED)
        steps.append(
            {
                "now": now,
                "floor": _whole(floor),
                "effective": _whole(max(now, floor)),
                "bundle_state": verdict.bundle_state.value,
                "clock_suspect": verdict.clock_suspect,
                "seen_after": _whole(verifier.seen),
                "verdict": verdict.verdict,
                "error": verdict.error,
            }
        )
    return {
        "kind": "clock",
        "note": note,
        "text": text,
        "trust": {
            "publishers": signers_json(PUBLISHERS),
            "root_expires": root_expires,
            "bundle": document_json(published(bundle, PUBLISHER)),
        },
        "policy": policy_json(policy),
        "seen": seen,
        "steps": steps,
    }


def _whole(seconds: float) -> float:
    """As a whole number where it is one: that is how others write it."""
    return int(seconds) if seconds == int(seconds) else seconds

"""Server: what the scanner does with its server when it is told to: enrol, and sync once."""

import time
from collections import Counter
from dataclasses import asdict
from typing import Any, Final, TextIO

from ..device import Device, EnrolmentText
from ..errors import DeviceError, DeviceRevoked, EnrolmentInvalid, SyncFailed, VerifyError
from ..journal import Journal
from ..sync import Backoff, Link, Pushed, Sync, enrol, fetch_trust
from .background import LinkState
from .home import Home
from .show import Standing
from .trust import Trust

FAILURES_MAX: Final = 4
"""Failures in a row after which `sync` gives up."""
RETRY_FIRST_S: Final = 0.25
RETRY_MOST_S: Final = 4.0
_ENROLMENT_CHARS_MAX: Final = 4_096


def enrol_device(home: Home, text: EnrolmentText, name: str) -> dict[str, Any]:
    """Enrol at a server, and fetch the trust list if it can be had now.

    Raises SyncFailed, PinMismatch, EnrolmentInvalid (also when the scanner is enrolled already), HomeBusy and others.
    """
    with home.held():
        device = Device.open(home.device)
        if device.is_enrolled:
            at = device.enrolment
            raise EnrolmentInvalid(
                f"this scanner is enrolled at {at.server} already, as {at.name}; "
                f"to enrol it anew move {home.device} and {home.pin_file} away"
            )
        link = Link(text.server)
        enrolment = enrol(link, device, text, name)
        home.keep_pin(bytes.fromhex(enrolment.pin))
        trust = Trust(home.trust, home.pin())
        problem = _fetched(link, trust)
        return {**asdict(enrolment), "bundle_seq": trust.seq, "problem": problem}


def read_enrolment(stream: TextIO) -> EnrolmentText:
    """Read the text of an enrolment QR, as the hand scanner types it. Raises EnrolmentInvalid."""
    return EnrolmentText.read(stream.readline(_ENROLMENT_CHARS_MAX).strip())


def synced(home: Home, progress: TextIO | None) -> dict[str, Any]:
    """Fetch news of trust and bring all scans that wait to the server, telling of each batch.

    A failure is tried again a few times; `problem` then says what the last one was. Raises NotEnrolled, DeviceRevoked,
    HomeBusy and the errors of the journal.
    """
    with home.held():
        device = Device.open(home.device)
        trust = Trust(home.trust, home.pin())
        with Journal.open(home.journal) as journal:
            sync = Sync(device, journal)
            problem = _fetched(sync.link, trust)
            link = LinkState.of((home.said() or {}).get("sync"))
            try:
                total, failure = _push_all(sync, trust, journal, progress)
            except DeviceRevoked as revoked:
                home.say(Standing.now(journal, trust, LinkState("revoked", link.last_sync_at, revoked.code)).as_json())
                raise
            at, code = (time.time(), None) if failure is None else (link.last_sync_at, failure["code"])
            home.say(Standing.now(journal, trust, LinkState("offline", at, code)).as_json())
    return {**total, "bundle_seq": trust.seq, "problem": failure or problem}


def _push_all(
    sync: Sync, trust: Trust, journal: Journal, progress: TextIO | None
) -> tuple[dict[str, Any], dict[str, str] | None]:
    backoff, failures = Backoff(RETRY_FIRST_S, RETRY_MOST_S), 0
    sums: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    failure = None
    was_heard = False
    while (journal.waiting or not was_heard) and failures < FAILURES_MAX:
        try:
            pushed = sync.push(trust.seq, trust.root_version, also_empty=True)
        except SyncFailed as error:
            failure, failures = _said(error), failures + 1
            if failures < FAILURES_MAX:
                time.sleep(backoff.failed(error.retry_after_s))
            continue
        failure, failures, was_heard = None, 0, True
        backoff.succeeded()
        sums.update(accepted=pushed.accepted, duplicate=pushed.duplicate, refused=pushed.refused)
        refusals.update(pushed.refusals)
        _tell(pushed, progress)
    counts = {name: sums[name] for name in ("accepted", "duplicate", "refused")}
    return {**counts, "refusals": dict(refusals), "waiting": journal.waiting}, failure


def _tell(pushed: Pushed, progress: TextIO | None) -> None:
    if progress is not None:
        print(f"{pushed.sent} scans brought, {pushed.waiting} wait", file=progress, flush=True)


def _fetched(link: Link, trust: Trust) -> dict[str, str] | None:
    """Fetch news of trust, and say what went wrong."""
    try:
        content = fetch_trust(link, trust.root_version, trust.seq)
        if content is not None:
            trust.update(content)
    except (SyncFailed, VerifyError) as error:
        return _said(error)
    return None


def _said(error: DeviceError | VerifyError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}

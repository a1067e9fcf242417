import dataclasses
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey

from offline_sdk import (
    Action,
    Algorithm,
    BadSignature,
    Bundle,
    BundleExpired,
    BundleKey,
    BundleStale,
    BundleState,
    ClockSuspect,
    CodeText,
    KeyOutOfScope,
    Malformed,
    Policy,
    Revocations,
    Revoked,
    UnknownKey,
    Verdict,
    Verifier,
    VerifyError,
    encode_message,
)
from offline_sdk.p256 import P256_ORDER

BASE = "https://id.example.cn"
GTIN = "06901234567892"
OTHER_GTIN = "09506000134352"
ISSUED = 1_790_000_000
EXPIRES = ISSUED + 30 * 86_400
DAY = 86_400

Sign = Callable[..., str]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
def sign(signing_key: SigningKey) -> Sign:
    """Make a genuine code text of any item with the vectors' private key."""

    def code(order: int = 1, item: int = 5, gtin: str = GTIN, kid: int = 1, profile: int = 1) -> str:
        serial = f"{order:05d}{item:09d}"
        signature = signing_key.sign(encode_message(profile, kid, gtin, serial)).signature
        return CodeText(profile, kid, gtin, serial, signature).text(BASE)

    return code


def refusal(bundle: Bundle, text: str, now: datetime | None = None, policy: Policy | None = None) -> str | None:
    return Verifier(bundle, policy, now=now or at(ISSUED)).check(text).error


def scoped(bundle: Bundle, **fields: Any) -> Bundle:
    key = dataclasses.replace(bundle.keys[0], **fields)
    return dataclasses.replace(bundle, keys=(key, *bundle.keys[1:]))


def revoking(bundle: Bundle, **what: Any) -> Bundle:
    return dataclasses.replace(bundle, revocations=Revocations.collect(**what))


def test_every_valid_vector_is_genuine(vectors: dict[str, Any], verifier: Verifier) -> None:
    for case in vectors["valid"]:
        genuine = verifier.verify(case["text"])
        assert genuine.code_text.message().hex() == case["message_hex"]
        assert (genuine.issuer, genuine.bundle_seq, genuine.bundle_state) == (
            "Fanxing Demo Dairy",
            42,
            BundleState.FRESH,
        )
        verdict = verifier.check(case["text"])
        assert verdict == Verdict(
            "genuine", None, verdict.message, case["gtin"], case["serial"], case["profile"], case["kid"],
            "Fanxing Demo Dairy", 42, BundleState.FRESH, False,
        )  # fmt: skip
        assert verdict.is_genuine


def test_a_code_under_an_upper_case_host_has_the_verdict_of_its_lower_case_form(
    vectors: dict[str, Any], verifier: Verifier
) -> None:
    for case in vectors["valid"]:
        upper = case["text"].upper()
        assert upper != case["text"]
        assert verifier.check(upper) == verifier.check(case["text"])
        assert verifier.verify(upper).code_text == verifier.verify(case["text"]).code_text


def test_every_invalid_vector_is_refused_by_its_name(vectors: dict[str, Any], verifier: Verifier) -> None:
    for case in vectors["invalid"]:
        verdict = verifier.check(case["text"])
        assert (verdict.verdict, verdict.error) == ("refused", case["error"]), case["note"]
        assert not verdict.is_genuine
        with pytest.raises(VerifyError) as caught:
            verifier.verify(case["text"])
        assert caught.value.code == case["error"], case["note"]


def test_refusal_tells_what_could_be_read_and_never_the_signature(sign: Sign, verifier: Verifier) -> None:
    text = sign(order=3, item=4, profile=2)
    forged = text[:40] + str((int(text[40]) + 1) % 10) + text[41:]
    verdict = verifier.check(forged)
    assert (verdict.error, verdict.gtin, verdict.serial) == ("BadSignature", GTIN, "00003000000004")
    assert (verdict.profile, verdict.kid, verdict.issuer) == (2, 1, None)
    with pytest.raises(BadSignature) as caught:
        verifier.verify(forged)
    for shown in (repr(verdict), repr(caught.value), str(caught.value.label)):
        assert forged[28:60] not in shown


def test_malformed_verdict_has_nothing_but_the_bundle(verifier: Verifier) -> None:
    verdict = verifier.check("x")
    assert verdict.as_json() == {
        "verdict": "refused", "error": "Malformed", "gtin": None, "serial": None, "profile": None, "kid": None,
        "issuer": None, "bundle_seq": 42, "bundle_state": "fresh",
        "clock_suspect": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", [None, b"", b"https://", 7, "", "\ud800", "\ud800" * 300, [], {}, object(), "x" * 10**6]
)
def test_check_never_raises(value: object, verifier: Verifier) -> None:
    assert verifier.check(value).error == "Malformed"


def test_issuer_is_told_only_when_the_signature_was_right(sign: Sign, bundle: Bundle) -> None:
    text = sign()
    verdict = Verifier(revoking(bundle, keys=[1]), now=at(ISSUED)).check(text)
    assert (verdict.error, verdict.issuer) == ("Revoked", "Fanxing Demo Dairy")
    unknown = dataclasses.replace(bundle, keys=())
    assert Verifier(unknown, now=at(ISSUED)).check(text).issuer is None


@pytest.mark.parametrize(
    ("prefixes", "error"),
    [
        (("690123456789",), None),
        (("690123456",), None),
        (("6",), None),
        (("1", "690", "7"), None),
        (("690123456788",), "KeyOutOfScope"),
        (("06901",), "KeyOutOfScope"),
        (("901",), "KeyOutOfScope"),
        (("9506000",), "KeyOutOfScope"),
    ],
)
def test_gtin_prefix_begins_after_the_indicator_digit(
    prefixes: tuple[str, ...], error: str | None, bundle: Bundle, sign: Sign
) -> None:
    assert refusal(scoped(bundle, gtin_prefixes=prefixes), sign()) == error


def test_indicator_digit_does_not_matter_to_scope(bundle: Bundle, sign: Sign) -> None:
    case_of_items = "16901234567899"
    assert refusal(scoped(bundle, gtin_prefixes=("690123456",)), sign(gtin=case_of_items)) is None


@pytest.mark.parametrize(
    ("now", "error"),
    [(99.999, "KeyOutOfScope"), (100, None), (150, None), (200, None), (200.001, "KeyOutOfScope")],
)
def test_validity_period_includes_both_of_its_ends(now: float, error: str | None, bundle: Bundle, sign: Sign) -> None:
    narrow = scoped(bundle, not_before=ISSUED + 100, not_after=ISSUED + 200)
    assert refusal(narrow, sign(), at(ISSUED + now)) == error


@pytest.mark.parametrize(("order", "error"), [(9, "KeyOutOfScope"), (10, None), (20, None), (21, "KeyOutOfScope")])
def test_order_range_of_a_key_includes_both_of_its_ends(
    order: int, error: str | None, bundle: Bundle, sign: Sign
) -> None:
    assert refusal(scoped(bundle, order_min=10, order_max=20), sign(order=order)) == error


@pytest.mark.parametrize("order", [0, 99_999])
def test_unlimited_order_range_covers_every_order(order: int, bundle: Bundle, sign: Sign) -> None:
    assert refusal(bundle, sign(order=order)) is None


@pytest.mark.parametrize(
    ("order", "error"),
    [(9, None), (10, "Revoked"), (15, "Revoked"), (20, "Revoked"), (21, None), (29, None), (30, "Revoked"), (31, None)],
)
def test_revoked_order_range_includes_both_of_its_ends(
    order: int, error: str | None, bundle: Bundle, sign: Sign
) -> None:
    withdrawn = revoking(bundle, orders=[(GTIN, 10, 20), (GTIN, 30, 30), (OTHER_GTIN, 0, 99_999)])
    assert refusal(withdrawn, sign(order=order)) == error


@pytest.mark.parametrize(
    ("item", "error"), [(0, "Revoked"), (1, None), (6, None), (7, "Revoked"), (999_999_999, "Revoked")]
)
def test_revoked_items_are_refused_and_their_neighbours_are_not(
    item: int, error: str | None, bundle: Bundle, sign: Sign
) -> None:
    withdrawn = revoking(bundle, items=[(GTIN, 1, 0), (GTIN, 1, 7), (GTIN, 1, 999_999_999), (OTHER_GTIN, 1, 1)])
    assert refusal(withdrawn, sign(item=item)) == error
    assert refusal(withdrawn, sign(item=item, order=2)) is None


def test_revoked_item_is_refused_as_outer_and_as_inner_code(bundle: Bundle, sign: Sign) -> None:
    withdrawn = revoking(bundle, items=[(GTIN, 1, 7)])
    assert [refusal(withdrawn, sign(item=7, profile=profile)) for profile in (1, 2)] == ["Revoked", "Revoked"]


def test_revoked_key_refuses_its_own_codes_only(bundle: Bundle, sign: Sign) -> None:
    withdrawn = revoking(bundle, keys=[7])
    assert [refusal(withdrawn, sign(kid=kid)) for kid in (1, 7, 99_999)] == [None, "Revoked", None]


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (-300, BundleState.FRESH),
        (0, BundleState.FRESH),
        (3 * DAY - 0.001, BundleState.FRESH),
        (3 * DAY, BundleState.STALE),
        (30 * DAY - 0.001, BundleState.STALE),
        (30 * DAY, BundleState.EXPIRED),
        (300 * DAY, BundleState.EXPIRED),
    ],
)
def test_bundle_ages_from_fresh_to_stale_to_expired(age: float, state: BundleState, bundle: Bundle, sign: Sign) -> None:
    verifier = Verifier(bundle, now=at(ISSUED + age))
    verdict = verifier.check(sign())
    assert verifier.bundle_state() == verdict.bundle_state == state
    assert verdict.error == ("BundleExpired" if state is BundleState.EXPIRED else None)


def test_policy_may_accept_an_expired_bundle_and_the_verdict_says_so(bundle: Bundle, sign: Sign) -> None:
    verdict = Verifier(bundle, Policy(on_expired=Action.ACCEPT), now=at(EXPIRES)).check(sign())
    assert (verdict.is_genuine, verdict.bundle_state) == (True, BundleState.EXPIRED)
    assert "expired" in verdict.message


def test_policy_sets_the_age_of_staleness(bundle: Bundle) -> None:
    hour = Policy(stale_after=timedelta(hours=1))
    assert Verifier(bundle, hour, now=at(ISSUED + 3_599)).bundle_state() is BundleState.FRESH
    assert Verifier(bundle, hour, now=at(ISSUED + 3_600)).bundle_state() is BundleState.STALE
    assert Verifier(bundle, Policy(timedelta(0)), now=at(ISSUED)).bundle_state() is BundleState.STALE
    with pytest.raises(ValueError, match="negative"):
        Policy(stale_after=timedelta(seconds=-1))


def test_first_failing_check_decides(bundle: Bundle, sign: Sign) -> None:
    # A code that fails every check is cured of one failure after another, in the documented order.
    text = sign(order=5)
    forged = text.replace("/21/00005", "/21/00006")
    other_key = dataclasses.replace(bundle.keys[2], kid=2)
    broken = scoped(bundle, order_max=1)
    broken = dataclasses.replace(broken, revocations=Revocations.collect(keys=[1]))
    unknown = dataclasses.replace(broken, keys=(other_key,))
    revoked = dataclasses.replace(bundle, revocations=broken.revocations)
    late = at(EXPIRES)
    assert refusal(unknown, forged + "x", late) == Malformed.code
    assert refusal(unknown, forged, late) == UnknownKey.code
    assert refusal(broken, forged, late) == BadSignature.code
    assert refusal(broken, text, late) == KeyOutOfScope.code
    assert refusal(revoked, text, late) == Revoked.code
    assert refusal(bundle, text, late) == BundleExpired.code
    assert refusal(bundle, text, late, Policy(on_expired=Action.ACCEPT)) is None


@pytest.mark.parametrize(
    ("policy", "now", "verdict", "error"),
    [
        (Policy(), 4 * DAY, "genuine", None),
        (Policy(on_stale=Action.ASK), 4 * DAY, "ask", "BundleStale"),
        (Policy(on_stale=Action.REFUSE), 4 * DAY, "refused", "BundleStale"),
        (Policy(on_stale=Action.REFUSE), DAY, "genuine", None),
        (Policy(), 30 * DAY, "refused", "BundleExpired"),
        (Policy(on_expired=Action.ASK), 30 * DAY, "ask", "BundleExpired"),
        (Policy(on_expired=Action.ACCEPT, on_stale=Action.REFUSE), 30 * DAY, "genuine", None),
        (Policy(), -DAY, "ask", "ClockSuspect"),
        (Policy(on_clock_suspect=Action.REFUSE), -DAY, "refused", "ClockSuspect"),
        (Policy(on_clock_suspect=Action.ACCEPT), -DAY, "genuine", None),
    ],
)
def test_policy_decides_on_each_condition(
    policy: Policy, now: int, verdict: str, error: str | None, bundle: Bundle, sign: Sign
) -> None:
    verifier = Verifier(bundle, policy, at(ISSUED + now))
    judged = verifier.check(sign())
    assert (judged.verdict, judged.error, judged.is_genuine) == (verdict, error, verdict == "genuine")
    assert judged.issuer == "Fanxing Demo Dairy"
    # Never silently green: the flags tell the condition whatever the policy makes of it.
    assert (judged.bundle_state == BundleState.FRESH, judged.clock_suspect) == (now <= DAY, now < 0)
    if error is None:
        genuine = verifier.verify(sign())
        assert (genuine.bundle_state, genuine.clock_suspect) == (judged.bundle_state, judged.clock_suspect)
    else:
        with pytest.raises((BundleStale, BundleExpired, ClockSuspect)) as caught:
            verifier.verify(sign())
        assert (caught.value.code, caught.value.issuer) == (error, "Fanxing Demo Dairy")


@pytest.mark.parametrize(
    ("expired", "suspect", "verdict", "error"),
    [
        (Action.ACCEPT, Action.ACCEPT, "genuine", None),
        (Action.ACCEPT, Action.ASK, "ask", "ClockSuspect"),
        (Action.ASK, Action.ASK, "ask", "BundleExpired"),
        (Action.ASK, Action.REFUSE, "refused", "ClockSuspect"),
        (Action.REFUSE, Action.ASK, "refused", "BundleExpired"),
    ],
)
def test_of_several_conditions_the_severest_action_counts(
    expired: Action, suspect: Action, verdict: str, error: str | None, bundle: Bundle, sign: Sign
) -> None:
    policy = Policy(on_expired=expired, on_clock_suspect=suspect)
    judged = Verifier(bundle, policy, at(ISSUED), seen=EXPIRES).check(sign())
    assert (judged.verdict, judged.error) == (verdict, error)
    assert (judged.bundle_state, judged.clock_suspect) == (BundleState.EXPIRED, True)
    assert "expired" in judged.message
    assert "clock" in judged.message


@pytest.mark.parametrize(("behind", "suspect"), [(0, False), (299.9, False), (300, False), (300.1, True)])
def test_clock_is_suspect_when_it_is_more_than_the_tolerance_behind(
    behind: float, suspect: bool, bundle: Bundle, sign: Sign
) -> None:
    moments = iter([at(ISSUED + DAY), at(ISSUED + DAY - behind)])
    verifier = Verifier(bundle, now=lambda: next(moments))
    assert not verifier.check(sign()).clock_suspect
    assert verifier.check(sign()).clock_suspect == suspect
    assert verifier.seen == ISSUED + DAY


@pytest.mark.parametrize(("before", "suspect"), [(300, False), (301, True)])
def test_bundles_issue_is_a_floor_too(before: int, suspect: bool, bundle: Bundle, sign: Sign) -> None:
    verifier = Verifier(bundle, now=at(ISSUED - before))
    assert verifier.check(sign()).clock_suspect == suspect
    assert verifier.seen == ISSUED - before


def test_clock_set_back_does_not_make_an_expired_bundle_fresh(bundle: Bundle, sign: Sign) -> None:
    verdict = Verifier(bundle, now=at(ISSUED), seen=EXPIRES).check(sign())
    assert (verdict.error, verdict.bundle_state) == ("BundleExpired", BundleState.EXPIRED)


def test_bundle_expires_with_its_root(bundle: Bundle) -> None:
    verifiers = [Verifier(bundle, now=at(ISSUED + 50), root_expires=ISSUED + end) for end in (50, 51, 90 * DAY)]
    assert [one.bundle_state() for one in verifiers] == [BundleState.EXPIRED, BundleState.FRESH, BundleState.FRESH]


def test_policy_takes_actions_alone() -> None:
    with pytest.raises(ValueError, match="Action"):
        Policy(on_stale="accept")  # type: ignore[arg-type]


def test_p256_key_signs_codes_by_the_algorithm_that_the_bundle_gives_it(bundle: Bundle) -> None:
    private = ec.derive_private_key(7, ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    key = BundleKey(8, public, "Stranger", ("690",), algorithm=Algorithm.ESP256)
    verifier = Verifier(dataclasses.replace(bundle, keys=(key,)), now=at(ISSUED))
    message = encode_message(1, 8, GTIN, "00001000000001")
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256())))
    low = min(s, P256_ORDER - s)
    right, high = (
        CodeText(1, 8, GTIN, "00001000000001", r.to_bytes(32, "big") + form.to_bytes(32, "big")).text(BASE)
        for form in (low, P256_ORDER - low)
    )
    assert [verifier.check(text).error for text in (right, right, high)] == [None, None, "BadSignature"]


def test_p256_key_without_its_package_refuses_and_does_not_crash(bundle: Bundle, sign: Sign) -> None:
    public = bytes.fromhex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
    key = BundleKey(1, public, "Stranger", ("690",), algorithm=Algorithm.ESP256)
    verifier = Verifier(dataclasses.replace(bundle, keys=(key,)), now=at(ISSUED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "offline_sdk.p256", None)
        verdict = verifier.check(sign())
    assert (verdict.verdict, verdict.error, verdict.gtin) == ("refused", "AlgorithmMissing", GTIN)
    assert verifier.check(sign()).error == "BadSignature"


def test_each_bit_of_signature_and_message_counts(bundle: Bundle, signing_key: SigningKey) -> None:
    # libsodium is called without the wrapper's checks: what it is given must still be all of both.
    message = encode_message(1, 1, GTIN, "00001000000005")
    signature = signing_key.sign(message).signature
    verifier = Verifier(bundle, now=at(ISSUED))
    assert verifier.check(CodeText(1, 1, GTIN, "00001000000005", signature).text(BASE)).is_genuine
    for bit in range(512):
        altered = bytes(byte ^ (1 << bit % 8) * (at_ == bit // 8) for at_, byte in enumerate(signature))
        assert verifier.check(CodeText(1, 1, GTIN, "00001000000005", altered).text(BASE)).error == "BadSignature"
    for digit in range(14):
        other = "00001000000005"[:digit] + "7" + "00001000000005"[digit + 1 :]
        assert verifier.check(CodeText(1, 1, GTIN, other, signature).text(BASE)).error == "BadSignature"


def test_signature_under_another_key_number_is_bad_even_with_the_same_key(bundle: Bundle, sign: Sign) -> None:
    # The key number is signed, so a code cannot be moved to a key of wider scope.
    text = sign(kid=1)
    assert refusal(bundle, text.replace("/100001", "/100007")) == "BadSignature"


def test_host_is_not_signed(bundle: Bundle, sign: Sign) -> None:
    assert refusal(bundle, sign().replace(BASE, "http://moved.example:8080")) is None


def test_each_key_number_is_verified_with_its_own_key(bundle: Bundle, sign: Sign) -> None:
    stranger = BundleKey(2, bytes(SigningKey(bytes(32)).verify_key), "Stranger", ("690",))
    mixed = dataclasses.replace(bundle, keys=(bundle.keys[0], stranger))
    assert refusal(mixed, sign(kid=1)) is None
    assert refusal(mixed, sign(kid=2)) == "BadSignature"


def test_time_may_be_fixed_or_asked_for_in_any_zone(bundle: Bundle) -> None:
    moments = iter([at(ISSUED), at(EXPIRES)])
    verifier = Verifier(bundle, now=lambda: next(moments))
    assert [verifier.bundle_state(), verifier.bundle_state()] == [BundleState.FRESH, BundleState.EXPIRED]
    shanghai = at(EXPIRES).astimezone(timezone(timedelta(hours=8)))
    assert Verifier(bundle, now=shanghai).bundle_state() is BundleState.EXPIRED


def test_system_clock_is_the_default() -> None:
    now = int(datetime.now(UTC).timestamp())
    assert Verifier(Bundle("d", 1, now - 10, now + 10_000, ())).bundle_state() is BundleState.FRESH
    assert Verifier(Bundle("d", 1, now - 10, now - 5, ())).bundle_state() is BundleState.EXPIRED


def test_naive_time_is_a_mistake_of_the_caller(bundle: Bundle) -> None:
    naive = at(ISSUED).replace(tzinfo=None)
    with pytest.raises(ValueError, match="naive"):
        Verifier(bundle, now=naive)
    with pytest.raises(ValueError, match="naive"):
        Verifier(bundle, now=lambda: naive).check("")

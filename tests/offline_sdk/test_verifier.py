import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from nacl.signing import SigningKey

from offline_sdk import (
    BadSignature,
    Bundle,
    BundleExpired,
    BundleKey,
    BundleState,
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
            "Fanxing Demo Dairy", 42, BundleState.FRESH,
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
        (-DAY, BundleState.FRESH),
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
    verdict = Verifier(bundle, Policy(accept_expired=True), now=at(EXPIRES)).check(sign())
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
    assert refusal(bundle, text, late, Policy(accept_expired=True)) is None


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

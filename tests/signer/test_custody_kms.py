"""KMS custody: one call a message, several at a time, and refusals that say what to do."""

import boto3
import pytest

from offline_sdk.algorithms import Algorithm, signature_is_right
from signer.custody import CustodyError, PrivateKeyMissing
from signer.custody.kms import CALLS_MAX, MESSAGE_BYTES_MAX, KmsCustody
from signer.service import KmsCustodyAccess
from tests.signer.kms_simulator import KmsSimulator

NAME = "key-00001"


@pytest.fixture
def custody(kms: KmsSimulator) -> KmsCustody:
    return KmsCustody(kms.url, "fanxing/")


def test_a_key_lies_under_an_alias_of_its_name(kms: KmsSimulator, custody: KmsCustody) -> None:
    custody.create(NAME, Algorithm.ED25519)
    assert list(kms.aliases) == ["alias/fanxing/key-00001"]
    with pytest.raises(PrivateKeyMissing, match="alias/other/key-00001"):
        KmsCustody(kms.url, "other/").open(NAME)


def test_one_message_is_one_call_and_several_are_under_way_at_a_time(kms: KmsSimulator, custody: KmsCustody) -> None:
    custody.create(NAME, Algorithm.ED25519)
    before = kms.calls["Sign"]
    custody.sign_many(NAME, [b"x"] * 200)
    assert kms.calls["Sign"] == before + 200
    assert 1 < kms.under_way_max <= CALLS_MAX


def test_throttled_calls_are_made_again(kms: KmsSimulator, custody: KmsCustody) -> None:
    public = custody.create(NAME, Algorithm.ED25519)
    kms.throttled = 2
    assert signature_is_right(Algorithm.ED25519, public, b"x", custody.sign_many(NAME, [b"x"])[0])
    assert kms.throttled == 0


def test_the_first_refusal_of_many_ends_them_all(kms: KmsSimulator, custody: KmsCustody) -> None:
    custody.create(NAME, Algorithm.ED25519)
    before = kms.calls["Sign"]
    for key in kms.keys.values():
        key.enabled = False
    with pytest.raises(CustodyError, match="refused sign: DisabledException") as refused:
        custody.sign_many(NAME, [b"x"] * 10_000)
    assert "enable-key" in refused.value.hint
    assert kms.calls["Sign"] < before + 2_000


@pytest.mark.parametrize("algorithm", list(Algorithm), ids=lambda algorithm: algorithm.label)
@pytest.mark.parametrize("length", [MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX])
def test_the_longest_message_is_signed(custody: KmsCustody, algorithm: Algorithm, length: int) -> None:
    public = custody.create(NAME, algorithm)
    assert signature_is_right(algorithm, public, b"m" * length, custody.sign_many(NAME, [b"m" * length])[0])


def test_p256_signs_longer_documents_by_their_digest(custody: KmsCustody) -> None:
    public, document = custody.create(NAME, Algorithm.ESP256), b"m" * (MESSAGE_BYTES_MAX + 1)
    assert signature_is_right(Algorithm.ESP256, public, document, custody.sign_many(NAME, [document])[0])


def test_a_longer_document_says_that_ed25519_cannot(kms: KmsSimulator, custody: KmsCustody) -> None:
    custody.create(NAME, Algorithm.ED25519)
    before = dict(kms.calls)
    with pytest.raises(CustodyError, match=r"at most 4,096 bytes with Ed25519") as refused:
        custody.sign_many(NAME, [b"m" * (MESSAGE_BYTES_MAX + 1)])
    assert "P-256" in refused.value.hint
    assert kms.calls == before


def test_an_alias_that_was_turned_to_another_key_changes_no_signature(kms: KmsSimulator, custody: KmsCustody) -> None:
    public = custody.create(NAME, Algorithm.ED25519)
    KmsCustody(kms.url, "fanxing/").create("key-00002", Algorithm.ED25519)
    kms.aliases["alias/fanxing/key-00001"] = kms.aliases["alias/fanxing/key-00002"]
    assert signature_is_right(Algorithm.ED25519, public, b"x", custody.sign_many(NAME, [b"x"])[0])


def test_a_name_that_was_taken_meanwhile_leaves_no_key_behind(
    kms: KmsSimulator, custody: KmsCustody, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = custody.create(NAME, Algorithm.ED25519)
    made, kept = list(kms.keys), KmsCustody(kms.url, "fanxing/")

    describe = kms._describekey  # between the look at the name and the making of the key, somebody else took it
    monkeypatch.setattr(kms, "_describekey", lambda asked: describe({"KeyId": "nothing"}))
    with pytest.raises(CustodyError, match="refused create_alias: AlreadyExistsException"):
        kept.create(NAME, Algorithm.ED25519)
    assert kms.deleted == [arn for arn in kms.keys if arn not in made]
    assert custody.open(NAME) == (Algorithm.ED25519, public)


def test_without_credentials_or_region_the_refusal_says_so(kms: KmsSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CustodyError, match="NoCredentialsError") as refused:
        KmsCustody(kms.url, "fanxing/").open(NAME)
    assert "AWS_PROFILE" in refused.value.hint
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(CustodyError, match="NoRegionError") as refused:
        KmsCustody("", "fanxing/").open(NAME)
    assert "AWS_DEFAULT_REGION" in refused.value.hint


def test_a_service_that_does_not_answer_is_told(aws: None) -> None:
    with pytest.raises(CustodyError, match="EndpointConnectionError") as refused:
        KmsCustody("http://127.0.0.1:9", "fanxing/").open(NAME)
    assert "FANXING_KMS_ENDPOINT" in refused.value.hint


def test_the_access_opens_a_service_that_signs(kms: KmsSimulator) -> None:
    service = KmsCustodyAccess(kms.url, "fanxing/").open()
    signer = service.create_named("publisher-1", Algorithm.ESP256)
    assert service.named("publisher-1") == signer
    right = service.sign_named("publisher-1", b"x")
    assert signature_is_right(signer.algorithm, signer.public, b"x", right)

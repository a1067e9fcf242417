"""Senders of one-time codes: a gateway over real HTTP that drops, fails and refuses, and sends every message once."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kit.errors import ConfigurationError
from kit.settings import Settings
from loyalty.code_senders import (
    DevelopmentCode,
    GatewaySender,
    MessageNotSent,
    SenderMissing,
    sender_of,
)
from loyalty.sign_in import CodePurpose, IssuedCode
from tests.loyalty.conftest import NOW

ROOT = Path(__file__).parents[2]
PHONE = "+8613800138000"
TOKEN = "gateway-token"


def issued(phone: str = PHONE, purpose: CodePurpose = CodePurpose.SIGN_IN) -> IssuedCode:
    return IssuedCode(phone, "123456", NOW + timedelta(minutes=5), uuid.uuid4(), purpose)


class Gateway:
    """`python -m loadtest.messages` as a process of its own."""

    def __init__(self, *misbehaviour: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.messages", "--port", "0", "--token", TOKEN, *misbehaviour],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def sent(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = httpx2.get(f"{self.url}/messages", trust_env=False).json()["messages"]
        return answer

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


@pytest.fixture(scope="module")
def gateways() -> Iterator[dict[str, Gateway]]:
    made = {
        "good": Gateway("--refuse", "+8613800138009"),
        "forgetful": Gateway("--drop", "0.6", "--seed", "4"),
        "failing": Gateway("--fail", "1"),
        "slow": Gateway("--delay-s", "1"),
    }
    yield made
    for gateway in made.values():
        gateway.stop()


async def send(gateway: Gateway, code: IssuedCode, token: str = TOKEN, timeout_s: float = 4.0) -> None:
    sender = GatewaySender(gateway.url + "/", token, timeout_s)
    try:
        assert await sender.send(code, "zh") is None
    finally:
        await sender.close()


async def test_a_message_arrives_with_number_code_and_language(gateways: dict[str, Gateway]) -> None:
    code = issued()
    await send(gateways["good"], code)
    [message] = [one for one in gateways["good"].sent() if one["id"] == str(code.message_id)]
    assert message == {
        "id": str(code.message_id),
        "phone": PHONE,
        "template": "sign-in-code",
        "language": "zh",
        "code": "123456",
        "expires_at": "2026-05-01T08:05:00.000Z",
        "submissions": 1,
    }


async def test_the_text_of_a_message_says_what_its_code_is_for(gateways: dict[str, Gateway]) -> None:
    codes = {purpose: issued(purpose=purpose) for purpose in CodePurpose}
    for code in codes.values():
        await send(gateways["good"], code)
    sent = {one["id"]: one["template"] for one in gateways["good"].sent()}
    assert {purpose: sent[str(code.message_id)] for purpose, code in codes.items()} == {
        CodePurpose.SIGN_IN: "sign-in-code",
        CodePurpose.MERGE: "merge-code",
        CodePurpose.UNMERGE: "unmerge-code",
        CodePurpose.ERASE: "erase-code",
    }


async def test_a_gateway_that_forgets_to_answer_sends_each_message_once(gateways: dict[str, Gateway]) -> None:
    codes = [issued() for _ in range(8)]
    for code in codes:
        try:
            await send(gateways["forgetful"], code)
        except MessageNotSent:
            continue
    messages = {one["id"]: one["submissions"] for one in gateways["forgetful"].sent()}
    assert messages.keys() == {str(code.message_id) for code in codes}
    assert 2 in messages.values()


@pytest.mark.parametrize("kind", ["failing", "slow"])
async def test_a_gateway_that_is_away_is_said_so(gateways: dict[str, Gateway], kind: str) -> None:
    with pytest.raises(MessageNotSent) as refusal:
        await send(gateways[kind], issued(), timeout_s=0.2)
    assert PHONE not in f"{refusal.value} {refusal.value.hint}"


async def test_a_gateway_that_nobody_answers_for_is_said_so() -> None:
    sender = GatewaySender("http://127.0.0.1:9", TOKEN)
    with pytest.raises(MessageNotSent):
        await sender.send(issued(), "en")
    await sender.close()


@pytest.mark.parametrize(("phone", "token"), [("+8613800138009", TOKEN), (PHONE, "another")])
async def test_a_refusal_for_good_is_not_repeated_and_tells_no_number(
    gateways: dict[str, Gateway], phone: str, token: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = issued(phone)
    with pytest.raises(MessageNotSent) as refusal:
        await send(gateways["good"], code, token)
    out, err = capfd.readouterr()
    assert phone not in f"{refusal.value} {refusal.value.hint}{out}{err}"
    assert phone[3:] not in out + err
    assert str(code.message_id) not in {one["id"] for one in gateways["good"].sent()}


async def test_the_development_sender_hands_the_code_back() -> None:
    sender = sender_of(Settings(code_sender="development"))
    assert await sender.send(issued(), "zh") == DevelopmentCode("123456")
    assert not sender.is_limited


async def test_without_a_sender_the_lack_is_named() -> None:
    with pytest.raises(SenderMissing) as refusal:
        await sender_of(Settings(code_sender="none")).send(issued(), "en")
    assert "FANXING_CODE_SENDER" in refusal.value.hint


def test_a_gateway_without_an_address_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match="FANXING_SMS_URL"):
        sender_of(Settings(code_sender="gateway"))

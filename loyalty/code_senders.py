"""How one-time codes reach a phone: by the message gateway of an operator, or, while developing, in the answer."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

import httpx2
import structlog

from kit.clock import iso
from kit.errors import ConfigurationError, Unavailable
from kit.settings import Settings
from loyalty.sign_in import CodePurpose, IssuedCode

Language = Literal["zh", "en"]

GATEWAY_TIMEOUT_S = 4.0
GATEWAY_TRIES_MAX = 2
"""The second try carries the id of the first, so that a gateway that only forgot to answer sends nothing twice."""
GATEWAY_PAUSE_S = 0.3
TEMPLATES: Mapping[CodePurpose, str] = {
    CodePurpose.SIGN_IN: "sign-in-code",
    CodePurpose.MERGE: "merge-code",
    CodePurpose.UNMERGE: "unmerge-code",
    CodePurpose.ERASE: "erase-code",
}
"""The gateway's texts: carriers have them registered beforehand. Each says what its code is for."""

_log = structlog.get_logger()


class SenderMissing(Unavailable):
    """This installation has no way to send one-time codes."""

    code = "SenderMissing"


class MessageNotSent(Unavailable):
    """The gateway did not take the message."""

    code = "MessageNotSent"


@dataclass(frozen=True)
class DevelopmentCode:
    """A one-time code that the answer itself may show, because no message was sent."""

    code: str


class CodeSender(Protocol):
    """Brings a one-time code to a phone."""

    @property
    def is_limited(self) -> bool:
        """Whether limits by device and address protect anything here."""
        ...

    async def send(self, issued: IssuedCode, language: Language) -> DevelopmentCode | None:
        """Send the code, or hand it back for the answer to show. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class DevelopmentSender:
    """Sends nothing and gives the code back. Never where strangers can come: it lets anybody in as anybody."""

    is_limited = False

    async def send(self, issued: IssuedCode, language: Language) -> DevelopmentCode | None:
        return DevelopmentCode(issued.code)

    async def close(self) -> None:
        """Nothing is open."""


class NoSender:
    """Stands where no sender is configured, and says so."""

    is_limited = True

    async def send(self, issued: IssuedCode, language: Language) -> DevelopmentCode | None:
        raise SenderMissing(
            "this installation cannot send one-time codes", hint="Set FANXING_CODE_SENDER, see README.md."
        )

    async def close(self) -> None:
        """Nothing is open."""


class GatewaySender:
    """Hands codes to an HTTP message gateway: one POST with an id under which it sends a message once.

    The phone number travels in the body alone, never in a URL, and is never logged.
    """

    is_limited = True

    def __init__(self, url: str, token: str, timeout_s: float = GATEWAY_TIMEOUT_S) -> None:
        self._url = url.rstrip("/") + "/messages"
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=timeout_s, trust_env=False
        )

    async def send(self, issued: IssuedCode, language: Language) -> DevelopmentCode | None:
        body = {
            "id": str(issued.message_id),
            "phone": issued.phone_e164,
            "template": TEMPLATES[issued.purpose],
            "language": language,
            "code": issued.code,
            "expires_at": iso(issued.expires_at),
        }
        for number in range(1, GATEWAY_TRIES_MAX + 1):
            if await self._is_taken(issued.message_id, body):
                return None
            if number < GATEWAY_TRIES_MAX:
                await asyncio.sleep(GATEWAY_PAUSE_S)
        raise MessageNotSent("the message with your code could not be sent", hint="Try again in a minute.")

    async def _is_taken(self, message_id: UUID, body: dict[str, str]) -> bool:
        """Whether the gateway took the message. Raises MessageNotSent when it refused for good."""
        try:
            answer = await self._client.post(self._url, json=body, headers={"Idempotency-Key": str(message_id)})
        except httpx2.HTTPError as error:
            _log.warning("message gateway away", message_id=str(message_id), error=type(error).__name__)
            return False
        if answer.is_success:
            return True
        # Never the answer's text: gateways repeat the number that they do not like.
        _log.warning("message gateway refused", message_id=str(message_id), status=answer.status_code)
        if answer.status_code < 500 and answer.status_code != httpx2.codes.TOO_MANY_REQUESTS:
            raise MessageNotSent("the message with your code could not be sent", hint="Is the number right?")
        return False

    async def close(self) -> None:
        await self._client.aclose()


def sender_of(settings: Settings) -> CodeSender:
    """The sender that FANXING_CODE_SENDER names. Raises ConfigurationError."""
    if settings.code_sender == "development":
        return DevelopmentSender()
    if settings.code_sender == "none":
        return NoSender()
    if not settings.sms_url:
        raise ConfigurationError(
            "FANXING_SMS_URL: needed by FANXING_CODE_SENDER=gateway", hint="Name the gateway's base URL."
        )
    return GatewaySender(settings.sms_url, settings.sms_token.get_secret_value())

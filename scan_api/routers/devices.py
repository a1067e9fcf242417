"""For shop scanners: enrolment by a code, and the journal of their scans (docs/scanner-api.md).

A device signs every request, so bodies are read as they were sent, checked, and only then unpacked and parsed.
"""

import base64
import binascii
import uuid
import zlib
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from codes.catalogue import Brand
from offline_sdk.root import read_pin
from scan_api import device_scans, devices
from scan_api.auth import device_signatures
from scan_api.device_scans import Batch, Record, milliseconds
from scan_api.devices import NAME_CHARACTERS_MAX
from scan_api.errors import BodyTooLarge, RequestInvalid
from scan_api.services import Serve, Services

UNPACKED_BYTES_MAX: Final = 2 * 1024 * 1024
ENROLMENT_BYTES_MAX: Final = 4 * 1024
"""Unpacked too. Whoever asks to be let in is a stranger: his body is parsed before his signature can be checked."""
_GZIP: Final = 16 + zlib.MAX_WBITS  # zlib's way of asking for RFC 1952

Model = TypeVar("Model", bound=BaseModel)


class Timed(APIRoute):
    """A route whose every answer, also a refusal, tells the server's time: a device sets its offset by it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services = scope["app"].state.services

        async def send_with_time(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["fanxing-time"] = str(milliseconds(services.clock()))
                if message["status"] == 401:
                    headers["www-authenticate"] = "Signature"
            await send(message)

        await super().handle(scope, receive, send_with_time)


router = APIRouter(prefix="/v1/devices", tags=["devices"], route_class=Timed)


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name is printable")
    return name


class Enrolment(BaseModel):
    """A device that asks to be let in."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    code: str = Field(max_length=40, description="12 symbols of Crockford's base 32, hyphens and case as you like")
    public_key: str = Field(max_length=43, description="Ed25519, 32 bytes in base64url without padding; also the keyid")
    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX), AfterValidator(_printable)]


def _described(model: type[BaseModel], **parts: type[BaseModel]) -> dict[str, Any]:
    """The request body in /openapi.json, which the framework cannot tell of a body that it does not parse."""
    schema = model.model_json_schema()
    for name, part in parts.items():
        schema["properties"][name]["items"] = part.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("", status_code=201, openapi_extra=_described(Enrolment))
async def enrol(request: Request, services: Serve) -> dict[str, Any]:
    """Let a device in that holds an enrolment code, signed by the key that it will sign with from now on."""
    body = await request.body()
    asked = _parse(Enrolment, _unpack(request, body, ENROLMENT_BYTES_MAX))
    public = _public_key(asked.public_key)
    devices.admit_key(public)
    now = services.clock()
    device_signatures.verify(_message(request), body, asked.public_key, public, now)
    services.wrong_enrolments.take(now)
    async with services.database.writing() as session:
        device = await devices.enrol(
            session, services.vault, services.settings.trust_domain, asked.code, public, asked.name, now
        )
        brand = await session.get(Brand, device.brand_id) if device.brand_id is not None else None
    services.wrong_enrolments.give_back()
    return {
        "device_id": str(device.device_id),
        "domain": services.settings.trust_domain,
        "brand": brand.slug if brand else None,
        "pin": read_pin(services.settings.root_pin_path.read_bytes()).hex(),
        "server_time_ms": milliseconds(services.clock()),
    }


@router.post("/{device_id}/scans", openapi_extra=_described(Batch, records=Record))
async def take_scans(device_id: uuid.UUID, request: Request, services: Serve) -> dict[str, Any]:
    """Take in a batch of a device's journal, signed by its key; every record is answered, in the order of the batch.

    The body may be gzip. A batch that was taken in before, or in part, may be sent again, and changes nothing.
    """
    body = await request.body()
    now = services.clock()
    async with services.database.reading() as session:
        device = await session.get(devices.Device, device_id)
    if device is None:
        raise device_signatures.refusal()
    created_s = device_signatures.verify(_message(request), body, str(device_id), device.public_key, now)
    devices.refuse_if_revoked(device)
    batch = _parse(Batch, _unpack(request, body, UNPACKED_BYTES_MAX))
    async with services.database.writing() as session:
        answers = await device_scans.take_in(session, services.scans, device_id, batch, created_s, now)
    return {"server_time_ms": milliseconds(services.clock()), "answers": [answer.as_json() for answer in answers]}


def _message(request: Request) -> device_signatures.Message:
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    return device_signatures.Message(request.method, f"{path}?{query}" if query else path, request.headers)


def _unpack(request: Request, body: bytes, bytes_max: int) -> bytes:
    """The JSON in a body. Raises BodyTooLarge before more than `bytes_max` of it are in memory, and RequestInvalid."""
    if request.headers.get("content-type") != "application/json":
        raise RequestInvalid("the body is JSON; send `Content-Type: application/json`")
    encoding = request.headers.get("content-encoding")
    if encoding not in (None, "gzip"):
        raise RequestInvalid("a body is sent as it is, or with `Content-Encoding: gzip`")
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, bytes_max + 1) if encoding else body
    except zlib.error:
        raise RequestInvalid("the body is not gzip") from None
    if len(unpacked) > bytes_max:
        raise BodyTooLarge(f"this request's body has at most {bytes_max // 1024} KiB when it is unpacked")
    if encoding and (not unpacking.eof or unpacking.unused_data):
        raise RequestInvalid("the body is not one whole gzip member")
    return unpacked


def _parse(model: type[Model], body: bytes) -> Model:
    try:
        # `model_validate_json` copies into its errors what does not fit: a body made for that would cost ten seconds.
        return model.model_validate(from_json(body))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None
    except ValueError:
        raise RequestInvalid("the body is not JSON") from None


def _public_key(text: str) -> bytes:
    """Raises DeviceKeyRefused when it is not the one form of 32 bytes in base64url without padding (RFC 4648, 5)."""
    try:
        public = base64.b64decode(f"{text}=".encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        public = b""
    return public if base64.urlsafe_b64encode(public) == f"{text}=".encode() else b""

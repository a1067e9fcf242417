"""The description of the API (OpenAPI 3.1): as the framework makes it, with what it does not know of.

That is: refusals are problems (RFC 9457), who may call what and how he proves it, and what an idempotent request and a
sandbox's answer look like.
"""

import re
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from scan_api import idempotency, openapi_examples, sandbox
from scan_api.errors import MEDIA_TYPE, Problem

METHODS: Final = frozenset({"get", "head", "post", "put", "patch", "delete", "options"})
SCHEMES: Final[dict[str, dict[str, Any]]] = {
    "memberSession": {
        "type": "http",
        "scheme": "bearer",
        "description": "A member's session token, from POST /v1/sign-in. Browsers hold it in a cookie.",
    },
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "fx_ID_SECRET",
        "description": "An API key (`fanxing api-key create`). Its role and brand decide what it may do.",
    },
    "fetchCode": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "fxp_…",
        "description": "The fetch code of a code package's link.",
    },
    "deviceSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "HTTP Message Signature (RFC 9421) by the device's key, see docs/scanner-api.md.",
    },
    "providerSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "Fanxing-Signature",
        "description": "HMAC-SHA-256 by the secret agreed with the provider, see docs/loyalty/fulfilment.md.",
    },
}
_MEMBER: Final[list[dict[str, list[str]]]] = [{"memberSession": []}]
_KEY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}]
# By how method and path begin, or the path alone, the longest that fits; what is not named here is open to everybody.
_SECURITY: Final[dict[str, list[dict[str, list[str]]]]] = {
    "/v1/me": _MEMBER,
    "/v1/session": _MEMBER,
    "/v1/claims": _MEMBER,
    "POST /v1/packets/": _MEMBER,
    "/v1/shop/": _KEY,
    "/v1/crm/": _KEY,
    "/v1/brand/": _KEY,
    "/v1/partner/": _KEY,
    "/v1/regulator/": _KEY,
    "/epcis/": _KEY,
    "OPTIONS /epcis/capture": [],
    "/v1/packing": _KEY,
    "/v1/trace/": _KEY,
    "/v1/evidence/": _KEY,
    "/log/entries/": _KEY,
    "/v1/devices": [{"deviceSignature": []}],
    "/v1/callbacks/": [{"providerSignature": []}],
    "/packages/": [{"fetchCode": []}],
}
_BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_EXPORT: Final = {
    "application/json": {
        "schema": {"type": "object", "required": ["exported_at", "member"]},
        "example": {"exported_at": "2026-05-01T08:00:00.000Z", "member": [{"phone": "+8613800138000", "name": None}]},
    }
}
_SAME: Final = {"description": "What If-None-Match names is the newest"}
_VERDICT: Final = {"application/json": {"schema": {"type": "object", "required": ["verdict"]}}}
# Answers that the framework cannot tell of, since the routes make them themselves; they complete what it tells.
_ANSWERS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "GET /{code_path}": {
        "200": {"description": "Genuine, also with a warning", "content": {**_VERDICT, "text/html": {}}},
        "400": {"description": "No code, or not as it was printed"},
        "404": {"description": "Never issued, or forged"},
        "410": {"description": "Revoked, recalled or voided"},
    },
    "GET /readyz": {
        "503": {"description": "Not ready", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
    "GET /metrics": {"200": {"description": "Metrics", "content": _TEXT}},
    "GET /v1/trust": {
        "200": {"description": "Root documents and the trust bundle", "content": {"application/cbor-seq": _BYTES}},
        "204": {"description": "Who asks holds the newest"},
        "304": _SAME,
    },
    "GET /log/checkpoint": {"200": {"description": "A signed note (C2SP)", "content": _TEXT}, "304": _SAME},
    "GET /log/key": {"200": {"description": "A verifier key (C2SP)", "content": _TEXT}, "304": _SAME},
    "GET /log/tile/{path}": {
        "200": {"description": "A tile (C2SP)", "content": {"application/octet-stream": _BYTES}},
        "304": _SAME,
    },
    "GET /v1/evidence/{thing}": {"200": {"description": "An evidence bundle", "content": {"application/zip": _BYTES}}},
    "GET /v1/me/export": {"200": {"description": "All of it, table by table", "content": _EXPORT}},
    "GET /v1/draws/{draw_id}/record": {
        "200": {
            "description": "A line for each play",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        }
    },
    "POST /packages/{package_id}": {
        "200": {"description": "The sealed package", "content": {"application/octet-stream": _BYTES}}
    },
}
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_SECRET_HEADERS: Final = frozenset({"authorization", "fanxing-signature"})
"""Described by a security scheme, and so no parameters (OpenAPI 3.1, 4.8.12.1)."""


def document(app: FastAPI) -> dict[str, Any]:
    """The whole description, made once."""
    if app.openapi_schema is None:
        described = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version=app.openapi_version,
            description=app.description,
            routes=app.routes,
        )
        components = described.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        components["securitySchemes"] = SCHEMES
        for path, operations in described["paths"].items():
            for method in METHODS & operations.keys():
                _complete(method, path, operations[method])
        openapi_examples.complete(described)
        app.openapi_schema = described
    return app.openapi_schema


def security_of(method: str, path: str) -> list[dict[str, list[str]]]:
    """Who may call an operation; empty: everybody."""
    fitting = [start for start in _SECURITY if path.startswith(start) or f"{method.upper()} {path}".startswith(start)]
    return _SECURITY[max(fitting, key=len)] if fitting else []


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    security = security_of(method, path)
    operation["security"] = security
    parameters = _parameters(path, operation.pop("parameters", []))
    if parameters:
        operation["parameters"] = parameters
    responses = operation["responses"]
    responses.pop("422", None)  # what the framework refuses is 400 here
    responses.update(_ANSWERS.get(f"{method.upper()} {path}", {}))
    if any(_is_idempotency_key(one) for one in parameters):
        for status, response in responses.items():
            if status.startswith("2"):
                response.setdefault("headers", {})[idempotency.REPLAYED] = {
                    "description": "true: this is the answer of the first time, and nothing was done now",
                    "schema": {"type": "string", "const": "true"},
                }
        _add(responses, "409", "The present state forbids it, or the Idempotency-Key was used for another request")
    if security:
        _add(responses, "401", "Who is calling is not proven: WWW-Authenticate says how to")
        _add(responses, "403", "This caller may not do this")
        for status, response in responses.items():
            if status.startswith("2"):
                response.setdefault("headers", {})[sandbox.HEADER.title()] = {
                    "description": "true: all this is make-believe",
                    "schema": {"type": "string", "const": "true"},
                }
    _add(responses, "default", "A refusal, or a failure of this server: 400, 404, 409, 413, 429 or 503, see `code`")


def _parameters(path: str, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that the framework tells of, without secrets, and parts of the path that a route reads by itself."""
    kept = [one for one in told if one["in"] != "header" or not _is_secret(one["name"])]
    known = {one["name"] for one in kept if one["in"] == "path"}
    return kept + [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
        if name not in known
    ]


def _add(responses: dict[str, Any], status: str, description: str) -> None:
    responses[status] = {"description": description, "content": _PROBLEM}


def _is_secret(name: str) -> bool:
    return name.lower() in _SECRET_HEADERS


def _is_idempotency_key(parameter: dict[str, Any]) -> bool:
    return bool(parameter["in"] == "header" and parameter["name"].lower() == idempotency.HEADER.lower())

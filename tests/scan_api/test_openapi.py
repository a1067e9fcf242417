"""The API's description is a contract: complete, true to itself, and its examples are understood by a real server."""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import jsonschema
import pytest

from scan_api import openapi, playground
from scan_api.app import description
from scan_api.errors import MEDIA_TYPE, TYPE_PREFIX
from scan_api.paging import LIMIT_MAX
from scan_api.playground import Playground
from tests.cli import invoke
from tests.stand import Stand

JSON = "application/json"
DESCRIBED = description()
AUDIENCES = ("/v1/me", "/v1/shop", "/v1/crm", "/v1/brand/", "/v1/sign-in", "/v1/claims")
"""What apps, tills and CRM systems use: every body and answer there has a schema and an example."""

# POSTs under these move value, so that a network's repetition must not move it twice.
VALUE_MOVES_UNDER = ("/v1/me", "/v1/shop", "/v1/crm", "/v1/claims")
# Those that move none, or that are idempotent by an id of their own, and why.
NO_KEY_NEEDED = {
    "POST /v1/me/consents": "the same version is agreed to once",
    "POST /v1/me/sign-out-everywhere": "who is signed out stays so",
    "POST /v1/me/benefits/{held_id}/code": "a benefit has one code, dealt at the first asking, the same ever after",
    "POST /v1/me/benefits/{held_id}/reservation": "one benefit, one basket: again, it lasts longer",
    "POST /v1/me/referral/links": "a member's link of a program is always the same",
    "POST /v1/shop/redemptions/validate": "reads, and counts towards the till's limit",
    "POST /v1/shop/redemptions/offline": "each line has an id that the till chose, and counts once",
    "POST /v1/shop/reservations": "one coupon, one basket: again, it lasts longer",
    "POST /v1/shop/reservations/release": "a coupon that no basket holds stays so",
    "POST /v1/shop/purchases/quote": "reads, and counts towards the till's limit",
    "POST /v1/shop/members/lookup": "reads, and counts towards the till's limit",
}

ENDING = {"DELETE /v1/me", "POST /v1/me/sign-out-everywhere"}
"""Who is erased or signed out asks nothing more."""


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DESCRIBED["paths"].items():
        for method in sorted(openapi.METHODS & methods.keys()):
            yield method, path, methods[method]


def named(method: str, path: str) -> str:
    return f"{method.upper()} {path}"


OPERATIONS = {named(method, path): (path, operation) for method, path, operation in operations()}
OF_AUDIENCES = {name: one for name, one in OPERATIONS.items() if one[0].startswith(AUDIENCES)}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where it is a reference."""
    while "$ref" in schema:
        at: Any = DESCRIBED
        for part in schema["$ref"].removeprefix("#/").split("/"):
            at = at[part]
        schema = at
    return schema


def examples(content: dict[str, Any]) -> list[Any]:
    """Every example of a body: beside its schema or in it."""
    schema = resolved(content["schema"]) if "schema" in content else {}
    found = [content["example"]] if "example" in content else []
    found += [one["value"] for one in content.get("examples", {}).values()]
    found += [schema["example"]] if "example" in schema else []
    return found + list(schema.get("examples", []))


def check(instance: Any, schema: dict[str, Any]) -> None:
    """Raises ValidationError where an instance is not what its schema says (JSON Schema 2020-12)."""
    whole = {**schema, "components": DESCRIBED["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(instance)


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON bodies of an operation, of the request and of answers that are no refusals."""
    if JSON in operation.get("requestBody", {}).get("content", {}):
        yield "request", operation["requestBody"]["content"][JSON]
    for status, response in operation["responses"].items():
        if status.startswith("2") and JSON in response.get("content", {}):
            yield status, response["content"][JSON]


PUBLIC = (
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /log/checkpoint",
    "GET /log/consistency",
    "GET /log/key",
    "GET /log/status",
    "GET /log/tile/",
    "GET /.well-known/",
    "GET /v1/trust",
    "POST /v1/sign-in",
    "GET /v1/brands/",
    "GET /v1/campaigns/",
    "GET /v1/consent-documents",
    "GET /v1/draws/",
    "GET /v1/packets/",
    "GET /{code_path}",
    "OPTIONS /epcis/capture",
    "GET /log/checkpoint",
    "GET /log/consistency",
    "GET /log/key",
    "GET /log/status",
    "GET /log/tile/",
)


class TestDocument:
    """The whole."""

    def test_it_is_openapi_3_1(self) -> None:
        assert re.fullmatch(r"3\.1\.\d+", DESCRIBED["openapi"])
        assert DESCRIBED["info"]["title"]
        assert DESCRIBED["info"]["version"]

    def test_every_reference_leads_somewhere(self) -> None:
        for reference in set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(DESCRIBED))):
            assert resolved({"$ref": reference})

    def test_no_schema_is_left_over(self) -> None:
        text = json.dumps(DESCRIBED)
        for name in DESCRIBED["components"]["schemas"]:
            assert f'"#/components/schemas/{name}"' in text, name

    def test_every_schema_is_one(self) -> None:
        for schema in DESCRIBED["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)

    def test_ids_of_operations_are_unique(self) -> None:
        ids = [operation["operationId"] for _, _, operation in operations()]
        assert len(ids) == len(set(ids))

    def test_the_command_prints_it(self) -> None:
        done = invoke("openapi")
        assert (done.exit_code, json.loads(done.stdout) == DESCRIBED) == (0, True)


@pytest.mark.parametrize("name", OPERATIONS)
class TestOperation:
    """Each operation."""

    def test_it_says_what_it_does_and_what_can_go_wrong(self, name: str) -> None:
        _path, operation = OPERATIONS[name]
        assert operation["summary"]
        assert operation["description"]
        problem = operation["responses"]["default"]["content"]
        assert problem == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        assert "422" not in operation["responses"]
        assert any(status.startswith("2") for status in operation["responses"])

    def test_it_says_who_may(self, name: str) -> None:
        _path, operation = OPERATIONS[name]
        for requirement in operation["security"]:
            assert set(requirement) <= set(openapi.SCHEMES)
        secured = bool(operation["security"])
        public = name.startswith(PUBLIC)
        assert secured is not public
        assert ("401" in operation["responses"]) is secured

    def test_path_parameters_are_described(self, name: str) -> None:
        path, operation = OPERATIONS[name]
        told = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert told == set(re.findall(r"{([^}]*)}", path))
        assert not [one for one in operation.get("parameters", []) if one["name"].lower() == "authorization"]

    def test_examples_are_what_the_schemas_say(self, name: str) -> None:
        for _where, content in bodies(OPERATIONS[name][1]):
            for example in examples(content):
                check(example, content.get("schema", {}))

    def test_lists_are_read_in_pages(self, name: str) -> None:
        _path, operation = OPERATIONS[name]
        told = {one["name"]: one["schema"] for one in operation.get("parameters", []) if one["in"] == "query"}
        if "cursor" in told:
            assert (told["limit"]["minimum"], told["limit"]["maximum"]) == (1, LIMIT_MAX)
            schema = resolved(operation["responses"]["200"]["content"][JSON]["schema"])
            assert {"data", "next_cursor"} <= set(schema["properties"])


@pytest.mark.parametrize("name", OF_AUDIENCES)
def test_bodies_and_answers_have_schemas_or_examples(name: str) -> None:
    for where, content in bodies(OF_AUDIENCES[name][1]):
        schema = resolved(content.get("schema", {}))
        assert examples(content), f"{name}: the {where} has no example"
        kinds = [resolved(option) for option in schema.get("anyOf", [schema])]
        closed = all(kind.get("type") == "null" or kind.get("additionalProperties") is False for kind in kinds)
        assert where != "request" or closed, f"{name}: unknown members are taken"


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("POST ")])
def test_value_moves_under_an_idempotency_key(name: str) -> None:
    path, operation = OPERATIONS[name]
    keys = [one for one in operation.get("parameters", []) if one["name"].lower() == "idempotency-key"]
    if path.startswith(VALUE_MOVES_UNDER) and name not in NO_KEY_NEEDED:
        assert keys, f"{name} needs an Idempotency-Key, or a reason in NO_KEY_NEEDED"
    assert all(one["required"] and one["in"] == "header" for one in keys)


def test_reasons_are_of_operations_that_there_are() -> None:
    assert set(NO_KEY_NEEDED) <= set(OPERATIONS)


# ---- examples meet a real server


@dataclass(frozen=True)
class Player:
    """A sandbox, and the session of a member of it."""

    brand: str
    gtin: str
    secrets: Mapping[str, str]


@pytest.fixture(scope="module")
def players() -> dict[str, Player]:
    return {}


@pytest.fixture
def player(stand: Stand, players: dict[str, Player]) -> Player:
    if stand.database_url not in players:
        now = datetime.now(UTC)
        made = stand.run(lambda session: playground.create(session, stand.vault, "contract", now))
        players[stand.database_url] = Player(made.brand, made.gtin, {**made.keys, "me": sign_in(stand, made)})
    return players[stand.database_url]


def example_of(name: str) -> Any:
    """A fresh copy of an operation's example of a request."""
    content = OPERATIONS[name][1]["requestBody"]["content"][JSON]
    return json.loads(json.dumps(examples(content)[0]))


def sign_in(stand: Stand, play: Playground) -> str:
    """A session of the sandbox, by the examples of the description."""
    asked = {**example_of("POST /v1/sign-in/codes"), "phone": stand.new_phone(), "brand": play.brand}
    shown = stand.http.post("/v1/sign-in/codes", json=asked)
    assert shown.status_code == 202, shown.text
    proof = {**example_of("POST /v1/sign-in"), **asked, "one_time_code": shown.json()["development_code"]}
    proof.pop("consents", None)
    answer = stand.http.post("/v1/sign-in", json=proof)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["token"]
    return token


def headers_for(player: Player, path: str) -> dict[str, str]:
    role = next((role for role in ("shop", "crm", "brand") if path.startswith(f"/v1/{role}/")), "me")
    return {
        "Authorization": f"Bearer {player.secrets[role]}",
        "Idempotency-Key": str(uuid.uuid4()),
        "Fanxing-Brand": player.brand,
    }


def filled(path: str, operation: dict[str, Any], player: Player) -> str:
    """The path with its parameters: the sandbox's brand, else an example, else an id that nothing has."""
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            name, schema = parameter["name"], parameter["schema"]
            known = {"brand": player.brand, "gtin": player.gtin}
            value = known.get(name) or next(iter(schema.get("examples", [])), parameter.get("example", uuid.uuid4()))
            path = path.replace(f"{{{name}}}", str(value))
    return path


def answer_is_described(answer: httpx2.Response, operation: dict[str, Any]) -> None:
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == MEDIA_TYPE
        check(answer.json(), {"$ref": "#/components/schemas/Problem"})
        assert answer.json()["type"] == TYPE_PREFIX + answer.json()["code"]
    else:
        content = operation["responses"][str(answer.status_code)].get("content", {})
        if JSON in content:
            check(answer.json(), content[JSON]["schema"])


@pytest.mark.parametrize("stand_kind", ["sqlite"])
@pytest.mark.parametrize("name", [name for name in OF_AUDIENCES if name not in ENDING])
def test_a_real_server_understands_every_example(stand: Stand, player: Player, name: str) -> None:
    path, operation = OF_AUDIENCES[name]
    method = name.split(maxsplit=1)[0]
    headers = headers_for(player, path)
    body = None
    if JSON in operation.get("requestBody", {}).get("content", {}):
        body = example_of(name)
    if body is not None:
        body |= {"brand": player.brand} if "brand" in body else {}
        body |= {"phone": stand.new_phone()} if "phone" in body else {}
    answer = stand.http.request(method, filled(path, operation, player), json=body, headers=headers)
    assert answer.status_code < 500, answer.text
    # What the example names need not be there; but it is well-formed, and who sends it may ask.
    assert answer.status_code not in (401, 405, 422), answer.text
    if answer.status_code >= 400:
        assert answer.json()["code"] not in ("RequestInvalid", "OutOfScope", "IdempotencyKeyMissing"), answer.text
    answer_is_described(answer, operation)

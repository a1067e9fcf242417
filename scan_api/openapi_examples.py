"""Examples in the API's description: those that models give, made whole, and those that follow from them.

The framework drops every null from the description, also from examples, where null is a value like any other; and it
knows no example of a page of things, although it knows one of the thing.
"""

from collections.abc import Iterator
from typing import Any, Final

_JSON: Final = "application/json"
_DEPTH_MAX: Final = 8
_BY_FORMAT: Final = {
    "uuid": "0197f0f0-5c00-7000-8000-000000000001",
    "date-time": "2026-05-01T08:00:00.000Z",
    "date": "2026-05-01",
}
_NOTHING: Final = object()

Schema = dict[str, Any]


def complete(described: dict[str, Any]) -> None:
    """Put the nulls back into all examples, and give an example to each JSON body that has none and allows one."""
    schemas = described["components"]["schemas"]
    for schema in schemas.values():
        if "example" in schema:
            schema["example"] = _with_nulls(schema["example"], schema, schemas)
        if "examples" in schema:
            schema["examples"] = [_with_nulls(one, schema, schemas) for one in schema["examples"]]
    for content in _bodies(described):
        schema = _resolved(content.get("schema", {}), schemas)
        if "example" in content:
            content["example"] = _with_nulls(content["example"], schema, schemas)
        elif "examples" not in content and not {"example", "examples"} & schema.keys():
            made = _made(schema, schemas, _DEPTH_MAX)
            if made is not _NOTHING:
                content["example"] = made


def _bodies(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in described["paths"].values():
        for operation in operations.values():
            parts: list[dict[str, Any]] = [operation.get("requestBody", {}), *operation["responses"].values()]
            yield from (part["content"][_JSON] for part in parts if _JSON in part.get("content", {}))


def _resolved(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _options(schema: Schema, schemas: dict[str, Schema]) -> list[Schema]:
    options: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [_resolved(option, schemas) for option in options]


def _takes_null(schema: Schema, schemas: dict[str, Schema]) -> bool:
    return any(option.get("type") == "null" for option in _options(_resolved(schema, schemas), schemas))


def _with_nulls(example: Any, schema: Schema, schemas: dict[str, Schema]) -> Any:
    for option in _options(_resolved(schema, schemas), schemas):
        if isinstance(example, list) and "items" in option:
            return [_with_nulls(one, option["items"], schemas) for one in example]
        members = option.get("properties", {})
        if isinstance(example, dict) and example.keys() <= members.keys():
            whole = {name: _with_nulls(value, members[name], schemas) for name, value in example.items()}
            for name in option.get("required", []):
                if name not in whole and _takes_null(members[name], schemas):
                    whole[name] = None
            return whole
    return example


def _made(schema: Schema, schemas: dict[str, Schema], depth: int) -> Any:
    """An example by what the schema says itself; `_NOTHING` where a member could be anything."""
    schema = _resolved(schema, schemas)
    if depth == 0:
        return _NOTHING
    said = [schema[name] for name in ("example", "const", "default") if name in schema]
    said += [one for name in ("examples", "enum") for one in schema.get(name, [])[:1]]
    if said:
        return said[0]
    if "anyOf" in schema or "oneOf" in schema:
        return None if _takes_null(schema, schemas) else _made(_options(schema, schemas)[0], schemas, depth - 1)
    return _made_of_parts(schema, schemas, depth)


def _made_of_parts(schema: Schema, schemas: dict[str, Schema], depth: int) -> Any:
    if "properties" in schema:
        made = {name: _made(member, schemas, depth - 1) for name, member in schema["properties"].items()}
        return _NOTHING if any(value is _NOTHING for value in made.values()) else made
    if "items" in schema:
        one = _made(schema["items"], schemas, depth - 1)
        return _NOTHING if one is _NOTHING else [one]
    return schema.get("minimum", _BY_FORMAT.get(schema.get("format", ""), _NOTHING))

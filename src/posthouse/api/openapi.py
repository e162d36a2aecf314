"""`/openapi.json`, made once from the table of operations and the types they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, cast

import msgspec

from posthouse.api.operations import Operation
from posthouse.api.problems import Problem
from posthouse.outbound.model import MessageDraft

JsonObject = dict[str, Any]

_REF = "#/components/schemas/{name}"
_INTRODUCTION = (
    "Send a message, and follow it to the end. Every request names an API key; every error is an RFC 9457 problem"
    " with a stable `code`; lists go on with `cursor`; a POST that creates takes an `Idempotency-Key` and answers a"
    " retry like the first time for 24 hours."
)
_RATE_HEADERS = ("RateLimit-Policy", "RateLimit", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_FIELDS: dict[str, str] = {
    "from": "`Ann <ann@example.com>`, or an object; of one of your domains",
    "reply_to": "Where answers go",
    "to": "The recipients everyone sees",
    "cc": "Copies everyone sees",
    "bcc": "Copies nobody sees",
    "subject": "One line; not with a template",
    "html": "The HTML part, sent as it is",
    "text": "The plain text part, sent as it is",
    "template": "The name of a template, instead of subject, html and text",
    "template_version": "A version of it; the one published when it is left out",
    "headers": "Further header fields",
    "attachments": "Up to 25 MB in all",
    "stream": "By name; `transactional` when it is left out",
    "tags": "To find it by",
    "send_at": "Not before then",
    "variables": "What the template is filled with",
    "metadata": "Kept with the message, and told in its events",
    "recipients": "Each gets a message of their own",
    "messages": "Each as for a single message",
    "all_or_nothing": "One bad item refuses the whole batch",
}


def document(operations: Sequence[Operation], *, version: str) -> JsonObject:
    """OpenAPI 3.1."""
    schemas, components = _schemas(operations)
    paths: dict[str, JsonObject] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Posthouse",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, `ph_…`"},
            },
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[dict[Any, JsonObject], JsonObject]:
    """A schema for each type that the operations name, and the components those refer to."""
    types: list[Any] = [Problem, MessageDraft]
    for operation in operations:
        types += [kind for kind in (operation.answer,) if kind is not None]
        if operation.body is not None:
            types += operation.body.documented
    unique = list(dict.fromkeys(types))
    found, components = msgspec.json.schema_components(unique, ref_template=_REF)
    for schema in components.values():
        _polish(schema)
    if "ManyDraft" in components:
        messages = components["ManyDraft"]["properties"]["messages"]
        messages |= {"items": {"$ref": _REF.format(name="MessageDraft")}, "minItems": 1, "maxItems": 1000}
        recipients = components["FanOutDraft"]["properties"]["recipients"]
        recipients |= {"minItems": 1, "maxItems": 10_000}
    return dict(zip(unique, found, strict=True)), dict(components)


def _polish(schema: Any) -> None:
    """What msgspec writes in Python's dialect of patterns, in ECMA's; descriptions of fields."""
    if isinstance(schema, list):
        for entry in cast(list[Any], schema):
            _polish(entry)
    if not isinstance(schema, dict):
        return
    node = cast(JsonObject, schema)
    if isinstance(node.get("default"), tuple):
        node["default"] = list(node["default"])  # as it looks in JSON
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        node["pattern"] = pattern.replace("(?![\\s\\S])", "$")
    if node.get("type") == "object" and "from" in node.get("properties", {}):
        for name, field in node["properties"].items():
            if name in _FIELDS:
                field.setdefault("description", _FIELDS[name])
    for value in node.values():
        _polish(value)


def _operation(operation: Operation, schemas: dict[Any, JsonObject]) -> JsonObject:
    shown: JsonObject = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": _description(operation),
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": _responses(operation, schemas),
    }
    if operation.scopes is None:
        shown["security"] = []
    if operation.body is not None:
        choices = [schemas[kind] for kind in operation.body.documented]
        content: JsonObject = {"schema": choices[0] if len(choices) == 1 else {"anyOf": choices}}
        if operation.example is not None:
            content["example"] = operation.example
        shown["requestBody"] = {"required": True, "content": {"application/json": content}}
    return shown


def _description(operation: Operation) -> str:
    if operation.scopes is None:
        need = "No key is needed."
    elif operation.scopes:
        need = f"Scope: {' or '.join(f'`{scope}`' for scope in sorted(operation.scopes))}."
    else:
        need = "Any key will do."
    return f"{operation.description} {need}".strip()


def _path_parameters(operation: Operation) -> list[JsonObject]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
        }
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]


def _query_parameters(operation: Operation) -> list[JsonObject]:
    if operation.query is None:
        return []
    (_,), components = msgspec.json.schema_components([operation.query.kind], ref_template=_REF)
    schema = components.pop(operation.query.kind.__name__)
    shown: list[JsonObject] = []
    for name, field in schema["properties"].items():
        plain = _without_null(field, components)
        _polish(plain)
        description = plain.pop("description", None)
        parameter: JsonObject = {"name": name, "in": "query", "required": False, "schema": plain}
        shown.append(parameter | ({"description": description} if description else {}))
    return shown


def _without_null(field: JsonObject, components: JsonObject) -> JsonObject:
    """A parameter that is left out is absent, never null; its schema stands in line."""
    plain: JsonObject = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
    for choice in field.get("anyOf", ()):
        if choice != {"type": "null"}:
            plain |= choice
    if "$ref" in plain:
        plain |= components[plain.pop("$ref").rsplit("/", 1)[1]]
    if "enum" in plain:
        plain["enum"] = [value for value in plain["enum"] if value is not None]
    plain.pop("title", None)
    return plain


def _header_parameters(operation: Operation) -> list[JsonObject]:
    if not (operation.once or operation.idempotent):
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key with the same body gets the first answer again, for 24 hours",
            "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]([ -~]*[!-~])?$"},
        }
    ]


def _responses(operation: Operation, schemas: dict[Any, JsonObject]) -> JsonObject:
    success: JsonObject = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer is not None:
        content: JsonObject = {"schema": schemas[operation.answer]}
        if operation.answer_example is not None:
            content["example"] = operation.answer_example
        success["content"] = {operation.media: content}
    elif operation.status != HTTPStatus.NO_CONTENT:
        success["content"] = {operation.media: {"schema": {"type": "string"}}}
    if operation.limited:
        success["headers"] = {name: {"schema": {"type": "string"}} for name in _RATE_HEADERS}
    responses: JsonObject = {str(operation.status): success}
    for status in _statuses(operation):
        responses[str(status)] = _problem(status, schemas)
    if operation.id == "get_readiness":
        responses["503"] = {"description": "Not ready", "content": success["content"]}
    return responses


def _statuses(operation: Operation) -> list[int]:
    found = {400, 422, 500, 503, *operation.problems}
    if operation.scopes is not None:
        found |= {401, 403}
    if operation.body is not None:
        found |= {408, 413, 415}
    if operation.once or operation.idempotent:
        found |= {409}
    if operation.limited:
        found |= {429}
    if "{" in operation.path:
        found |= {404}
    return sorted(found)


def _problem(status: int, schemas: dict[Any, JsonObject]) -> JsonObject:
    content = {"application/problem+json": {"schema": schemas[Problem]}}
    return {"description": HTTPStatus(status).phrase, "content": content}

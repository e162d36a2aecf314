"""docs/reference/api.md, from the OpenAPI document."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from markdown import code, one_line, table
from posthouse import __version__


def api_page() -> str:
    operations = import_module("posthouse.api.app").OPERATIONS
    made = import_module("posthouse.api.openapi").document(operations, version=__version__)
    document: dict[str, Any] = json.loads(json.dumps(made))
    parts = ["# HTTP API\n", one_line(document["info"].get("description", "")) + "\n"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                parts += _operation(f"{method.upper()} {path}", operation, document)
    parts.append("# Types\n")
    for name, schema in document["components"]["schemas"].items():
        if schema.get("properties"):
            parts += _type(name, schema)
    return "\n".join(parts)


def _type(name: str, schema: dict[str, Any]) -> list[str]:
    needed = schema.get("required", [])
    rows = [
        (code(field), _kind(one), "required" if field in needed else _default(one), _about(one))
        for field, one in schema["properties"].items()
    ]
    about = [one_line(schema["description"]) + "\n"] if schema.get("description") else []
    return [f"## {name}\n", *about, table(("Field", "Type", "Default", "Meaning"), rows)]


def _kind(schema: dict[str, Any]) -> str:
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        return " or ".join(dict.fromkeys(_kind(one) for one in several))
    if "$ref" in schema:
        return code(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_kind(schema['items'])}"
    if "enum" in schema or "const" in schema:
        return ", ".join(code(str(one)) for one in schema.get("enum", [schema.get("const")]))
    return str(schema.get("format") or schema.get("type") or "any")


def _default(schema: dict[str, Any]) -> str:
    return code(json.dumps(schema["default"])) if schema.get("default") not in (None, [], {}, "") else ""


def _about(schema: dict[str, Any]) -> str:
    inside = [schema, *schema.get("anyOf", [])]
    return one_line(next((one["description"] for one in inside if one.get("description")), ""))


def _operation(title: str, operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    parts = [f"## {title}\n", operation.get("summary", "").rstrip(".") + ".\n"]
    if operation.get("description"):
        parts.append(operation["description"].strip() + "\n")
    rows = [
        (code(one["name"]), one["in"], "required" if one.get("required") else "", one_line(one.get("description", "")))
        for one in (_resolved(one, document) for one in operation.get("parameters", []))
    ]
    if rows:
        parts.append(table(("Parameter", "In", "", "Meaning"), rows))
    bodies = operation.get("requestBody", {}).get("content", {}).values()
    parts.extend("Body: " + _schema(media.get("schema", {})) + ".\n" for media in bodies)
    answers = [
        f"{status} {one_line(_resolved(answer, document).get('description', ''))}".strip()
        for status, answer in operation.get("responses", {}).items()
    ]
    parts.append("Answers: " + "; ".join(answers) + ".\n")
    return parts


def _resolved(node: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    for part in node.get("$ref", "#").split("/")[1:]:
        document = document[part]
    return document if "$ref" in node else node


def _schema(schema: dict[str, Any]) -> str:
    several = schema.get("anyOf") or schema.get("oneOf") or [schema]
    names = [str(one.get("$ref", "")).rpartition("/")[2] or str(one.get("type", "any")) for one in several]
    return " or ".join(code(name) for name in names)

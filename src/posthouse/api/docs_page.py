"""`/docs`: the OpenAPI document as one plain page. Nothing is fetched from elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
nav ul { columns: 18rem; padding-left: 1.2rem; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
article { margin: 2rem 0; } h3 { margin-bottom: .2rem; } code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: .3rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
padding: .3rem .6rem; border-bottom: 1px solid var(--line); } summary { cursor: pointer; margin: .4rem 0; }
.method { font-weight: 700; } a { color: inherit; }
"""
_METHODS = ("get", "post", "patch", "delete")

CONTENT_SECURITY_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def render(document: dict[str, Any]) -> bytes:
    """:param document: OpenAPI 3.1, as `openapi.document` makes it."""
    tags: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    links: list[str] = []
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                operation = methods[method]
                tags[operation["tags"][0]].append(_operation(path, method, operation))
                links.append(f'<li><a href="#{operation["operationId"]}">{escape(operation["summary"])}</a></li>')
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(articles)}" for tag, articles in tags.items())
    schemas = "".join(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1><p>{_prose(info['description'])}</p>"
        '<p><a href="/openapi.json">openapi.json</a></p>'
        f"<nav><ul>{''.join(links)}</ul></nav>{sections}<h2>Types</h2>{schemas}</body></html>"
    ).encode()


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<article id="{operation["operationId"]}"><h3>{escape(operation["summary"])}</h3>',
        f'<p><code><span class="method">{method.upper()}</span> {escape(path)}</code></p>',
        f"<p>{_prose(operation['description'])}</p>",
        _parameters(operation["parameters"]),
    ]
    body = operation.get("requestBody")
    if body is not None:
        content = body["content"]["application/json"]
        parts.append(f"<p>Body: {_type(content['schema'])}</p>{_example(content.get('example'))}")
    for status, response in operation["responses"].items():
        parts.extend(
            f"<p>{status}: {_type(content['schema'])}</p>{_example(content.get('example'))}"
            for content in response.get("content", {}).values()
            if status < "300"
        )
    problems = ", ".join(status for status in operation["responses"] if status >= "300")
    parts.append(f"<p>Problems: {problems}</p></article>")
    return "".join(parts)


def _parameters(parameters: list[dict[str, Any]]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}</td><td>{_type(one['schema'])}</td>"
        f"<td>{_prose(one.get('description', ''))}</td></tr>"
        for one in parameters
    )
    return f"<table><tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>{rows}</table>"


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' *' if field in required else ''}</td><td>{_type(shown)}</td>"
        f"<td>{_prose(shown.get('description', ''))}</td></tr>"
        for field, shown in schema.get("properties", {}).items()
    )
    table = f"<table><tr><th>Field</th><th>Type</th><th></th></tr>{rows}</table>" if rows else f"<p>{_type(schema)}</p>"
    return (
        f'<details id="type-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<p>{_prose(schema.get('description', ''))}</p>{table}</details>"
    )


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#type-{name}"><code>{name}</code></a>'
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(f"{schema.get('type', 'anything')}{' (' + schema['format'] + ')' if 'format' in schema else ''}")


def _example(example: Any) -> str:
    return "" if example is None else f"<pre>{escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"


def _prose(text: str) -> str:
    """Escaped, with `code` set as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))

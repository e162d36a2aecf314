"""`build_app`: the public API as one ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import msgspec

from posthouse.api import docs_page, openapi
from posthouse.api.edge import Api, Options
from posthouse.api.endpoints import (
    accounts,
    aliases,
    arrivals,
    conversations,
    domains,
    emails,
    house,
    imports,
    keys,
    mail_domains,
    mailboxes,
    messages,
    octets,
    queue,
    streams,
    suppressions,
    templates,
    tenants,
    upkeep,
)
from posthouse.api.http import Call, Reply
from posthouse.api.operations import Context, Operation
from posthouse.api.ports import Services

OPERATIONS: tuple[Operation, ...] = (
    *messages.OPERATIONS,
    *templates.OPERATIONS,
    *domains.OPERATIONS,
    *suppressions.OPERATIONS,
    *streams.OPERATIONS,
    *mail_domains.OPERATIONS,
    *accounts.OPERATIONS,
    *aliases.OPERATIONS,
    *mailboxes.OPERATIONS,
    *emails.OPERATIONS,
    *octets.OPERATIONS,
    *conversations.OPERATIONS,
    *imports.OPERATIONS,
    *arrivals.OPERATIONS,
    *keys.OPERATIONS,
    *tenants.OPERATIONS,
    *queue.OPERATIONS,
    *upkeep.OPERATIONS,
    *house.OPERATIONS,
)


def build_app(services: Services, options: Options | None = None) -> Api:
    """For any ASGI server; `server.build_server` sets one up with the right bounds."""
    chosen = options or Options()
    return Api(services, (*_served(OPERATIONS, chosen), *_own_documentation()), chosen)


def build_probes(services: Services, options: Options) -> Api:
    """`/healthz`, `/readyz` and `/metrics` alone: for a port of their own."""
    return Api(services, _served(house.OPERATIONS, options), options)


def _served(operations: Iterable[Operation], options: Options) -> list[Operation]:
    return [one for one in operations if options.metrics or one.handler is not house.metrics]


def _own_documentation() -> tuple[Operation, ...]:
    document = openapi.document(OPERATIONS, version=_version())
    data = msgspec.json.encode(document)
    page = docs_page.render(document)
    policy = (b"content-security-policy", docs_page.CONTENT_SECURITY_POLICY)

    async def show_document(context: Context, call: Call) -> Reply:
        return Reply(200, data)

    async def show_page(context: Context, call: Call) -> Reply:
        return Reply(200, page, b"text/html; charset=utf-8", (policy,))

    return (
        Operation(
            id="get_openapi",
            method="GET",
            path="/openapi.json",
            summary="This document",
            handler=show_document,
            tag="House",
            scopes=None,
        ),
        Operation(
            id="get_docs",
            method="GET",
            path="/docs",
            summary="This documentation",
            handler=show_page,
            tag="House",
            scopes=None,
            media="text/html",
        ),
    )


def _version() -> str:
    try:
        return package_version("posthouse")
    except PackageNotFoundError:
        return "0"

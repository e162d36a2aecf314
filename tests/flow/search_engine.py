"""An OpenSearch of a test's own, that may be away, and what a server's search finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.conftest import SERVICES_DIR, Service
from tests.crash.receive_load import ACCOUNTS
from tests.product import Server
from tests.receiving import DOMAIN, free_port

EVERY_MESSAGE = "-nowherewritten"


@contextmanager
def own_engine() -> Iterator[tuple[Service, str]]:
    """Not started; from the programs of the shared one. And the URL that it will have."""
    directory = Path(tempfile.mkdtemp(prefix="posthouse-"))
    (directory / "opensearch").mkdir()
    for part in ("lib", "classes"):
        (directory / "opensearch" / part).symlink_to(SERVICES_DIR.absolute() / "opensearch" / part)
    port = str(free_port())
    service = Service("opensearch", directory, {"OPENSEARCH_HEAP": "256m", "OPENSEARCH_PORT": port})
    try:
        yield service, f"http://127.0.0.1:{port}"
    finally:
        service.stop()
        shutil.rmtree(directory, ignore_errors=True)


def listed(server: Server) -> dict[str, set[int]]:
    """Every email of each account, by its mailboxes."""
    with server.client(server.operator_key) as http:
        return {account: _listed(http, account) for account in ACCOUNTS}


def _listed(http: httpx.Client, account: str) -> set[int]:
    base = f"/v1/accounts/{account}@{DOMAIN}/mailboxes"
    found: set[int] = set()
    for mailbox in http.get(base).raise_for_status().json()["data"]:
        if mailbox["total"]:
            page = http.get(f"{base}/{mailbox['id']}/emails", params={"limit": 200}).raise_for_status().json()
            assert page["next"] is None
            found |= {email["id"] for email in page["data"]}
    return found


def searched(server: Server) -> dict[str, set[int]]:
    """Every email of each account that search knows."""
    with server.client(server.operator_key) as http:
        return {account: _searched(http, account) for account in ACCOUNTS}


def _searched(http: httpx.Client, account: str) -> set[int]:
    query = {"q": EVERY_MESSAGE, "limit": 200}
    page = http.get(f"/v1/accounts/{account}@{DOMAIN}/search", params=query).raise_for_status().json()
    assert page["next"] is None
    return {email["id"] for email in page["data"]}


def count(found: dict[str, set[int]]) -> int:
    return sum(map(len, found.values()))

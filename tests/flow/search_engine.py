"""An OpenSearch of a test's own, that may be away, and what a server's search finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def listed(server: Server, account: str) -> set[int]:
    """Every email of the account, by its mailboxes."""
    base = f"/v1/accounts/{account}@{DOMAIN}/mailboxes"
    found: set[int] = set()
    for mailbox in server.get(base, key=server.operator_key).raise_for_status().json()["data"]:
        answer = server.get(f"{base}/{mailbox['id']}/emails", key=server.operator_key, limit=200)
        page = answer.raise_for_status().json()
        assert page["next"] is None
        found |= {email["id"] for email in page["data"]}
    return found


def searched(server: Server, account: str) -> set[int]:
    """Every email of the account that search knows."""
    path = f"/v1/accounts/{account}@{DOMAIN}/search"
    page = server.get(path, key=server.operator_key, q=EVERY_MESSAGE, limit=200).raise_for_status().json()
    assert page["next"] is None
    return {email["id"] for email in page["data"]}


def all_found(server: Server) -> bool:
    return all(searched(server, account) == listed(server, account) for account in ACCOUNTS)

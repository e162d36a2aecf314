from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import Running


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the whole suite; tests make what they look at."""
    with Running(tmp_path_factory.mktemp("api")) as running:
        yield running

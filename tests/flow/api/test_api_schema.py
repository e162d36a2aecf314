"""schemathesis against the running server: what the document says is what it does.

The app under test is the fixture `api`: anything with `base`, `anyone` and `operator_key`.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from running import Running
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from posthouse.api import openapi
from posthouse.api.app import OPERATIONS

DOCUMENT = openapi.document(OPERATIONS, version="0")
# The key is ours to give: without `security`, no wrong one is made up (test_api_isolation.py does that).
SCHEMA = schemathesis.openapi.from_dict({key: value for key, value in DOCUMENT.items() if key != "security"})
ALL: list[Any] = [result.ok() for result in SCHEMA.get_all_operations()]
EXAMPLES = 8
TAKING = [one for one in ALL if one.body or one.query]


def _run(api: Running, operation: Any, mode: GenerationMode) -> None:
    # A schema cannot tell which addresses, cursors and templates are real, so what fits it may get a 422 …
    excluded = [positive_data_acceptance]
    # … and a bad item of a batch is told beside the good ones.
    if operation.path == "/v1/messages/batch":
        excluded.append(negative_data_rejection)

    # 503 is what a probe asks for: the role is not here.
    if operation.path == "/readyz":
        excluded.append(not_a_server_error)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        headers = {"Authorization": f"Bearer {api.operator_key}"}
        case.call_and_validate(base_url=api.base, headers=headers, timeout=20, excluded_checks=excluded)

    check()


def test_the_server_shows_the_document_that_is_tested(api: Running) -> None:
    shown = api.anyone.get("/openapi.json").json()
    assert shown["paths"] == DOCUMENT["paths"]
    assert shown["components"] == DOCUMENT["components"]


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.label)
def test_what_fits_the_document_is_answered_as_it_says(api: Running, operation: Any) -> None:
    _run(api, operation, GenerationMode.POSITIVE)


@pytest.mark.parametrize("operation", TAKING, ids=lambda one: one.label)
def test_what_does_not_fit_is_refused_as_it_says(api: Running, operation: Any) -> None:
    _run(api, operation, GenerationMode.NEGATIVE)

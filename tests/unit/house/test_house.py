"""The project itself: docs that match the code, locks that match the project, links that lead somewhere."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import reference  # noqa: E402 - a script, found through the line above

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"dnspython": "dns", "opensearch-py": "opensearchpy"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=!~; ]", one, maxsplit=1)[0] for one in requirements]


RUNTIME = names(PROJECT["dependencies"])
EXTRAS = [name for extra in PROJECT["optional-dependencies"].values() for name in names(extra)]


@pytest.mark.parametrize("page", reference.PAGES)
def test_the_generated_page_is_what_the_code_says(page: str) -> None:
    assert page not in reference.stale(), "run `make docs`"


@pytest.mark.parametrize("name", RUNTIME)
def test_each_dependency_has_a_reason_and_a_use(name: str) -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    (line,) = re.findall(rf"^\| {re.escape(name)} \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert all(len(cell) > 3 for cell in line)
    module = MODULES.get(name, name.replace("-", "_"))
    word = re.compile(rf"\b{module}")
    assert any(word.search(path.read_text()) for path in (ROOT / "src").rglob("*.py")), f"nothing uses {name}"


@pytest.mark.parametrize("name", EXTRAS)
def test_each_tool_has_a_reason(name: str) -> None:
    rows = [line for line in (ROOT / "docs" / "dependencies.md").read_text().split("\n") if line.startswith("| ")]
    assert any(re.search(rf"(?:^\| |, ){re.escape(name)}(?:,| \|)", line) for line in rows)


@pytest.mark.parametrize(
    ("lock", "needed"), [("requirements.lock", RUNTIME), ("requirements-dev.lock", [*RUNTIME, *EXTRAS])]
)
def test_the_lock_has_every_dependency_by_hash_and_no_address(lock: str, needed: list[str]) -> None:
    text = (ROOT / lock).read_text()
    pinned = re.findall(r"^([a-z0-9.-]+)(?:\[[a-z,]+\])?==", text, re.MULTILINE)
    assert set(needed) <= set(pinned)
    assert len(re.findall(r"==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", text)) == len(pinned)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / unquote(target)).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_docs_exist(page: Path) -> None:
    tree = reference.typer.main.get_command(reference.program())
    for words in re.findall(r"^ {4,}posthouse ([^\n#]*)", page.read_text(), re.MULTILINE):
        command = tree
        for word in words.split():
            if word.startswith("--"):
                known = {name for one in command.params for name in [*one.opts, *one.secondary_opts]}
                assert word.partition("=")[0] in known, f"posthouse {words}: no {word}"
            elif getattr(command, "commands", None):
                assert word in command.commands, f"posthouse {words}: no {word}"
                command = command.commands[word]


def test_a_setting_an_event_and_an_error_are_all_documented() -> None:
    assert all(one.description for one in reference.catalog.settings().values())
    assert all(one.description for table in reference.catalog.TABLES for one in reference.catalog.table_fields(table))
    assert all(
        meaning for _, meaning in reference._documented_members(reference.SOURCE / "events" / "types.py", "Type")
    )
    assert {"domain_not_found", "idempotency_key_reused"} <= {one.name for one in reference.codes()}


def test_every_error_says_what_to_do() -> None:
    written = {one.name for one in reference.codes()}
    assert written == set(reference.ADVICE), "keep scripts/error_advice.py and the codes in the source together"
    assert all(text.endswith(".") for text, *_ in reference.ADVICE.values())


def test_every_code_given_in_the_source_is_in_the_reference() -> None:
    """A plain search, so that a way of raising that `reference` does not follow is noticed."""
    given: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        given |= set(re.findall(r"""^    code(?:: [A-Za-z\[\]]+)? = "([a-z_]+)"$""", text, re.MULTILINE))
        given |= set(re.findall(r"""\bcode="([a-z_]+)\"""", text))
    assert len(given) > 50
    assert given <= {one.name for one in reference.codes()}

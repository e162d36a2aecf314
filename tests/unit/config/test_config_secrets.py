"""`POSTHOUSE_…_FILE`: a value that is mounted as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.config import load
from posthouse.errors import Misconfigured


def test_a_file_holds_the_value(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://ann:s3cret@db/mail\n")
    found = load(environ={"POSTHOUSE_RECORDS__URL_FILE": str(tmp_path / "url")}, cwd=tmp_path)
    assert found.settings.records.url == "postgresql://ann:s3cret@db/mail"
    (shown,) = [one for one in found.values() if one.setting.name == "records.url"]
    assert "s3cret" not in shown.shown
    assert str(shown.source) == "POSTHOUSE_RECORDS__URL_FILE"


def test_a_setting_that_ends_so_is_itself(tmp_path: Path) -> None:
    found = load(environ={"POSTHOUSE_SECRET_KEY_FILE": str(tmp_path / "no such file")}, cwd=tmp_path)
    assert found.settings.secret_key_file == tmp_path / "no such file"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"\xff\xfe", "UTF-8"), (b"x" * 70_000, "larger than")]
)
def test_a_file_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match=says) as caught:
        load(environ={"POSTHOUSE_RECORDS__URL_FILE": str(path)}, cwd=tmp_path)
    assert "POSTHOUSE_RECORDS__URL_FILE" in str(caught.value)


def test_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="POSTHOUSE_RECORDS__PASSWORD_FILE"):
        load(environ={"POSTHOUSE_RECORDS__PASSWORD_FILE": str(tmp_path)}, cwd=tmp_path)

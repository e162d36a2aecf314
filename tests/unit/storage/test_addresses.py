from __future__ import annotations

from pathlib import Path

import pytest

from posthouse import errors
from posthouse.storage.blobs.factory import open_blobs
from posthouse.storage.records.address import PostgresAddress, SqliteAddress, parse


def test_sqlite_paths() -> None:
    assert parse("sqlite:////var/lib/posthouse.db") == SqliteAddress(Path("/var/lib/posthouse.db"))
    assert parse("sqlite:///data/a%20b.db") == SqliteAddress(Path.cwd() / "data" / "a b.db")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql(scheme: str) -> None:
    address = parse(f"{scheme}://ann:pw@db.example.com:5433/mail?sslmode=require")
    assert address == PostgresAddress("postgresql://ann:pw@db.example.com:5433/mail?sslmode=require")
    assert isinstance(address, PostgresAddress)
    assert address.each == (address.url,)


def test_postgresql_on_several_hosts() -> None:
    address = parse("postgres://ann:p%40w@[::1]:5432,db2.example.com,h3:5433/mail?target_session_attrs=any")
    assert isinstance(address, PostgresAddress)
    assert address.each == (
        "postgresql://ann:p%40w@[::1]:5432/mail?target_session_attrs=any",
        "postgresql://ann:p%40w@db2.example.com/mail?target_session_attrs=any",
        "postgresql://ann:p%40w@h3:5433/mail?target_session_attrs=any",
    )


@pytest.mark.parametrize(
    "url",
    ["", "sqlite://", "sqlite:///", "sqlite://host/path", "mysql://x/y", "/var/lib/x.db", "postgresql://h:1,h:x/y"],
)
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(errors.Misconfigured) as raised:
        parse(url)
    assert raised.value.code == "records_url"


@pytest.mark.parametrize("url", ["", "file://", "file://host/x", "s3://", "s3://b?zone=1", "https://example.com"])
async def test_other_blob_urls_are_refused(url: str) -> None:
    with pytest.raises(errors.Misconfigured) as raised:
        await open_blobs(url)
    assert raised.value.code == "blobs_url"

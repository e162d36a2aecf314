"""`open_blobs(url)`: the one place that maps a URL to a store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from posthouse import errors
from posthouse.storage.blobs.base import Blobs
from posthouse.storage.blobs.local import LocalBlobs

_OPTIONS = {"endpoint", "region"}


async def open_blobs(url: str, *, access_key: str = "", secret_key: str = "") -> Blobs:
    """
    :param url: `file:///absolute/directory`, `file:relative/directory`, or
        `s3://bucket/prefix?endpoint=https://s3.example.com&region=eu-1`.
    :param access_key: for S3; empty: the machine's own role.
    :raises Misconfigured: the URL is wrong, or the directory cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return await LocalBlobs.open(_absolute(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        options = dict(parse_qsl(parts.query))
        if unknown := options.keys() - _OPTIONS:
            raise _wrong(f"unknown option {', '.join(sorted(unknown))}")
        # Only where it is used: its client is a library of some megabytes.
        from posthouse.storage.blobs.s3 import S3Blobs  # noqa: PLC0415

        return S3Blobs(
            parts.netloc,
            prefix=unquote(parts.path).strip("/"),
            endpoint=options.get("endpoint"),
            region=options.get("region", "us-east-1"),
            access_key=access_key,
            secret_key=secret_key,
        )
    raise _wrong("unknown scheme or no path")


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - touches no disk


def _wrong(why: str) -> errors.Misconfigured:
    return errors.Misconfigured(
        f"the blobs URL is file:///directory or s3://bucket/prefix?endpoint=…&region=… ({why})", code="blobs_url"
    )

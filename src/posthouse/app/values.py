"""Settings → the values that each part takes; no part sees the whole of them."""

from __future__ import annotations

from urllib.parse import urlencode

from posthouse.accounts.model import Limits
from posthouse.api.edge import Options
from posthouse.config import Settings
from posthouse.config.schema import Route as RouteSettings
from posthouse.egress.model import Kind, Route
from posthouse.egress.routes import Routes
from posthouse.net.tls import TlsMode, TlsPolicy
from posthouse.outbound.check import Bounds
from posthouse.outbound.verdict import RetryPolicy
from posthouse.smtp.sasl import Credentials


def options(settings: Settings) -> Options:
    return Options(
        max_body=settings.http.max_body,
        body_seconds=settings.http.read_timeout,
        access_log=settings.log.access,
        metrics=settings.metrics.enabled,
    )


def limits(settings: Settings) -> Limits:
    given = settings.limits
    return Limits(given.rate_per_second, given.burst, given.daily_quota)


def bounds(settings: Settings) -> Bounds:
    given = settings.limits
    return Bounds(given.recipients, given.batch, given.fan_out, given.attachments)


def retry(settings: Settings) -> RetryPolicy:
    given = settings.retry
    return RetryPolicy(
        first=given.first,
        factor=given.factor,
        cap=given.cap,
        jitter=given.jitter,
        soft_attempts=given.soft_bounce_after,
        soft_window=given.soft_bounce_window,
    )


def blob_options(settings: Settings, below: str = "") -> dict[str, str]:
    """:param below: a folder, or the end of a prefix, for a store of its own."""
    given = settings.blobs
    url, mark, query = str(given.url).partition("?")
    options = {"url": f"{url.rstrip('/')}/{below}{mark}{query}" if below else str(given.url)}
    if given.endpoint is not None:
        options["url"] += "?" + urlencode({"endpoint": str(given.endpoint), "region": given.region})
    if given.access_key is not None:
        options["access_key"] = given.access_key.get_secret_value()
    if given.secret_key is not None:
        options["secret_key"] = given.secret_key.get_secret_value()
    return options


def servers(given: tuple[str, ...]) -> list[tuple[str, int]] | None:
    """`ADDRESS`, `ADDRESS:PORT` or `[V6]:PORT`."""
    return [host_port(one, 53) for one in given] or None


def host_port(text: str, default: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port.removeprefix(":") or default)
    host, _, port = text.partition(":")
    if ":" in port:
        return text, default
    return host, int(port or default)


def _default_route(settings: Settings) -> Route:
    return Route("mx", Kind.MX, ("*",), _tls(settings.send.tls, None), connections=settings.send.connections)


def _route(number: int, given: RouteSettings, settings: Settings) -> Route:
    secret = given.password or given.oauth_token
    credentials = None
    if given.username is not None and secret is not None:
        credentials = Credentials(given.username, secret.get_secret_value(), token=given.oauth_token is not None)
    return Route(
        name=f"{given.kind}-{number + 1}",
        kind=Kind(given.kind),
        domains=given.domains,
        tls=_tls(given.tls or settings.send.tls, str(given.ca_file) if given.ca_file else None),
        hosts=tuple(host_port(host, given.port) for host in given.hosts),
        port=given.port,
        credentials=credentials,
        connections=given.connections or settings.send.connections,
    )


def _tls(mode: str, ca_file: str | None) -> TlsPolicy:
    return TlsPolicy(TlsMode(mode), ca_file=ca_file)


def routes(settings: Settings) -> Routes:
    return Routes([_route(n, one, settings) for n, one in enumerate(settings.routes)], _default_route(settings))

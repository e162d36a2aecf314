"""Every setting, with its default, its unit and its meaning. A field here is a row of
docs/reference/settings.md; a test fails when the two differ."""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from posthouse.config.units import Octets, Seconds, Unit, octets

Role = Literal["api", "render", "send", "schedule", "mx", "store", "index"]
ROLES: tuple[Role, ...] = get_args(Role)
Tls = Literal["opportunistic", "required", "none"]
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?|\[[A-Fa-f0-9.:IPv]{3,60}\]")
_PASSWORD = re.compile(r"^([A-Za-z0-9+.-]*:/*[^:@/]*):.*@", re.DOTALL)
Count = Annotated[int, Field(ge=1)]


class Url(str):
    """A URL whose password shows in no repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked(self))


def masked(url: str) -> str:
    """The URL with its password as `***`, safe for logs and screens, even when it is malformed."""
    return _PASSWORD.sub(r"\1:***@", url)


def _schemes(*allowed: str) -> AfterValidator:
    def check(value: str) -> Url:
        try:
            scheme = urlsplit(value).scheme
        except ValueError:
            raise ValueError("needs a URL") from None
        if scheme not in allowed:
            raise ValueError("needs a URL that begins with " + " or ".join(f"{scheme}:" for scheme in allowed))
        return Url(value)

    return AfterValidator(check)


def _listed(value: object) -> object:
    """A comma-separated text (from a variable or a flag) as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _host_name(value: str) -> str:
    # RFC 5321 §4.1.1.1: EHLO takes a domain (here in A-labels) or an address literal.
    if _HOST.fullmatch(value) is None:
        raise ValueError('needs a fully qualified host name, such as "mail.example.com"')
    return value.lower()


@cache
def _own_name() -> str:
    return socket.getfqdn().lower() or "localhost"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)


class Records(Section):
    """Where accounts, the ledger, events and the queue live."""

    url: Annotated[str, _schemes("sqlite", "postgresql")] = Field(
        default="", description="`sqlite:///PATH` (one process) or `postgresql://USER:PASSWORD@HOST/NAME`."
    )
    pool_size: Annotated[Count, Unit("connections")] = Field(
        default=10, description="Connections to PostgreSQL that this process opens at most."
    )
    statement_timeout: Seconds = Field(
        default=30.0, description="A statement that takes longer is ended and the request answered 503."
    )
    replica_url: Annotated[str, _schemes("postgresql")] | None = Field(
        default=None, description="A read replica, for listings and statistics that may lag; never for mailboxes."
    )


class Blobs(Section):
    """Where attachments and other large contents of requests live."""

    url: Annotated[str, _schemes("file", "s3")] = Field(
        default="", description="`file:///DIRECTORY` or `s3://BUCKET/PREFIX`."
    )
    endpoint: Annotated[str, _schemes("http", "https")] | None = Field(
        default=None, description="Address of an S3 server other than Amazon's."
    )
    region: str = Field(default="us-east-1", description="Region of the bucket.")
    access_key: SecretStr | None = Field(default=None, description="Access key id of the object store.")
    secret_key: SecretStr | None = Field(default=None, description="Secret key of the object store.")
    cache: Annotated[int, BeforeValidator(octets), Field(ge=0), Unit("bytes")] = Field(
        default=64 * 1024 * 1024, description="Copies of small objects in a process's memory, before S3; 0 for none."
    )


class Queue(Section):
    """What carries jobs between the stages."""

    url: Annotated[str, _schemes("records", "kafka")] = Field(
        default="records:",
        description="`records:` (a table beside the ledger) or `kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]`, with "
        "`?partitions=12&replication=1&prefix=posthouse` for the topics that are made; `tls=true`, `ca=FILE`, "
        "`sasl=SCRAM-SHA-512`.",
    )


class Bus(Section):
    """What processes tell each other, and the limits and caches that they share."""

    url: Annotated[str, _schemes("local", "redis", "rediss")] = Field(
        default="local:", description="`local:` (one process) or `redis://USER:PASSWORD@HOST:PORT/NUMBER`."
    )


class Search(Section):
    """Where the full-text index lies."""

    url: Annotated[str, _schemes("records", "http", "https")] = Field(
        default="records:",
        description="`records:` (FTS5 beside SQLite, text search in PostgreSQL) or OpenSearch's "
        "`http(s)://[USER:PASSWORD@]HOST[:PORT][/INDEX][?shards=5&replicas=1&ca=FILE]`.",
    )


class Http(Section):
    """The API's listener."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8025, description="Port to listen on; 0 lets the system choose."
    )
    max_body: Octets = Field(
        default=40_000_000, description="Largest request body: 25 MB of attachments in base64, and slack."
    )
    read_timeout: Seconds = Field(default=60.0, description="A request whose body takes longer to arrive is dropped.")
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0,
        description="A further port on `http.host` for `/healthz`, `/readyz` and `/metrics` alone, whatever the "
        "process's roles are; 0 is none (they are also on `http.port` where the role `api` is).",
    )
    backlog: Count = Field(default=2048, description="Connections that may wait to be accepted.")


class Render(Section):
    """The stage that fills templates, builds and signs."""

    processes: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0, description="Render processes; 0: one for each core it may use."
    )
    cache: Octets = Field(default=64 * 2**20, description="Compiled templates kept in memory, in each process.")


class Send(Section):
    """The stage that delivers by SMTP."""

    connections: Annotated[Count, Unit("connections")] = Field(
        default=20, description="Connections to one destination at most; a route may set its own."
    )
    max_in_flight: Annotated[Count, Unit("messages")] = Field(
        default=2000, description="Messages between rendering and their final reply in one process."
    )
    idle_seconds: Seconds = Field(default=10.0, description="An unused connection is closed after this long.")
    connect_timeout: Seconds = Field(default=30.0, description="To connect and to see the greeting's first octet.")
    tls: Tls = Field(
        default="opportunistic",
        description="STARTTLS: `opportunistic` (if offered, unverified), `required` (verified, else deferred), `none`.",
    )
    private_addresses: bool = Field(
        default=False,
        description="Whether an MX may lie on a loopback or private address; static routes and relays always may.",
    )
    require_verified_domain: bool = Field(
        default=False, description="Refuse senders whose domain's DNS records have not been seen yet."
    )


class Retry(Section):
    """What happens after a 4xx reply or a connection that fails."""

    first: Seconds = Field(
        default=300.0, description="Before the first retry; greylisting usually lets go after five minutes."
    )
    factor: Annotated[float, Field(ge=1, le=10)] = Field(
        default=2.0, description="Each further wait is this many times longer."
    )
    cap: Seconds = Field(default=4 * 3600.0, description="No wait is longer than this.")
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="Each wait is varied at random by up to this fraction, so that retries spread out."
    )
    soft_bounce_after: Annotated[Count, Unit("attempts")] = Field(
        default=3, description="Attempts that must have failed softly before a message counts as bounced,"
    )
    soft_bounce_window: Seconds = Field(
        default=24 * 3600.0, description="and the time since the first of them that must have passed."
    )


class Route(Section):
    """`[[routes]]`: how mail for some domains leaves. The first route that matches is taken;
    without one, mail goes to the MX."""

    domains: Names = Field(
        default=("*",), description="Recipient domains: `example.com`, `*.example.com`, or `*` for all."
    )
    kind: Literal["mx", "relay", "static"] = Field(
        default="mx",
        description="`mx` asks DNS; `relay` hands everything to `hosts` in turn; `static` delivers to `hosts`.",
    )
    hosts: Names = Field(
        default=(), description="`HOST:PORT`, for `relay` and `static`; the first that answers is used."
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=25, description="Port for `mx`, and for hosts without one."
    )
    tls: Literal["opportunistic", "required", "none", "implicit"] | None = Field(
        default=None,
        description="As `send.tls`, or `implicit` (TLS from the first octet, RFC 8314); unset takes `send.tls`.",
    )
    ca_file: Path | None = Field(default=None, description="Certificates to trust instead of the system's.")
    username: str | None = Field(default=None, description="User name for AUTH.")
    password: SecretStr | None = Field(default=None, description="Password for AUTH.")
    oauth_token: SecretStr | None = Field(default=None, description="Bearer token for XOAUTH2 and OAUTHBEARER.")
    connections: Annotated[Count | None, Unit("connections")] = Field(
        default=None, description="Instead of `send.connections`."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Route:
        if self.kind == "mx" and self.hosts:
            raise ValueError('`hosts` needs kind = "relay" or "static"')
        if self.kind != "mx" and not self.hosts:
            raise ValueError(f'kind = "{self.kind}" needs `hosts`, such as ["127.0.0.1:2525"]')
        if (self.password or self.oauth_token) and not self.username:
            raise ValueError("`password` and `oauth_token` need `username`")
        return self


class Dns(Section):
    """The resolver."""

    servers: Names = Field(default=(), description="`ADDRESS` or `ADDRESS:PORT`; empty takes the system's.")
    timeout: Seconds = Field(default=5.0, description="For one question, retries included.")
    cache_entries: Count = Field(default=50_000, description="Answers kept in memory at most.")


class DnsList(Section):
    """`[[lists]]`: a DNS block list or allow list that the gateway and the filter ask."""

    zone: Annotated[str, AfterValidator(_host_name)] = Field(description="Its domain, such as `bl.example.org`.")
    kind: Literal["address", "domain"] = Field(
        default="address",
        description="What is looked up: the peer's `address`, or each `domain` (HELO, sender, links in the text).",
    )
    weight: Annotated[float, Field(ge=-100, le=100)] = Field(
        default=3.0, description="Points that a hit adds to the spam score; negative for an allow list."
    )
    refuse: bool = Field(default=False, description="Refuse the connection's mail at once on a hit.")
    answers: Names = Field(
        default=("127.0.0.0/8",), description="Answers that count as a hit; others are taken for an error of the list."
    )


class Receive(Section):
    """The gateway: mail from the world, and from a front server over LMTP."""

    mx: Names = Field(default=(), description="`HOST:PORT` to listen on for mail from the world: `0.0.0.0:25`.")
    lmtp: Names = Field(default=(), description="`HOST:PORT` to listen on for LMTP from your own front servers.")
    tls_certificate: Path | None = Field(
        default=None, description="Certificate chain (PEM) for STARTTLS; read again when it changes."
    )
    tls_key: Path | None = Field(default=None, description="Its private key (PEM).")
    proxies: Names = Field(
        default=(),
        description="Networks whose connections begin with a PROXY protocol v2 header, such as `10.0.0.0/8`.",
    )
    max_size: Octets = Field(
        default=36 * 2**20, description="Largest message: 25 MB of attachments are about 36 MB on the wire."
    )
    recipients: Annotated[Count, Unit("recipients")] = Field(default=1000, description="Of one transaction.")
    connections: Annotated[Count, Unit("connections")] = Field(default=1000, description="At once, all together.")
    connections_per_address: Annotated[Count, Unit("connections")] = Field(
        default=50, description="At once from one IPv4 address or IPv6 /64."
    )
    small: Annotated[int, BeforeValidator(octets), Field(ge=0), Unit("bytes")] = Field(
        default=128 * 1024,
        description="Messages up to this size lie in the records, in the same commit; larger ones in the blob store.",
    )
    processes: Annotated[int, Field(ge=0, le=64)] = Field(
        default=0,
        description="Processes that parse and judge what was accepted; 0 chooses, and with one core takes none.",
    )
    spool: Path = Field(default=Path(), description="Directory for large messages while they arrive.")
    least_free: Octets = Field(
        default=512 * 2**20, description="With less free space than this new mail is put off with 452."
    )
    authserv_id: str | None = Field(
        default=None, description="Our name in Authentication-Results; unset takes `hostname`."
    )
    trusted_forwarders: Names = Field(
        default=(),
        description="Domains whose ARC seal or list signature excuses mail that fails DMARC because they changed it.",
    )
    refuse_unknown_senders: bool = Field(
        default=False, description="Refuse mail whose sender's domain exists nowhere or takes no mail itself."
    )
    greylist_delay: Seconds = Field(
        default=300.0, description="Where a domain has greylisting on: how long an unknown sender must wait."
    )
    junk_score: Annotated[float, Field(gt=0, le=100)] = Field(
        default=5.0,
        description="Mail with this spam score or more goes to Junk, or is refused where its domain says so.",
    )
    clamd: str | None = Field(
        default=None, description="Address of a ClamAV daemon: `HOST:PORT` or the path of its socket."
    )
    clamd_required: bool = Field(
        default=False, description="Put mail off while the scanner cannot be asked; else it passes unscanned."
    )
    scanner: Annotated[str, _schemes("http", "https")] | None = Field(
        default=None,
        description="Where each message is POSTed to be judged; the answer is JSON: `score`, `reasons`, `junk`.",
    )
    scanner_required: bool = Field(
        default=False, description="Put mail off while that scanner cannot be asked; else it passes without its word."
    )
    log_days: Count = Field(default=30, description="Days that the log of received and refused mail is kept.")


class Retention(Section):
    """How long what was sent is kept; a message that is not final is kept however old."""

    messages_days: Annotated[Count, Unit("days")] = Field(
        default=90, description="Days that messages, their requests and attachments are kept."
    )
    events_days: Annotated[Count, Unit("days")] = Field(
        default=90, description="Days that the events of messages are kept; no longer than the messages."
    )


class Limits(Section):
    """What one request may hold, and what a new tenant is given."""

    recipients: Annotated[Count, Unit("recipients")] = Field(
        default=50, description="to, cc and bcc of one message together."
    )
    batch: Annotated[Count, Unit("messages")] = Field(default=1000, description="Messages in one batch.")
    fan_out: Annotated[Count, Unit("recipients")] = Field(
        default=10_000, description="Recipients of one content in a batch."
    )
    attachments: Octets = Field(default=25_000_000, description="All attachments of a message together, decoded.")
    rate_per_second: Annotated[Count, Unit("messages/s")] = Field(
        default=10_000, description="A new tenant's rate; `posthouse tenant` changes it."
    )
    burst: Annotated[Count, Unit("messages")] = Field(
        default=100_000, description="What a new tenant may send at once before the rate holds it."
    )
    daily_quota: Annotated[int, Field(ge=0), Unit("messages")] = Field(
        default=0, description="A new tenant's messages a day (UTC); 0 is no quota."
    )


class Log(Section):
    """Structured lines on standard error: ids, never addresses or content."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe line that is written."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json` (one object a line) or `console`; `auto` is console on a terminal."
    )
    access: bool = Field(default=False, description="A line for every HTTP request.")


class Metrics(Section):
    """Prometheus."""

    enabled: bool = Field(default=True, description="Serve `/metrics` (Prometheus); it holds counts and no addresses.")


class Worker(Section):
    """How a stage holds its jobs."""

    lease: Seconds = Field(default=120.0, description="A claimed job whose process died comes back after this long.")
    drain_timeout: Seconds = Field(default=30.0, description="A stop waits this long for what is in flight.")


def expanded(path: str | Path) -> Path:
    """With `~` resolved; that of a user whom the system does not know stays, as in a shell."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


class Settings(Section):
    """Everything that can be set. Values that follow from `data_dir` are filled in here, so
    that a `Settings` is complete however it was made."""

    data_dir: Path = Field(
        default=Path("posthouse-data"), description="Directory of the embedded storage, keys and the lock."
    )
    hostname: Annotated[str, AfterValidator(_host_name)] = Field(
        default_factory=_own_name,
        description="Our name in EHLO and in Message-IDs; its address should resolve back to it.",
    )
    roles: Annotated[tuple[Role, ...], BeforeValidator(_listed), Field(min_length=1)] = Field(
        default=ROLES, description="What this process does; several processes need PostgreSQL."
    )
    secret_key_file: Path = Field(
        default=Path(), description="The master key that seals private keys at rest; made by `posthouse init`."
    )
    records: Records = Field(default=Records(), description="")
    blobs: Blobs = Field(default=Blobs(), description="")
    queue: Queue = Field(default=Queue(), description="")
    bus: Bus = Field(default=Bus(), description="")
    search: Search = Field(default=Search(), description="")
    http: Http = Field(default=Http(), description="")
    render: Render = Field(default=Render(), description="")
    send: Send = Field(default=Send(), description="")
    retry: Retry = Field(default=Retry(), description="")
    worker: Worker = Field(default=Worker(), description="")
    dns: Dns = Field(default=Dns(), description="")
    receive: Receive = Field(default=Receive(), description="")
    retention: Retention = Field(default=Retention(), description="")
    limits: Limits = Field(default=Limits(), description="")
    log: Log = Field(default=Log(), description="")
    metrics: Metrics = Field(default=Metrics(), description="")
    routes: tuple[Route, ...] = Field(default=(), description="")
    lists: tuple[DnsList, ...] = Field(default=(), description="")

    @model_validator(mode="before")
    @classmethod
    def _follow_data_dir(cls, given: Any) -> Any:
        """Paths and URLs that are not given lie under `data_dir`, which becomes absolute."""
        values = dict(cast("dict[str, Any]", given))
        wanted, usual = values.get("data_dir"), cls.model_fields["data_dir"].default
        is_path = isinstance(wanted or usual, str | Path)
        data = Path(os.path.abspath(expanded((wanted or usual) if is_path else usual)))  # noqa: PTH100 - resolve() follows links
        values["data_dir"] = data if is_path else wanted  # what is no path is refused as any value is
        values.setdefault("secret_key_file", data / "secret.key")
        held = values.get("receive", {})
        if isinstance(held, BaseModel):
            held = held.model_dump(exclude_unset=True)
        if isinstance(held, dict):
            values["receive"] = {"spool": data / "spool", **cast("dict[str, Any]", held)}
        for section, url in (("records", f"sqlite:///{data / 'posthouse.db'}"), ("blobs", f"file://{data / 'blobs'}")):
            held = values.get(section, {})
            if isinstance(held, BaseModel):
                held = held.model_dump(exclude_unset=True)
            if isinstance(held, dict):
                values[section] = {"url": url, **cast("dict[str, Any]", held)}
        return values

    @property
    def embedded(self) -> bool:
        """Whether records lie in SQLite, which one `serve` owns."""
        return self.records.url.startswith("sqlite:")

"""The render process: fills, builds and signs, on a core of its own. Run by `pool.py`.

Frames of msgpack both ways (`net/child.py`). A request brings contexts (what the messages of
one request share; kept until told to drop) and tasks; the answer has the signed bytes of each
task, or why there are none.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from posthouse.errors import Error
from posthouse.mail.address import Mailbox, parse_mailbox
from posthouse.mail.build import Attachment, Skeleton
from posthouse.mailauth.dkim import Signer, load_private_key, sign
from posthouse.net.child import serve
from posthouse.storage.blobs.factory import open_blobs
from posthouse.templates.fill import Filler
from posthouse.templates.model import Compiled

Named = tuple[str, str]
"""A mailbox as (display name or "", address)."""
_ATTACHMENT_CACHE = 64 * 1024 * 1024
_KEYS = 1000
"""Signing keys kept loaded."""


class AttachmentRef(msgspec.Struct, frozen=True, array_like=True):
    filename: str
    content_type: str
    content_id: str | None
    blob: str
    size: int


class Setup(msgspec.Struct, frozen=True):
    """The first frame: where blobs lie (what `open_blobs` takes)."""

    blobs: dict[str, str]


class SignWith(msgspec.Struct, frozen=True, array_like=True):
    domain: str
    selector: str
    algorithm: str
    private_pem: bytes


class Context(msgspec.Struct, frozen=True, array_like=True):
    """What the messages of one request have in common."""

    id: str
    from_: Named
    reply_to: tuple[Named, ...]
    headers: tuple[tuple[str, str], ...]
    to: tuple[Named, ...]
    cc: tuple[Named, ...]
    signers: tuple[SignWith, ...]
    template: tuple[str, int] | None
    compiled: Compiled | None
    subject: str
    html: str | None
    text: str | None
    attachments: tuple[AttachmentRef, ...]
    variables: bytes
    """Defaults, a JSON object."""


class Task(msgspec.Struct, frozen=True, array_like=True):
    context: str
    message_id: str
    """Of the ledger; Message-ID and boundaries are made from it."""
    date: int
    """Seconds."""
    to: Named | None
    """The one recipient of a fan-out's message; None: the context's `to`."""
    variables: str | None
    """JSON object over the context's defaults."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    drop: list[str]
    contexts: list[Context]
    tasks: list[Task]


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """`temporary`: storage was away; else the message cannot be rendered, ever."""

    code: str
    text: str
    temporary: bool


Result = bytes | Failure


@lru_cache(maxsize=_KEYS)
def _signer(one: SignWith) -> Signer:
    """Loading an RSA key costs 35 ms, as much as a hundred signatures: once a key, not once a context."""
    return Signer(one.domain, one.selector, load_private_key(one.private_pem))


class _Ready:
    """A context made ready: parsed mailboxes, loaded keys, the headers laid out."""

    def __init__(self, context: Context, attachments: tuple[Attachment, ...]) -> None:
        self.context = context
        self.attachments = attachments
        self.to = _mailboxes(context.to)
        self.cc = _mailboxes(context.cc)
        self.defaults: dict[str, Any] = msgspec.json.decode(context.variables)
        self.skeleton = Skeleton(
            from_=_mailbox(context.from_), reply_to=_mailboxes(context.reply_to), extra=context.headers
        )
        self.signers = [_signer(one) for one in context.signers]
        self.domain = context.from_[1].rpartition("@")[2]


class Renderer:
    """Contexts in, signed messages out; no socket here."""

    def __init__(self, setup: Setup) -> None:
        self._filler = Filler()
        self._setup = setup
        self._contexts: dict[str, Context] = {}
        self._ready: dict[str, _Ready] = {}
        self._attachments: OrderedDict[str, bytes] = OrderedDict()
        self._runner = asyncio.Runner()
        self._decode_variables = msgspec.json.Decoder(dict[str, Any]).decode

    def answer(self, request: Request) -> list[Result]:
        """In the order of the tasks."""
        for name in request.drop:
            self._contexts.pop(name, None)
            self._ready.pop(name, None)
        for context in request.contexts:
            self._contexts[context.id] = context
        return [self._try(task) for task in request.tasks]

    def _try(self, task: Task) -> Result:
        try:
            return self._render(task)
        except Error as error:
            return Failure(error.code, error.public, error.temporary)
        except Exception as error:  # one message must not take the process with it
            return Failure("render_failed", f"{type(error).__name__}: {error}"[:500], False)

    def _render(self, task: Task) -> bytes:
        ready = self._ready.get(task.context) or self._make_ready(self._contexts[task.context])
        context = ready.context
        subject, html, text = context.subject, context.html, context.text
        if context.template is not None:
            variables = ready.defaults
            if task.variables is not None:
                variables = {**variables, **self._decode_variables(task.variables)}
            filled = self._filler.fill(context.template, context.compiled, variables)
            subject, html, text = filled.subject, filled.html, filled.text
        number = task.message_id.partition("_")[2]
        message = ready.skeleton.fill(
            to=ready.to if task.to is None else (_mailbox(task.to),),
            cc=ready.cc,
            subject=subject,
            date=datetime.fromtimestamp(task.date, UTC),
            message_id=f"<{number}@{ready.domain}>",
            text=text,
            html=html,
            attachments=ready.attachments,
            seed=number,
        )
        return sign(message, ready.signers, task.date) + message if ready.signers else message

    def _make_ready(self, context: Context) -> _Ready:
        attachments = tuple(
            Attachment(
                content=self._attachment(ref.blob),
                filename=ref.filename,
                content_type=ref.content_type,
                content_id=ref.content_id,
            )
            for ref in context.attachments
        )
        ready = self._ready[context.id] = _Ready(context, attachments)
        return ready

    def _attachment(self, key: str) -> bytes:
        cached = self._attachments.get(key)
        if cached is not None:
            self._attachments.move_to_end(key)
            return cached
        data = self._runner.run(self._read_blob(key))
        self._attachments[key] = data
        while sum(map(len, self._attachments.values())) > _ATTACHMENT_CACHE and len(self._attachments) > 1:
            self._attachments.popitem(last=False)
        return data

    async def _read_blob(self, key: str) -> bytes:
        blobs = await open_blobs(**self._setup.blobs)
        try:
            return await blobs.get(key)
        finally:
            await blobs.close()


def _mailbox(named: Named) -> Mailbox:
    mailbox = parse_mailbox(named[1])
    return Mailbox(named[0], mailbox.local, mailbox.domain)


def _mailboxes(many: tuple[Named, ...]) -> tuple[Mailbox, ...]:
    return tuple(map(_mailbox, many))


def main(descriptor: int) -> None:
    serve(descriptor, _begin)


def _begin(setup: bytearray) -> Callable[[bytearray], bytes]:
    renderer = Renderer(msgspec.msgpack.decode(setup, type=Setup))
    decode = msgspec.msgpack.Decoder(Request).decode
    encode = msgspec.msgpack.Encoder().encode
    return lambda frame: encode(renderer.answer(decode(frame)))

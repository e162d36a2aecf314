"""The JSON bodies and query strings of the receiving side that come in, as frozen types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from posthouse.api.drafts import Cursor, Limit
from posthouse.directory.model import AliasKind, DmarcAction, Spam
from posthouse.inbound.model import State
from posthouse.outbound.model import LINE, Line, Moment

Address = Annotated[str, Meta(pattern=LINE, min_length=1, max_length=320)]
Octets = Annotated[int, Meta(ge=0, le=2**53, description="Octets; 0: no bound")]
Number = Annotated[int, Meta(ge=1, le=10**15)]
Place = Annotated[str, Meta(pattern=LINE, max_length=20)] | Annotated[int, Meta(ge=1, le=10**15)]
"""A mailbox: its number, or inbox, drafts, sent, archive, junk or trash."""
Password = Annotated[str, Meta(min_length=8, max_length=1024)]
Numbers = Annotated[list[Number], Meta(min_length=1, max_length=1000)]
Source = Annotated[str, Meta(pattern=LINE, max_length=200)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class MailSettings(Request, frozen=True, kw_only=True):
    """How mail for a domain is treated; what is left out stays, or is as by default."""

    spam: Annotated[Spam, Meta(description="What the filter takes for spam: to Junk, or refused")] | None = None
    dmarc: (
        Annotated[DmarcAction, Meta(description="Mail that fails DMARC: as its domain asks, to Junk, or accepted")]
        | None
    ) = None
    greylist: Annotated[bool, Meta(description="Unknown senders have to come twice")] | None = None
    plus: (
        Annotated[str, Meta(pattern=LINE, max_length=1, description="Before a tag in an address; empty: no tags")]
        | None
    ) = None
    quota: Annotated[int, Meta(ge=0, le=2**53, description="Octets of a new account; 0: no bound")] | None = None
    quota_all: Annotated[int, Meta(ge=0, le=2**53, description="Octets of all accounts; 0: no bound")] | None = None


class MailDomainDraft(Request, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=253)]
    settings: MailSettings = MailSettings()


class MailDomainChange(Request, frozen=True, kw_only=True):
    settings: MailSettings


class FilterSettings(Request, frozen=True, kw_only=True):
    """A person's own settings; what is left out stays."""

    allow: Annotated[list[Line], Meta(max_length=1000, description="Never junk: addresses, or @domains")] | None = None
    block: Annotated[list[Line], Meta(max_length=1000, description="Always junk: addresses, or @domains")] | None = None
    rules: Annotated[list[dict[str, Any]], Meta(max_length=1000, description="As docs/receiving.md tells")] | None = (
        None
    )
    vacation: (
        Annotated[dict[str, Any], Meta(description="`text`, `subject`, `from`, `until`, `every_days`, `enabled`")]
        | msgspec.UnsetType
        | None
    ) = msgspec.UNSET
    forward: Annotated[list[Address], Meta(max_length=100, description="They get a copy of everything")] | None = None
    keep: Annotated[bool, Meta(description="What is forwarded stays here too")] | None = None


class AccountDraft(Request, frozen=True, kw_only=True):
    address: Address
    name: Annotated[str, Meta(pattern=LINE, max_length=200, description="Of the person")] = ""
    password: Annotated[Password, Meta(description="Without one nobody can log in with one")] | None = None
    quota: Annotated[int, Meta(ge=0, le=2**53, description="Octets; by default the domain's; 0: none")] | None = None
    settings: FilterSettings = FilterSettings()


class AccountChange(Request, frozen=True, kw_only=True):
    """What is left out stays."""

    name: Annotated[str, Meta(pattern=LINE, max_length=200)] | None = None
    state: Annotated[Literal["active", "disabled"], Meta(description="Disabled: receives nothing")] | None = None
    quota: Octets | None = None
    password: Annotated[Password, Meta(description="null: nobody can log in with one")] | msgspec.UnsetType | None = (
        msgspec.UNSET
    )
    settings: FilterSettings | None = None


class AccountQuery(Request, frozen=True, kw_only=True):
    domain: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=253)] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class AliasDraft(Request, frozen=True, kw_only=True):
    address: Annotated[Address, Meta(description="`@example.com`: whatever else is sent there")]
    targets: Annotated[list[Address], Meta(min_length=1, max_length=1000, description="Here or elsewhere")]
    kind: Annotated[AliasKind, Meta(description="By default what address and targets say")] | None = None


class MailboxDraft(Request, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=255)]
    parent: Annotated[int, Meta(ge=0, le=10**15, description="The mailbox it lies in; 0: at the top")] = 0


class MailboxChange(Request, frozen=True, kw_only=True):
    """What is left out stays."""

    name: Annotated[str, Meta(pattern=LINE, min_length=1, max_length=255)] | None = None
    parent: Annotated[int, Meta(ge=0, le=10**15)] | None = None
    sort_order: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    subscribed: bool | None = None


class MailboxRemoval(Request, frozen=True, kw_only=True):
    emails: Annotated[
        Literal["refuse", "trash", "destroy"], Meta(description="What becomes of those that lie only there")
    ] = "refuse"


class EmailsQuery(Request, frozen=True, kw_only=True):
    threads: Annotated[bool, Meta(description="One line for each conversation")] = False
    limit: Limit = 50
    cursor: Cursor | None = None


class EmailQuery(Request, frozen=True, kw_only=True):
    body: Annotated[bool, Meta(description="With the text as a reader sees it")] = False


class EmailChange(Request, frozen=True, kw_only=True):
    """All of it or nothing. An email that is in no mailbox any more is destroyed."""

    mailboxes: (
        Annotated[list[Place], Meta(min_length=1, max_length=100, description="In these and no others")] | None
    ) = None
    add_mailboxes: Annotated[list[Place], Meta(max_length=100)] = []
    remove_mailboxes: Annotated[list[Place], Meta(max_length=100)] = []
    add_keywords: Annotated[list[Line], Meta(max_length=64)] = []
    remove_keywords: Annotated[list[Line], Meta(max_length=64)] = []


class EmailsChange(EmailChange, frozen=True, kw_only=True):
    emails: Numbers


class RawQuery(Request, frozen=True, kw_only=True):
    trace: Annotated[bool, Meta(description="With the header fields that we add before it")] = False


class SplitDraft(Request, frozen=True, kw_only=True):
    emails: Annotated[Numbers, Meta(description="Of this conversation; they begin a new one")]


class MergeDraft(Request, frozen=True, kw_only=True):
    threads: Annotated[Numbers, Meta(description="Conversations that belong to this one")]


class SearchQuery(Request, frozen=True, kw_only=True):
    q: Annotated[str, Meta(max_length=2000, description='`from:ann "exact words" -draft report*`')] = ""
    limit: Limit = 50
    cursor: Cursor | None = None


class ChangesQuery(Request, frozen=True, kw_only=True):
    since: Annotated[int, Meta(ge=0, le=10**15, description="`until` of the last answer")] | None = None
    limit: Annotated[int, Meta(ge=1, le=5000)] = 1000


class ImportItem(Request, frozen=True, kw_only=True):
    """A message as it is. With `source` and `position` it is stored once, however often it comes."""

    raw: Annotated[bytes, Meta(min_length=1, description="Base64")]
    mailboxes: Annotated[list[Place], Meta(max_length=100, description="By default the inbox")] = []
    keywords: Annotated[list[Line], Meta(max_length=64)] = []
    received_at: Annotated[Moment, Meta(description="By default as its header says")] | None = None
    source: Annotated[Source, Meta(description="Where it is from, such as a file's name")] = ""
    position: Annotated[int, Meta(ge=0, le=2**62, description="Where it ends there; goes up")] = 0


class ImportDraft(Request, frozen=True, kw_only=True):
    """All are stored or none: at most 8 MB in all, but for a single message."""

    emails: Annotated[list[ImportItem], Meta(min_length=1, max_length=1000)]


class MarksDraft(Request, frozen=True, kw_only=True):
    sources: Annotated[list[Source], Meta(min_length=1, max_length=1000)]


class ArrivalQuery(Request, frozen=True, kw_only=True):
    address: Annotated[Address, Meta(description="Of a recipient, as it was given in RCPT")] | None = None
    account: Annotated[Line, Meta(description="Id or address")] | None = None
    state: Annotated[State, Meta(description="Of a recipient")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class RefusalQuery(Request, frozen=True, kw_only=True):
    recipient: Address | None = None
    peer: Annotated[Line, Meta(description="Its IP address")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    foreign: Annotated[bool, Meta(description="For domains that are nobody's here; operators only")] = False
    limit: Limit = 50
    cursor: Cursor | None = None


class CheckDraft(Request, frozen=True, kw_only=True):
    deep: Annotated[bool, Meta(description="Read every message and compare it with its hash")] = False
    mend: Annotated[bool, Meta(description="Make right what follows from what is certain, then prove again")] = False


class ReindexDraft(Request, frozen=True, kw_only=True):
    pass

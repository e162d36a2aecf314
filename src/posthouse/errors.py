"""Every error that Posthouse raises on purpose, in one tree.

    Error
    ├── Invalid            the caller's input is wrong                    422, 5.5.4
    │   ├── Malformed      the request could not be read at all           400, 5.5.2
    │   └── TooLarge       a size or a count is over its bound            413, 5.3.4
    ├── Unauthorized       no key, an unknown key or a revoked key        401, 5.7.8
    ├── Forbidden          the key may not do this                        403, 5.7.1
    ├── NotFound           no such thing, or it is another tenant's       404, 5.1.1
    ├── Conflict           the thing is not in a state that allows this   409, 5.5.1
    ├── Limited            a rate or a quota is used up (temporary)       429, 4.7.1
    ├── Unavailable        a server that we need does not answer          503, 4.3.0
    │   ├── StorageUnavailable  records, blobs or queue                   503, 4.3.1
    │   └── DnsUnavailable      the resolver                              503, 4.4.3
    ├── Misconfigured      a setting is unknown or wrong; stops the start
    └── Corrupt            stored bytes are not what was stored           500, 4.3.0

`public` may be shown to anyone who talks to us; `detail` is for our log only. The edges
translate: `api/problems.py` to RFC 9457, `smtp/reply.py` to a reply with an enhanced
status code (RFC 3463), `cli` to a line that says what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong place in the caller's input: an RFC 6901 pointer and what is wrong there."""

    pointer: str
    message: str


class Error(Exception):
    """Base of the tree. `code` is stable and documented in docs/reference/errors.md."""

    code = "internal_error"
    status = 500
    enhanced = "4.3.0"
    temporary = False
    title = "Something failed on our side"

    def __init__(
        self,
        public: str | None = None,
        *,
        code: str | None = None,
        detail: str = "",
        faults: tuple[Fault, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        """
        :param public: a sentence for the caller; the class's title when left out.
        :param code: a narrower stable code (`template_not_found` for a `NotFound`).
        :param detail: for the log: the cause, never shown to the caller.
        :param faults: the places in the input that are wrong.
        :param retry_after: seconds until it is worth trying again.
        """
        self.public = public or self.title
        self.detail = detail
        self.faults = faults
        self.retry_after = retry_after
        if code is not None:
            self.code = code
        super().__init__(self.public)


class Invalid(Error):
    code = "invalid_request"
    status = 422
    enhanced = "5.5.4"
    title = "The request is not valid"


class Malformed(Invalid):
    code = "malformed_request"
    status = 400
    enhanced = "5.5.2"
    title = "The request could not be read"


class TooLarge(Invalid):
    code = "too_large"
    status = 413
    enhanced = "5.3.4"
    title = "The request is too large"


class Unauthorized(Error):
    code = "unauthorized"
    status = 401
    enhanced = "5.7.8"
    title = "A valid API key is needed"


class Forbidden(Error):
    code = "forbidden"
    status = 403
    enhanced = "5.7.1"
    title = "This key may not do that"


class NotFound(Error):
    code = "not_found"
    status = 404
    enhanced = "5.1.1"
    title = "There is no such thing"


class Conflict(Error):
    code = "conflict"
    status = 409
    enhanced = "5.5.1"
    title = "That is not possible in the present state"


class Limited(Error):
    code = "rate_limited"
    status = 429
    enhanced = "4.7.1"
    temporary = True
    title = "Too many requests"


class Unavailable(Error):
    code = "unavailable"
    status = 503
    enhanced = "4.3.0"
    temporary = True
    title = "A part that is needed does not answer; try again"


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"
    enhanced = "4.3.1"
    title = "Storage does not answer; nothing was accepted; try again"


class DnsUnavailable(Unavailable):
    code = "dns_unavailable"
    enhanced = "4.4.3"
    title = "DNS does not answer; try again"


class Misconfigured(Error):
    code = "misconfigured"
    title = "A setting is wrong"


class Corrupt(Error):
    code = "corrupt"
    title = "Stored data is damaged"

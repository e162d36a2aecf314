"""Known or refused at RCPT: what a sender is told about an address. Pure."""

from __future__ import annotations

import msgspec

from posthouse.directory.model import Resolution, Status, Target
from posthouse.errors import Invalid
from posthouse.mail.srs import Srs
from posthouse.smtp.reply import Reply

_PLAIN = {
    Status.UNKNOWN: Reply(550, "5.1.1", ("Nobody here has this address; check it for a typing error",)),
    Status.MALFORMED: Reply(550, "5.1.3", ("This is not an address that can exist here",)),
    Status.DISABLED: Reply(550, "5.2.1", ("This mailbox is disabled and takes no mail",)),
    Status.LOOPS: Reply(550, "5.4.6", ("This alias leads back to itself or to too many; tell the postmaster there",)),
}
_CODES = {
    Status.UNKNOWN: "unknown_recipient",
    Status.MALFORMED: "malformed_recipient",
    Status.DISABLED: "disabled",
    Status.LOOPS: "alias_loops",
    Status.FOREIGN: "relay",
}
_FULL = Reply(452, "4.2.2", ("This mailbox is full; try again later, or reach its owner another way",))


def refusal(found: Resolution, size: int) -> tuple[Reply, str] | None:
    """The reply and the reason's code; None: mail of `size` octets may come (0: not said)."""
    status = found.status
    if status is not Status.FOUND:
        reply = _PLAIN.get(status) or _no_relay(found.address)
        return reply, _CODES[status]
    return no_room(found, size)


def returned(found: Resolution, path: str, reverse_path: str, srs: Srs, now: int) -> Resolution | tuple[Reply, str]:
    """A rewritten address of ours leads to whoever wrote what we sent on: what the address
    leads to then, or a refusal. Only notices come this way, and only for a hash of our own.

    :param found: what the directory says of `path`, which has the shape of one. :param now: µs.
    """
    if found.status in _NOT_OURS:
        return found
    if reverse_path:
        return Reply(550, "5.7.1", ("This address takes only notices about mail that was sent on",)), "srs_not_notice"
    try:
        to = srs.reverse(path.removesuffix("."), now)
    except Invalid as error:
        if error.code == "srs_expired":
            return Reply(550, "5.7.1", ("This address was for notices of mail that is too old now",)), error.code
        return Reply(550, "5.1.1", ("Nobody here has this address",)), "srs_invalid"
    target = Target(0, found.tenant_id, found.domain, forward=to)
    return msgspec.structs.replace(found, status=Status.FOUND, targets=(target,), room=None, most=None)


_NOT_OURS = {Status.FOREIGN, Status.MALFORMED}


def no_room(found: Resolution, size: int) -> tuple[Reply, str] | None:
    """As `refusal`, for the quotas alone."""
    room = found.room
    if room is None or (room >= size and room > 0):
        return None
    if found.most and size > found.most:
        text = f"The message is larger than the whole mailbox, {found.most} octets"
        return Reply(552, "5.2.3", (text,)), "too_large"
    return _FULL, "mailbox_full"


def _no_relay(address: str) -> Reply:
    domain = address.rpartition("@")[2][:255]
    return Reply(550, "5.7.1", (f"Mail for {domain} is not received here, and this server relays for nobody",))

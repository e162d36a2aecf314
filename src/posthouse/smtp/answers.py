"""What a server says on its own: the replies that need no decision of the shell."""

from __future__ import annotations

from posthouse.smtp.reply import Reply


def simple(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, (text,))


OK = simple(250, "2.0.0", "Ok")
SENDER_OK = simple(250, "2.1.0", "Sender ok")
RECIPIENT_OK = simple(250, "2.1.5", "Recipient ok")
GO_AHEAD = Reply(354, None, ("End data with <CR><LF>.<CR><LF>",))
BYE = simple(221, "2.0.0", "Bye")
READY_FOR_TLS = simple(220, "2.0.0", "Ready to start TLS")
AUTHENTICATED = simple(235, "2.7.0", "Authenticated")
CANNOT_VERIFY = simple(252, "2.1.5", "Send some mail, I will try")
HELP = simple(214, "2.0.0", "RFC 5321")

UNKNOWN = simple(500, "5.5.1", "Command not recognized")
OFF = simple(502, "5.5.1", "Command not offered here")
HELLO_FIRST = simple(503, "5.5.1", "Say hello first")
NO_SERVICE = simple(503, "5.5.1", "No service here; QUIT")
MAIL_FIRST = simple(503, "5.5.1", "MAIL first")
NESTED = simple(503, "5.5.1", "A transaction is open; RSET ends it")
RCPT_FIRST = simple(503, "5.5.1", "RCPT first")
NO_RECIPIENTS = simple(554, "5.5.1", "No valid recipients")
IN_CHUNKS = simple(503, "5.5.1", "Chunks are being sent; only BDAT or RSET now")
CHUNK_REFUSED = simple(503, "5.5.1", "An earlier chunk was refused; RSET")  # RFC 3030 §2
NEEDS_BDAT = simple(503, "5.5.1", "BINARYMIME needs BDAT")  # RFC 3030 §3
TOO_MANY_RECIPIENTS = simple(452, "4.5.3", "Too many recipients")  # RFC 5321 §4.5.3.1.10
BAD_PARAMETER = simple(555, "5.5.4", "A parameter belongs to an extension that is not offered")
LINE_TOO_LONG = simple(500, "5.5.2", "Line too long")
BARE_LINE = simple(500, "5.5.2", "Lines end in CR LF; closing")
EARLY = simple(554, "5.5.0", "PIPELINING is not offered; closing")
BAD_BASE64 = simple(501, "5.5.2", "The response is not base64")
AUTH_GIVEN_UP = simple(501, "5.7.0", "Authentication given up")
AUTH_NOW = simple(503, "5.5.1", "AUTH is not possible now")
AUTH_MECHANISM = simple(504, "5.5.4", "Mechanism not offered")
AUTH_FAILED = simple(535, "5.7.8", "Authentication credentials invalid")
TOO_MANY_ERRORS = simple(421, "4.7.0", "Too many errors")
TOO_MANY_IDLE = simple(421, "4.7.0", "Too many commands without mail")
TOO_MANY_REFUSED = simple(421, "4.7.0", "Too many recipients refused")
TOO_MANY_MAILS = simple(421, "4.7.0", "Too many transactions on one connection")
TOO_MANY_OCTETS = simple(421, "4.3.4", "Far more octets than a message may have")
SHUTDOWN = simple(421, "4.3.2", "Shutting down")
FLAWS = {
    "bare": simple(550, "5.6.11", "A line of the message ends in something other than CR LF"),
    "nul": simple(550, "5.6.11", "The message has a NUL octet"),
    "line": simple(550, "5.6.0", "A line of the message is too long"),
    "size": simple(552, "5.3.4", "The message is too large"),
}

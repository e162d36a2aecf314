"""What says that mail comes from whom it names. Pure: bytes, keys and a resolver in, evidence out.

Going out, `dkim` signs and `seal` adds an ARC set. Coming in, `authenticate` asks everything:

1. `message` splits the header once and hashes the body once, in pieces when it is large.
2. `spf` checks the peer's address for MAIL FROM and HELO (RFC 7208).
3. `verify` checks DKIM signatures (RFC 6376, 8301, 8463, 8616), `arc` the chain (RFC 8617).
4. `dmarc` says whether one of them speaks for the domain in From, and what that domain asks for
   when none does (RFC 9989).
5. `results` writes it down (RFC 8601), `trace` writes Received and Return-Path.

DNS is a `lookup.Lookup`; results are `evidence`.
"""

"""What says that mail comes from whom it names. Pure: bytes and keys in, fields out.

`dkim` signs (RFC 6376, RFC 8463); its canonical forms serve a verifier as well.
"""

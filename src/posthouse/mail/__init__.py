"""Mail as text: addresses, header fields and whole messages. Pure: no I/O, no clock, no randomness.

1. `address` reads a mailbox and brings it into the one form that is compared and stored.
2. `headers` makes header fields of values, and lets no value begin a field of its own.
3. `transfer` picks a content-transfer-encoding that no relay has a reason to change.
4. `build` lays headers, text, HTML, images and attachments out as one MIME message.
5. `parse` reads any message, however broken, into what `parsed` describes.
"""

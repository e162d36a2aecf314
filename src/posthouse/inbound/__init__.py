"""How a message is received.

accept   in the SMTP session: known recipients, SPF, DKIM, DMARC, ARC, policy; then message
         and job are durable in one step, and only then 250                    accept.py
filter   a verdict with its reasons                                            filter/
store    parsed, threaded, counted: rows of each account in one transaction    store.py
notify   a change on the bus                                                   notify.py
index    words into the search index, later, from a job of its own             index.py
"""

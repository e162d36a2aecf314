"""What happened to a message: an append-only log, in order of time, never changed.

`types.py` names the transitions, `log.py` writes and reads them. Appends join the
transaction of the transition that they tell of, so the log and the ledger cannot differ.
"""

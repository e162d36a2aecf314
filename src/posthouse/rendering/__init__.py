"""The render processes: filling, building and signing, each on a core of its own.

`process.py` is what runs there; `pool.py`, in the server, feeds it batches by lane and sees to
it that a process which dies loses nothing. A room of its own so that a render process loads
nothing of the server.
"""

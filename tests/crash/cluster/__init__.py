"""The fault run: both flows against many processes on the real engines, while one thing after
another is killed, stopped, cut off or set wrong; then the judgement.

    world.py    engines, processes, the sink, the network, the clients
    faults.py   what can happen
    run.py      a schedule of it, calm, and the end
    judge.py    the promise, and nothing of how it is kept
"""

"""A power cut, without cutting the power.

shim.c stands between a process and its files, and writes down every change and every fsync;
replay.py makes of that the directory as a disk would have it after the cut: what was not made
durable is gone, or is there in part, as it pleases. machine.py puts the two together.
"""

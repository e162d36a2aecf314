"""Mutation fuzzing of everything that reads what strangers send.

    python -m tests.fuzz NAME|all [--seconds N] [--seed S] [--jobs J]

A target is a module `target_NAME.py` in this folder with `CORPUS`, inputs to begin with, and
`check(data)`, which raises when something is wrong (`SLOWEST`: seconds of CPU that one input may
take, when not 2). Inputs are mutated from the corpus; those that reach new code are not looked
for, the corpus should have a bit of everything. What fails is written to a file whose name is
printed, with the seed that finds it again. `all` gives each target its seconds, and runs as many
targets at once as there are cores.
"""

"""Benchmarks: each file prints its figures, their bars and whether they are met (`--json`: one
object with `name`, `figures`, `bars`, `met`). `make bench` runs all. Loopback only."""

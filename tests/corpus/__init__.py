"""Labelled material that tests and benchmarks judge by. All of it is generated; nobody's mail."""

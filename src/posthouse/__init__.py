"""Posthouse: a whole email system that explains itself."""

__version__ = "0.1.0"

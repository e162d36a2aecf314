"""Ports and their backends, one folder a port; features see only the `base` modules."""

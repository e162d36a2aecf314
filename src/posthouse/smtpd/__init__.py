"""SMTP over asyncio: listeners around the sans-IO sessions of `posthouse.smtp`."""

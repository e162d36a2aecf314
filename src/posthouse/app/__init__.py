"""The composition root: Settings → backends → services → roles.

`running` is a server, `asgi` the API in this process without a server, `bootstrap` the first
start on an empty data directory. `parts.py` is the only file that names a backend,
`values.py` the only one that knows the settings.
"""

from posthouse.app.parts import bootstrap
from posthouse.app.running import Running, asgi, running

__all__ = ["Running", "asgi", "bootstrap", "running"]

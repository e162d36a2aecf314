"""The composition root: Settings → backends → services → roles.

`running` is a server, `asgi` the API in this process without a server, `bootstrap` the first
start on an empty data directory. `storage.py` opens the backends, `sending.py` and `receiving.py`
wire the two flows over them, `parts.py` puts it together; `values.py` makes of settings what they ask for.
"""

from posthouse.app.parts import bootstrap
from posthouse.app.running import Running, asgi, running

__all__ = ["Running", "asgi", "bootstrap", "running"]

"""Settings: frozen, documented, and each value knows where it came from.

1. `load` gathers values from flags, `POSTHOUSE_*` variables and one TOML file, in that order
   of precedence, over the defaults in `schema`.
2. Everything unknown or wrong is collected and raised at once as `Misconfigured`, each with
   its name, its value, its source and what to do about it.
3. `Configuration.values()` lists every setting with value, source, unit and meaning; that is
   what `posthouse config` and docs/reference/settings.md show.

Nothing else in Posthouse reads the environment or a configuration file.
"""

from posthouse.config.load import Configuration, Environment, Source, Value, load
from posthouse.config.schema import ROLES, Role, Route, Settings

__all__ = ["ROLES", "Configuration", "Environment", "Role", "Route", "Settings", "Source", "Value", "load"]

"""Search in OpenSearch: one index for all accounts, and another beside it while it is made anew.

1. `address` reads the setting; `client` is the one place that talks, with bounds on time and tries.
2. `layout` names the indexes and aliases. What is so is written in the aliases alone, which the
   server changes together or not at all: which index answers, which are written, what is due.
3. `bulk` turns messages into lines and judges each line's answer.
4. `dsl` turns a parsed query into OpenSearch's own; nothing that was typed is syntax there.
5. `engine` is the port.

Words come from `storage.search.tokens`, as on every backend; OpenSearch divides at spaces only.
"""

from posthouse.storage.search.opensearch.address import parse as parse_address
from posthouse.storage.search.opensearch.engine import OpenSearch

__all__ = ["OpenSearch", "parse_address"]

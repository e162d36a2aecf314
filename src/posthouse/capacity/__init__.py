"""How much a workload needs, and how long its mail will wait.

1. `workload`: what is asked for: mails a day, the burst, the mailboxes, for how long.
2. `costs`: what one mail costs, measured by `python -m bench --costs`, or estimated where nothing was.
3. `sizing`: processes of each role and partitions of each topic.
4. `engines`: cores, memory, storage and network of PostgreSQL, Kafka, Redis, S3 and OpenSearch.
5. `queueing`: utilisation, waiting times and the queue of a burst, from processes and costs.
6. `planning`: `plan`, which puts these together with what it assumed.

Nothing here reads a clock, a socket or a setting.
"""

from posthouse.capacity.costs import Costs
from posthouse.capacity.planning import Plan, plan
from posthouse.capacity.workload import EXAMPLES, Workload

__all__ = ["EXAMPLES", "Costs", "Plan", "Workload", "plan"]

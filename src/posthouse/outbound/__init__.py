"""How a message is sent, in the order it happens.

1. `service.py`   takes a request from an edge (API): `Outbound.send`, `send_each`, `send_many`.
2. `check.py`     finds every fault of a draft; `compose.py` pins its template version, stores
                  its attachments and lays out its ledger rows.
3. `submit.py`    writes rows, events and a render job for each message in one durable step that
                  concurrent requests share; then the edge answers 202.
4. `worker.py`    (above us) claims due jobs in batches, lane by lane, tenants in turn.
5. `prepare.py`   decides who is still to be written to: age, suppression, destination, site.
6. `render.py`    fills, builds and signs in the render processes (`rendering/`).
7. `send.py`      hands parcels to their sites (`egress/site.py`), whose connections deliver
                  them one at a time.
8. `verdict.py`   says what the peer's answer means; `settle.py` has row, events, suppression and
                  job on disk, together, before that connection's next message.
9. `explain.py`   tells all of it again, for one message.

Why was it not sent? `prepare.py` and `verdict.py` are the only places that decide so, and each
decision is an event.
"""

from posthouse.outbound.render import Render
from posthouse.outbound.send import Send
from posthouse.outbound.service import Outbound
from posthouse.outbound.submit import Submit

STAGES = (Submit, Render, Send)
"""The order of the flow."""

__all__ = ["STAGES", "Outbound", "Render", "Send", "Submit"]

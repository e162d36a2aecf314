"""Moving what is stored from one set of engines to another, while the first is in use.

`tables`: what is moved. `chunks`: key ranges and their hashes. `rows`: one table. `blobs`: one
store. `state`: where a move stands, and who may serve meanwhile. `move`: the whole.
"""

from posthouse.moving.move import Ends, Move, Moved, Timing, Watch
from posthouse.moving.state import mark_left, refuse_left, refuse_unfinished

__all__ = ["Ends", "Move", "Moved", "Timing", "Watch", "mark_left", "refuse_left", "refuse_unfinished"]

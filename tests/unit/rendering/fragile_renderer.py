"""A render process that one context kills, as a defect of a library in C would."""

from __future__ import annotations

import os
import signal

from posthouse.rendering import process
from posthouse.rendering.process import Renderer, Result, Task

KILLS = "kills the process"


class Fragile(Renderer):
    def _try(self, task: Task) -> Result:
        if task.context == KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._try(task)


def main(descriptor: int) -> None:
    process.Renderer = Fragile  # type: ignore[misc]
    process.main(descriptor)

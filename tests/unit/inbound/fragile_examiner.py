"""An examining process that some messages kill, as a defect of an extension in C would."""

from __future__ import annotations

import os
import signal

from posthouse.inbound import examiner
from posthouse.inbound.examine import Examined, Given, examine

KILLS = b"kills the process"


def main(descriptor: int) -> None:
    examiner.examine = _examine
    examiner.main(descriptor)


def _examine(given: Given) -> Examined:
    if KILLS in given.arrival.raw:
        os.kill(os.getpid(), signal.SIGKILL)
    return examine(given)

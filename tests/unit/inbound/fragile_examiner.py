"""An examining process that some messages kill, as a defect of an extension in C would."""

from __future__ import annotations

import os
import signal

from posthouse.inbound import examiner
from posthouse.inbound.examine import Examined, Given, examine

KILLS, HANGS = b"kills the process", b"stops the process"


def main(descriptor: int) -> None:
    examiner.examine = _examine
    examiner.main(descriptor)


def _examine(given: Given) -> Examined:
    if KILLS in given.arrival.raw:
        os.kill(os.getpid(), signal.SIGKILL)
    if HANGS in given.arrival.raw:
        os.kill(os.getpid(), signal.SIGSTOP)
    return examine(given)

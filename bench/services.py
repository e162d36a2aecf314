"""The peers that figures are compared with, started by the scripts in scripts/services."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench import material

_SCRIPTS = Path(__file__).resolve().parent.parent / "scripts" / "services"


@contextmanager
def service(name: str, **settings: str) -> Generator[str, None, None]:
    """The URL of an instance of its own, on the disk that is measured.

    :param settings: variables that the script names at its top.
    :raises RuntimeError: it cannot be installed or started.
    """
    folder = Path(tempfile.mkdtemp(prefix="posthouse-bench-", dir=material.DISK))
    folder.chmod(0o755)  # the users that servers run as have to get in
    environment = {**os.environ, "SERVICES_DIR": str(folder), **settings}
    command = ["bash", str(_SCRIPTS / f"{name}.sh")]
    try:
        done = subprocess.run([*command, "start"], env=environment, capture_output=True, timeout=500, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-500:])
        yield done.stdout.decode().strip()
    finally:
        subprocess.run([*command, "stop"], env=environment, capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)

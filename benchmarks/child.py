"""`run`: time and largest resident set of a process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run"]

#: Linux counts what the parent had in memory when it started a process as that process's own: this one has little.
_WATCH = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)  # the only way to the resources of one child
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(command: Sequence[str | Path]) -> tuple[float, int]:
    """Seconds, and largest resident set in bytes, of a process that runs ``command``.

    Raises
    ------
    SystemExit
        It failed; its last words are on stderr.
    """
    start = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", _WATCH, *command], stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return time.perf_counter() - start, int(ran.stdout)

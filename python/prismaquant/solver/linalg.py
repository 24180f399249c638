"""SciPy's BLAS and LAPACK for the compiled solvers, which call them by pointers: no second library is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

__all__ = ["scipy_linalg"]


class _OneThread:
    """Holds BLAS at one thread while anybody is inside, in whichever thread; the last to leave restores it.

    Solvers spread their own work over threads, and sums must not depend on how many BLAS would take.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._controller: Any = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._controller is None:
                from threadpoolctl import ThreadpoolController

                self._controller = ThreadpoolController()
            if self._inside == 0:
                self._free()
                self._limit = self._controller.limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._free()
                self._limit.restore_original_limits()
                self._free()

    def _free(self) -> None:
        """Let any thread set limits: from threadpoolctl 3.8 on, only the one that did last can."""
        for library in self._controller.lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


_one_thread = _OneThread()


@contextmanager
def scipy_linalg() -> Iterator[dict[str, Any]]:
    """The four functions that solvers need, by name, as SciPy's capsules; inside, they work on one thread."""
    from scipy.linalg import cython_blas, cython_lapack

    functions = {name: cython_blas.__pyx_capi__[name] for name in ("sgemm", "ssyrk")}
    functions |= {name: cython_lapack.__pyx_capi__[name] for name in ("spotrf", "strtri")}
    with _one_thread:
        yield functions

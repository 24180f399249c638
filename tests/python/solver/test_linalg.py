"""SciPy's BLAS: by pointers that are checked, on one thread while a solver runs, and only where one needs it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from scipy.linalg import cython_blas
from threadpoolctl import ThreadpoolController

from prismaquant import _core
from prismaquant.solver import solve
from prismaquant.solver.linalg import scipy_linalg
from support.problems import make_problem


@pytest.fixture
def blas_threads() -> Callable[[], set[int]]:
    controller = ThreadpoolController()
    with controller.limit(limits=2, user_api="blas"):
        yield lambda: {library["num_threads"] for library in controller.select(user_api="blas").info()}


def test_blas_works_on_one_thread_inside_and_as_before_outside(blas_threads: Callable[[], set[int]]) -> None:
    assert blas_threads() == {2}
    with scipy_linalg():
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    with pytest.raises(ZeroDivisionError), scipy_linalg():
        _ = 1 / 0
    assert blas_threads() == {2}


def test_the_last_of_several_threads_restores_it(blas_threads: Callable[[], set[int]]) -> None:
    """One that left earlier must not let the others sum in another order."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first() -> None:
        with scipy_linalg():
            first_is_in.set()
            second_is_in.wait()
        first_is_out.set()

    def second() -> None:
        first_is_in.wait()
        with scipy_linalg():
            second_is_in.set()
            first_is_out.wait()
            seen.append(blas_threads())

    workers = [threading.Thread(target=target) for target in (first, second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == [{1}]
    assert blas_threads() == {2}


def test_solves_in_several_threads_give_the_bytes_of_one_alone() -> None:
    problem = make_problem(rows=64, columns=256, tokens=500)
    alone = solve(problem.weight, "nvfp4", **problem.two_sided).quantized.codes.tobytes()
    found = []
    workers = [
        threading.Thread(
            target=lambda: found.append(solve(problem.weight, "nvfp4", **problem.two_sided).quantized.codes.tobytes())
        )
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [alone] * 4


def test_other_signatures_are_refused() -> None:
    problem = make_problem(rows=2, columns=32, tokens=64)
    with scipy_linalg() as functions:
        wrong = {**functions, "sgemm": cython_blas.__pyx_capi__["dgemm"]}
        missing = {name: function for name, function in functions.items() if name != "spotrf"}
    arguments = dict.fromkeys(("output_gram", "cross_gram", "pooled_gram", "importance", "damping", "output_damping"))
    counts = {"output_tokens": 0, "pooled_tokens": 0, "memory_limit": 0, "threads": 1, "global_scale": None}
    for linalg, words in ((wrong, "linalg: sgemm of this SciPy is 'void "), (missing, "linalg: spotrf is missing")):
        with pytest.raises(TypeError, match=words):
            _core.solve(
                problem.weight, "nvfp4", "best", gram=problem.gram, tokens=64, linalg=linalg, **arguments, **counts
            )


def test_data_free_solvers_load_no_scipy() -> None:
    program = """
import sys
import numpy as np
import prismaquant as pq
for preset in pq.list_presets():
    pq.solve(np.ones((2, 32), np.float32), "nvfp4", preset=preset)
pq.solve(np.ones((2, 32), np.float32), "nvfp4", importance=np.ones(32, np.float32))
print([name for name in ("scipy", "threadpoolctl") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"

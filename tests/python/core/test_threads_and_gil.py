"""Any number of threads gives the same bytes, and other Python threads run while the compiled module works."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from prismaquant._core import allocate
from prismaquant.codec import get_codec
from prismaquant.errors import ArgumentError
from prismaquant.solver import shared_global_scale, solve
from prismaquant.types import Array
from support.formats import formats_for

FORMATS = formats_for(160)
THREADS = (1, 2, 7, None)


@pytest.fixture(scope="module")
def weight() -> Array:
    """More rows than threads, a number of rows that none of them divides, three rows of blocks of 128."""
    return np.random.default_rng(23).standard_normal((263, 160)).astype(np.float32)


def assert_all_equal(arrays: list[Array]) -> None:
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rule", ["amax", "sweep"])
@pytest.mark.parametrize("rows", [263, 3, 1])
def test_results_do_not_depend_on_threads(weight: Array, format: str, rule: str, rows: int) -> None:
    codec, weight = get_codec(format), weight[:rows]
    encoded = [codec.encode(weight, scale_rule=rule, threads=n) for n in THREADS]
    assert_all_equal([q.codes for q in encoded])
    if encoded[0].scales is not None:
        assert_all_equal([q.scales for q in encoded if q.scales is not None])
    assert_all_equal([codec.decode(encoded[0], threads=n) for n in THREADS])
    assert len({codec.squared_error(weight, encoded[0], threads=n) for n in THREADS}) == 1  # equal to the last bit


@pytest.mark.parametrize("format", FORMATS)
def test_solutions_do_not_depend_on_threads(weight: Array, format: str) -> None:
    solved = [solve(weight, format, threads=n) for n in THREADS]
    assert_all_equal([s.quantized.codes for s in solved])
    assert len({s.report.squared_error for s in solved}) == 1


def test_calls_from_several_threads_do_not_disturb_each_other(weight: Array) -> None:
    expected = {format: solve(weight, format).quantized.codes.tobytes() for format in FORMATS}
    found: list[tuple[str, bytes]] = []

    def work() -> None:
        for format in FORMATS:
            found.append((format, solve(weight, format, threads=2).quantized.codes.tobytes()))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 * len(FORMATS)
    assert all(codes == expected[format] for format, codes in found)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_number_of_threads_that_is_not_positive_is_refused(weight: Array, threads: int) -> None:
    message = f"^threads: {threads}, expected at least 1, or None for all cores$"
    codec = get_codec("bf16")
    quantized = codec.encode(weight)
    calls: list[Callable[[], object]] = [
        lambda: codec.encode(weight, threads=threads),
        lambda: codec.decode(quantized, threads=threads),
        lambda: codec.squared_error(weight, quantized, threads=threads),
        lambda: solve(weight, "bf16", threads=threads),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match=message):
            call()


def long_calls() -> dict[str, Callable[[], object]]:
    """Name -> a call that takes 20 ms or more in one thread."""
    codec = get_codec("nvfp4")
    rng = np.random.default_rng(1)
    large = rng.standard_normal((512, 2048)).astype(np.float32)
    quantized = codec.encode(large)
    out = np.empty_like(large)
    endless = np.broadcast_to(large[0], (20_000, 2048))  # a long read of little memory
    sizes = [sorted(item) for item in rng.integers(1, 1 << 20, (4000, 6)).tolist()]
    losses = [sorted(item, reverse=True) for item in rng.random((4000, 6)).tolist()]
    budget = sum(item[2] for item in sizes)
    return {
        "encode": lambda: codec.encode(large, scale_rule="sweep", global_scale=448.0, threads=1),
        "decode": lambda: codec.decode(quantized, out=out, threads=1),
        "squared_error": lambda: codec.squared_error(large, quantized, threads=1),
        "solve": lambda: solve(large, "nvfp4", threads=1),
        "shared_global_scale": lambda: shared_global_scale([endless], "nvfp4"),
        "allocate": lambda: allocate(sizes, losses, budget),
    }


@pytest.fixture
def other_thread() -> Iterator[list[int]]:
    """A thread that counts; it lets go of the GIL at each step, and nobody else is ever forced to."""
    count, stop = [0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    thread.start()
    while count[0] == 0:
        time.sleep(0.001)
    sys.setswitchinterval(1000.0)
    yield count
    sys.setswitchinterval(interval)
    stop.set()
    thread.join()


@pytest.mark.parametrize("name", long_calls())
def test_another_thread_makes_progress_during_a_long_call(name: str, other_thread: list[int]) -> None:
    call = long_calls()[name]
    end = time.monotonic() + 20  # on a busy machine the other thread may have to wait for a core
    while time.monotonic() < end:
        before = other_thread[0]
        call()
        if other_thread[0] > before:
            return
    pytest.fail(f"{name} kept the GIL")


def test_the_counter_stands_still_while_the_gil_is_held(other_thread: list[int]) -> None:
    """Without this, the test above could not fail."""
    before = other_thread[0]
    sum(range(2_000_000))
    assert other_thread[0] == before

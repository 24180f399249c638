"""What to run on an installed wheel, on any machine: is it all there, and does the compiled module compute?

Needs numpy and pytest only; no torch, no files of the repository.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prismaquant as pq

WEIGHT = np.linspace(-2, 2, 4 * 128, dtype=np.float32).reshape(4, 128)


def test_version_and_environment() -> None:
    environment = pq.doctor()
    assert environment.version == pq.__version__
    assert environment.active_isa in environment.available_isas


@pytest.mark.parametrize("name", pq.list_formats())
@pytest.mark.parametrize("preset", pq.list_presets())
def test_every_format_and_preset(name: str, preset: str) -> None:
    solution = pq.solve(WEIGHT, name, preset=preset)
    codec = pq.get_codec(name)
    decoded = codec.decode(solution.quantized)
    error = float(np.square(decoded - WEIGHT, dtype=np.float64).sum())
    assert solution.report.squared_error == pytest.approx(error, rel=1e-6)
    assert error < 0.02 * float(np.square(WEIGHT).sum())
    assert codec.bits_per_weight(WEIGHT.shape) == 8 * solution.quantized.nbytes / WEIGHT.size


def test_known_bytes() -> None:
    row = np.array([[6, -6, 0.5, -0.5, 1, 1.5, 2, 3, 4, -4, 5, 2.5, 0.25, 0.75, 0, -0.0]], np.float32)
    quantized = pq.get_codec("nvfp4").encode(row, scale_rule="amax")
    assert quantized.codes.tobytes().hex() == "f7913254e6462080"
    assert quantized.scales is not None
    assert quantized.scales.tolist() == [[0x7E]]
    assert quantized.global_scale == 448.0


def test_errors_arrive_as_those_of_the_package() -> None:
    with pytest.raises(pq.Error, match=r"columns \(axis 1\) = 40"):
        pq.get_codec("nvfp4").encode(WEIGHT[:, :40])


def test_the_command_runs() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "prismaquant", "doctor", "--json"], capture_output=True, text=True, check=True
    )
    assert pq.__version__ in json.dumps(json.loads(result.stdout))


def test_the_headers_are_there() -> None:
    assert (Path(pq.get_include()) / "prismaquant" / "prismaquant.hpp").is_file()


def test_architectures_and_schemas_are_there() -> None:
    """Data files of the package."""
    package = Path(pq.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()
    assert list((package / "model" / "architectures").glob("*.toml"))

"""Fixtures and settings of all Python tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never reach for the network

# A shell that starts the tests in the background has them and their children ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_llama() -> Path:
    """The bundled model."""
    return ROOT / "examples" / "models" / "tiny-llama"


def pytest_report_header() -> str:
    import prismaquant

    return repr(prismaquant.doctor())

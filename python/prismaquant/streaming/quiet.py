"""`quiet`: transformers at work without a word."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

from transformers.utils import logging as messages

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from the libraries: every remark that matters here becomes an exception."""
    before = messages.get_verbosity()
    messages.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        messages.set_verbosity(before)

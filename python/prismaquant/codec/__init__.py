"""Codecs: encode matrices in a number format, decode them, measure the error. The face of the C++ room ``codec/``."""

from __future__ import annotations

from prismaquant.codec.codec import Codec, get_codec
from prismaquant.codec.error import ErrorHistogram, ErrorSummary
from prismaquant.codec.quantized import Quantized

__all__ = ["Codec", "ErrorHistogram", "ErrorSummary", "Quantized", "get_codec"]

"""The values of the Linears of a folder: read, checked, decoded, compared to the source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from prismaquant.codec import get_codec
from prismaquant.exporting.checks import rules
from prismaquant.exporting.report import Check, LinearCheck
from prismaquant.exporting.schemes import as_array, suffixes, unpack
from prismaquant.formats import BF16, get_scheme
from prismaquant.model.units import WEIGHT_DTYPES

if TYPE_CHECKING:
    from prismaquant.exporting.checks.folder import Folder
    from prismaquant.exporting.checks.rules import Parts
    from prismaquant.exporting.checks.structure import UnitNames
    from prismaquant.files.manifest import Manifest
    from prismaquant.model import Linear, Model, TensorInfo

__all__ = ["LinearVerifier"]


class LinearVerifier:
    """Holds the Linears of ``folder`` to the rules, and to ``source`` and the manifest ``written`` if there are any."""

    def __init__(
        self,
        folder: Folder,
        source: Model | None,
        written: Manifest | None,
        *,
        tensor_parallel: int = 1,
        kv_heads: int = 0,
        threads: int | None = None,
    ) -> None:
        self._folder = folder
        self._source = source
        self._originals = {} if source is None else {linear.name: linear for linear in source.linears()}
        self._records = {} if written is None else {record.name: record for record in written.linears}
        self._tensor_parallel = tensor_parallel
        self._kv_heads = kv_heads
        self._threads = threads

    def unit(self, unit: UnitNames, schemes: Mapping[str, str | None]) -> tuple[list[LinearCheck], list[Check]]:
        """Every Linear of ``unit`` that has a scheme, and what the siblings have to share."""
        checked: list[LinearCheck] = []
        failures: list[Check] = []
        siblings: dict[str, Parts] = {}
        for name in unit.linears:
            scheme = schemes[name]
            if scheme is None:
                continue
            parts, broken = self._read(name, scheme)
            if parts:
                siblings[name] = parts
            if parts and not broken:
                linear, broken = self._compare(name, scheme, parts)
                checked.append(linear)
            failures += broken
        failures += [*rules.check_shared(unit, siblings), *rules.check_fused_scales(unit, siblings)]
        return checked, failures

    def _read(self, name: str, scheme: str) -> tuple[Parts, list[Check]]:
        """Tensors and bytes of the Linear, if all have the right dtype and shape; and what is wrong with them."""
        tensors = self._folder.parts.get(name, {})
        failures = list(rules.check_tensor_set(name, scheme, tensors))
        if not failures and not self._is_unconverted(name, scheme, tensors):
            original = self._originals.get(name)
            shape = (original.rows, original.columns) if original else rules.stored_shape(scheme, tensors)
            failures = list(rules.check_shapes(name, scheme, shape, tensors))
            failures += rules.check_parallel(name, scheme, shape, self._tensor_parallel, self._kv_heads)
        if failures:
            return {}, failures
        parts = {suffix: (tensors[suffix], self._folder.read(tensors[suffix])) for suffix in suffixes(scheme)}
        return parts, list(rules.check_bits(parts))

    def _is_unconverted(self, name: str, scheme: str, tensors: Mapping[str, TensorInfo]) -> bool:
        """Whether it is a weight of a plain model that nobody exported: it has the dtype that its model has."""
        if scheme != BF16 or self._records:
            return False
        weight, original = tensors["weight"], self._originals.get(name)
        if original is None:
            return weight.dtype in WEIGHT_DTYPES and len(weight.shape) == 2
        return (weight.dtype, weight.shape) == (original.weight.dtype, original.weight.shape)

    def _compare(self, name: str, scheme: str, parts: Parts) -> tuple[LinearCheck, list[Check]]:
        """The decoded weight beside the source's."""
        original, record = self._originals.get(name), self._records.get(name)
        if self._source is None or original is None:
            return LinearCheck(name, scheme), []
        failures: list[Check] = []
        if scheme == BF16 and original.weight.dtype == parts["weight"][0].dtype:
            failures += rules.check_same_weight(*parts["weight"], self._source, original)
            snr, error = math.inf, 0.0
        else:
            snr, error = self._measure(self._source, original, scheme, parts)
            failures += rules.check_signal(name, snr)
        if failures:
            return LinearCheck(name, scheme), failures
        failures += rules.check_squared_error(name, error, record)
        return LinearCheck(name, scheme, snr, error, None if record is None else not failures), failures

    def _measure(self, source: Model, original: Linear, scheme: str, parts: Parts) -> tuple[float, float]:
        """Signal to noise in dB, and the sum of squared errors, by the codec that wrote the bytes."""
        arrays = {suffix: as_array(data, tensor.dtype, tensor.shape) for suffix, (tensor, data) in parts.items()}
        quantized = unpack(scheme, arrays, (original.rows, original.columns))
        weight = source.read_weight(original)
        error = get_codec(get_scheme(scheme).weight_format).squared_error(weight, quantized, threads=self._threads)
        signal = float(np.square(weight, dtype=np.float64).sum())
        return rules.snr_db(signal, error), error

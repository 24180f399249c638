"""`read_samples`: inputs of a model that also sees or hears, as its processor makes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from prismaquant.errors import DataError
from prismaquant.files.fingerprint import fingerprint
from prismaquant.streaming.forward import Batch
from prismaquant.streaming.model_class import read_config
from prismaquant.streaming.packing import check_ids
from prismaquant.streaming.processing import process
from prismaquant.streaming.sources import list_files

if TYPE_CHECKING:
    import numpy.typing as npt

    from prismaquant.model import Model
    from prismaquant.types import TowerData

__all__ = ["Sample", "Samples", "read_samples"]

_SUFFIXES = (".jsonl", ".safetensors")

#: What configurations call the tokens that images, videos and audio take the places of.
_PLACEHOLDERS = ("image_token_id", "video_token_id", "audio_token_id")

_KINDS = "give .safetensors files (what the model's processor returns), or .jsonl files (messages that name images)"


@dataclass(frozen=True)
class Sample:
    """One input of the model.

    Attributes
    ----------
    where
        File, file and line, or place in the list that it was given in.
    ids
        int64 ``[1, seq_len]``.
    inputs
        What else the model takes, by the name of its argument: float32 or integers.
    counted
        Bool ``[1, seq_len]``: the tokens behind which no image, video or audio comes. Only what is predicted there is
        ever asked of the model.
    """

    where: str
    ids: npt.NDArray[np.int64]
    inputs: Mapping[str, torch.Tensor]
    counted: torch.Tensor

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in self.inputs.items())
        return f"Sample({self.where}, {self.ids.size} tokens, {shapes})"

    @cached_property
    def fingerprint(self) -> str:
        """``"sha256:..."`` of all arrays, and their names and shapes."""
        arrays = {"input_ids": self.ids, **{name: tensor.numpy() for name, tensor in self.inputs.items()}}
        parts = ([f"{name} {x.dtype} {x.shape}".encode(), x.tobytes()] for name, x in sorted(arrays.items()))
        return fingerprint(each for part in parts for each in part)


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples that are walked for one purpose, each by itself.

    Attributes
    ----------
    samples
        At least one.
    probes
        Sampled residuals per sample.
    """

    samples: Sequence[Sample] = field(repr=False)
    probes: int = 1

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def arrays(self) -> list[npt.NDArray[np.int64]]:
        """The token ids, ``[1, seq_len]`` of each sample."""
        return [sample.ids for sample in self.samples]

    def batches(self, part: int, first: int, batch_windows: int) -> list[Batch]:
        """A batch for each sample: they differ in shape. ``first`` windows come before them in other parts."""
        return [
            Batch(
                part,
                number,
                first + number,
                self.probes,
                torch.from_numpy(each.ids),
                each.inputs,
                each.counted,
                each.where,
            )
            for number, each in enumerate(self.samples)
        ]


def read_samples(data: TowerData, model: Model) -> list[Sample]:
    """The samples in ``data``.

    Parameters
    ----------
    data
        A file or a folder, or several: ``.safetensors`` (a sample: what the model's processor returns for one prompt,
        ``input_ids [1, seq_len]`` with its images or audio), ``.jsonl`` (``{"messages": [...]}`` in each line, as chat
        templates take them, with images and audio as ``"path"``, relative to the file; the processor in the model's
        folder makes samples of them). In Python also what a processor returned itself, a mapping to tensors.

    Raises
    ------
    DataError
        A file is missing, broken or of another kind; a sample has no ``input_ids``, more than one prompt, padding, ids
        that the model does not have, or nothing to see or hear.
    ModelError
        Messages were given and the model's folder has no processor that can be loaded.
    MissingExtraError
        The processor needs a package that is not installed.
    """
    config = read_config(model.path)
    placeholders = [token for name in _PLACEHOLDERS if (token := getattr(config, name, None)) is not None]
    listed = [data] if isinstance(data, (str, os.PathLike, Mapping)) else data
    samples = []
    for number, entry in enumerate(listed):
        found = {f"sample {number}": entry} if isinstance(entry, Mapping) else _in_files(Path(entry), model)
        samples += [_sample(inputs, placeholders, model, where) for where, inputs in found.items()]
    if not samples:
        raise DataError("has no samples", where="tower_data", hint=_KINDS)
    return samples


def _in_files(path: Path, model: Model) -> dict[str, Mapping[str, Any]]:
    """Where it is from -> each sample in a file or a folder."""
    found: dict[str, Mapping[str, Any]] = {}
    for file in list_files(path, _SUFFIXES, _KINDS):
        if file.suffix == ".jsonl":
            found |= process(file, model.path)
            continue
        try:
            found[str(file)] = load_file(file)
        except (OSError, SafetensorError) as cause:
            raise DataError(f"is not a safetensors file ({cause})", where=str(file)) from cause
    return found


def _sample(inputs: Mapping[str, Any], placeholders: Sequence[int], model: Model, where: str) -> Sample:
    tensors = {}
    for name, value in inputs.items():
        tensor = torch.as_tensor(value).detach().cpu()
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    ids, mask = tensors.pop("input_ids", None), tensors.pop("attention_mask", None)
    if ids is None or ids.is_floating_point() or ids.ndim != 2 or len(ids) != 1 or ids.shape[1] < 2:
        got = "no input_ids" if ids is None else f"input_ids {list(ids.shape)} of {ids.dtype}"
        raise DataError(f"has {got}, expected integers [1, seq_len]", where=where, hint="a sample is one prompt")
    if mask is not None and not mask.all():
        raise DataError("its attention_mask has zeros", where=where, hint="give samples without padding")
    floats = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    if not floats:
        hint = "a sample has pixel_values, input_features or the like"
        raise DataError("has nothing but text", where=where, hint=hint)
    if not all(tensor.isfinite().all() for tensor in floats):
        raise DataError("has NaN or infinity", where=where)
    ids = ids.long()
    check_ids(ids.numpy(), model, where)
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[:, :-1] = torch.isin(ids[:, 1:], torch.tensor(placeholders, dtype=torch.long)).logical_not()
    return Sample(where, ids.numpy(), tensors, counted)

"""The model folder around its weights: `read_config`, and which `other_files` travel with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prismaquant.errors import ModelError
from prismaquant.files.manifest import FILE as MANIFEST
from prismaquant.model.document import read_object
from prismaquant.model.shards import PICKLES

__all__ = ["CONFIG", "find_folder", "other_files", "read_config"]

CONFIG = "config.json"

#: Weights in other containers; the formats that hold pickles are `PICKLES`.
_WEIGHTS = (".safetensors", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".ot", ".npz")
#: Written anew or out of date beside quantized weights: vLLM would read the second as a quantization of its own.
_REPLACED = {CONFIG, "hf_quant_config.json", MANIFEST, "SHA256SUMS"}
#: The one subfolder that transformers reads from.
_SUBFOLDER = "additional_chat_templates"


def find_folder(path: Path) -> Path:
    """``path`` as an absolute path of a folder.

    Raises
    ------
    ModelError
        If it is none; a name that looks like one on the Hugging Face Hub is told how to download.
    """
    folder = (path.expanduser() if path.parts[:1] == ("~",) else path).absolute()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError("is a file", where=str(path), hint="give the folder that holds config.json and the weights")
    hint = "give a folder that holds config.json and the weights"
    if not path.is_absolute() and len(path.parts) == 2 and ".." not in path.parts:
        hint += f"; for a model of the Hugging Face Hub, download it first: hf download {path} --local-dir {path.name}"
    raise ModelError("does not exist", where=str(path), hint=hint)


def read_config(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Bytes and content of ``config.json``.

    Raises
    ------
    ModelError
        Missing, no JSON object, or of a model that is quantized already.
    """
    path = folder / CONFIG
    data, config = read_object(path)
    text = config.get("text_config")
    for holder in (config, text if isinstance(text, dict) else {}):
        for key in ("quantization_config", "compression_config"):
            found = holder.get(key)
            if found is not None:
                method = found.get("quant_method") if isinstance(found, dict) else found
                raise ModelError(
                    f"the model is quantized already ({key} with quant_method {method!r})",
                    where=str(path),
                    hint="start from the BF16, F16 or F32 model that it was made from",
                )
    return data, config


def other_files(folder: Path) -> tuple[Path, ...]:
    """The files that a quantized copy takes over byte for byte: tokenizer, chat templates, code, license, ...

    Everything at the top of the folder but weights of any kind, indexes, hidden files, ``config.json`` and files that
    describe a quantization; of subfolders only ``additional_chat_templates``. Sorted, absolute; a copy has to keep the
    place relative to ``folder``.

    Raises
    ------
    ModelError
        If one is a link to a file that is not there.
    """
    files = []
    templates = folder / _SUBFOLDER
    for path in sorted([*folder.iterdir(), *(templates.iterdir() if templates.is_dir() else ())]):
        name = path.name
        if name.startswith(".") or name in _REPLACED or name.endswith((".index.json", *_WEIGHTS, *PICKLES)):
            continue
        if path.is_symlink() and not path.exists():
            raise ModelError("is a link to a file that is not there", where=str(path), hint="download the model again")
        if path.is_file():
            files.append(path)
    return tuple(files)

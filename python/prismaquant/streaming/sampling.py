"""`sample`: text that the model itself writes, as calibration data (``--data self``).

Needs nothing but the model, and shows it what it says: its own language, domain and templates, as far as it remembers
them. Every window is one text that starts with BOS (with a random token if the model has none), sampled at temperature
1 from the unaltered distribution. An end of text does not end it; what the model writes after one follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig

from prismaquant.environment import machine_memory
from prismaquant.errors import ModelError, RefusedError
from prismaquant.quantity import format_bytes
from prismaquant.streaming.model_class import model_class, read_config
from prismaquant.streaming.packing import Packed, check_ids
from prismaquant.streaming.quiet import quiet

if TYPE_CHECKING:
    from prismaquant.model import Model
    from prismaquant.streaming.tokenization import Tokenizer

__all__ = ["sample"]

#: Windows that are written side by side.
_BATCH = 16


def sample(model: Model, tokenizer: Tokenizer, windows: int, seq_len: int, seed: int) -> Packed:
    """``windows`` texts of ``seq_len`` tokens, on this machine always the same for the same ``seed``.

    The whole model is in memory meanwhile, in the dtype of the folder. Code inside the folder is never run, nothing is
    downloaded, and the caller's random state stays.

    Raises
    ------
    RefusedError
        The model, with room to work, takes more than half of the machine's memory.
    ModelError
        transformers cannot load or run it.
    """
    needed, allowed = 2 * model.nbytes, machine_memory() // 2
    if needed > allowed:
        raise RefusedError(
            f"sampling from it takes about {format_bytes(needed)} of memory, {format_bytes(allowed)} may be used",
            where=str(model.path),
            hint="give text of your own, or use the built-in one (--data default)",
        )
    bos = tokenizer.bos if tokenizer.exists else model.text_config.get("bos_token_id")
    bos = bos if isinstance(bos, int) else None
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            ids = _generate(_load(model), windows, seq_len, bos)
        except Exception as cause:  # every error there is, depending on what is wrong with the folder
            message = f"transformers cannot sample from it ({type(cause).__name__}: {cause})"
            raise ModelError(message, where=str(model.path), hint="give text of your own (--data FILE)") from cause
    check_ids(ids, model, "self")
    with_bos = 0 if bos is None else windows
    return Packed(ids, with_bos, bos is not None, ids.size - with_bos, windows)


def _load(model: Model) -> Any:
    loaded: Any = model_class(read_config(model.path)).from_pretrained(
        model.path, dtype="auto", local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return loaded.eval()


@torch.no_grad()
def _generate(loaded: Any, windows: int, seq_len: int, bos: int | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    # In place of the folder's own, whose penalties, cuts and ends would apply where nothing else is said.
    config: Any = GenerationConfig
    loaded.generation_config = config(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=seq_len - 1, pad_token_id=bos or 0
    )
    vocabulary = loaded.config.get_text_config().vocab_size
    starts: Any = torch.randint(vocabulary, (windows, 1)) if bos is None else torch.full((windows, 1), bos)
    parts = [loaded.generate(start, attention_mask=torch.ones_like(start)) for start in starts.split(_BATCH)]
    return np.ascontiguousarray(torch.cat(parts).numpy(), dtype=np.int64)

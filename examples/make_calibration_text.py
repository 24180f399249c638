"""Makes ``data/calibration.txt`` and ``data/evaluation.txt``: text sampled from the bundled model itself.

    python examples/make_calibration_text.py

Each document is a BOS token and 255 tokens drawn one after the other from the model's full next-token distribution
(temperature 1, nothing cut off). The draws of document ``i`` depend on ``(SEED, i)`` only, and the arithmetic is
float64, so that neither the batch nor the machine decides a draw: any document can be made again alone. (In float32
one document in 200 came out differently in another batch.)

Eight documents are left out by number: two with broken characters and six with words that have no place in an example.
Of the rest, the first 128 are for calibration and the next 64 for evaluation. They are decoded to text and joined by
blank lines; blank lines inside a document are the model's own.

Text of the model's own distribution is what its quantization is meant to keep, needs no licence of anybody else, and is
the same for everyone. For a model of your own, use text of the kind that it will serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

HERE = Path(__file__).parent
MODEL = HERE / "models" / "tiny-llama"
SEED = 20260
LEFT_OUT = {46, 87, 132, 158, 163, 193, 196, 198}
DOCUMENTS = [number for number in range(200) if number not in LEFT_OUT]
FILES = {"calibration.txt": DOCUMENTS[:128], "evaluation.txt": DOCUMENTS[128:]}
TOKENS = 256  # per document, BOS included


@torch.inference_mode()
def sample(model: PreTrainedModel, documents: Sequence[int]) -> torch.Tensor:
    """Token ids of the documents with these numbers, int64 ``[documents, TOKENS]``."""
    draws = np.stack([np.random.default_rng([SEED, document]).random(TOKENS) for document in documents])
    ids = torch.full((len(documents), 1), model.config.bos_token_id)
    cache = None
    for draw in torch.from_numpy(draws).T[1:, :, None]:
        output = model(ids[:, -1:], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        cumulative = output.logits[:, -1].softmax(-1).cumsum(-1)
        token = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)
        ids = torch.cat([ids, token], dim=1)
    return ids


def texts(documents: Sequence[int]) -> list[str]:
    """The documents with these numbers, decoded."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return list(tokenizer.batch_decode(sample(model, documents)[:, 1:], skip_special_tokens=True))


def main() -> None:
    (HERE / "data").mkdir(exist_ok=True)
    for name, documents in FILES.items():
        (HERE / "data" / name).write_text("\n\n".join(texts(documents)) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

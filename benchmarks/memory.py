"""Peak memory of `probe`: of random Llamas of growing depth, and of one checkpoint of 2 GB.

    python benchmarks/memory.py [--depths 4,8,16,32] [--gigabytes 2] [--preset fast] [--json FILE]

Every model is probed by a process of its own, whose largest resident set (mapped files included) the kernel reports.
Hidden states wait on disk, as they do when memory is short.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from child import run
from report import Line, print_table, verdict
from safetensors.torch import save_file

VOCABULARY = 4096
#: Of the deepest model over the shallowest.
FLAT = 1.05
#: Bytes of the resident set for the large checkpoint.
MOST = 1.2e9


@dataclass(frozen=True)
class Shape:
    """Sizes of a random Llama."""

    layers: int
    hidden: int
    intermediate: int

    @property
    def parameters(self) -> int:
        """Of one layer."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden

    def write(self, folder: Path) -> int:
        """Make the folder of a model in BF16, one file per layer; returns its bytes."""
        folder.mkdir()
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.hidden // 64,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }
        (folder / "config.json").write_text(json.dumps(config))
        generator = torch.Generator().manual_seed(0)
        files = {"ends.safetensors": self._ends()}
        files |= {f"layer-{layer}.safetensors": self._of_layer(layer) for layer in range(self.layers)}
        places, total = {}, 0
        for file, shapes in files.items():
            tensors = {
                name: torch.ones(shape, dtype=torch.bfloat16)
                if len(shape) == 1
                else (torch.randn(shape, generator=generator) / shape[1] ** 0.5).bfloat16()
                for name, shape in shapes.items()
            }
            save_file(tensors, folder / file)
            places.update(dict.fromkeys(tensors, file))
            total += sum(2 * tensor.numel() for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return total

    def _ends(self) -> dict[str, tuple[int, ...]]:
        table = (VOCABULARY, self.hidden)
        return {"model.embed_tokens.weight": table, "model.norm.weight": (self.hidden,), "lm_head.weight": table}

    def _of_layer(self, layer: int) -> dict[str, tuple[int, ...]]:
        hidden, inner = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {f"self_attn.{x}_proj": (hidden, hidden) for x in "qkvo"}
        shapes |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
        shapes |= {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
        return {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}


@dataclass(frozen=True)
class Probed:
    """One model: bytes of its weights, largest resident set of the probe in bytes, seconds it took."""

    layers: int
    checkpoint: int
    peak: int
    seconds: float


def probe(shape: Shape, folder: Path, options: argparse.Namespace) -> Probed:
    """Write a model, probe it, and delete it."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        size = shape.write(work / "model")
        windows = np.random.default_rng(0).integers(0, VOCABULARY, (options.windows * 2, options.seq_len))
        np.save(work / "ids.npy", windows.reshape(-1))
        few = [
            f"--samples={options.windows}",
            f"--price-samples={options.windows // 2}",
            f"--seq-len={options.seq_len}",
        ]
        settings = [*few, f"--preset={options.preset}", f"--max-memory={options.max_memory}"]
        files = ["--data", work / "ids.npy", "--work-dir", work / "work", "-o", work / "sensitivity.safetensors"]
        command = [sys.executable, "-m", "prismaquant", "probe", work / "model", *files, *settings]
        seconds, peak = run(command)
        return Probed(shape.layers, size, peak, seconds)


def lines(deeper: list[Probed], large: Probed | None) -> list[Line]:
    """Rows for `print_table`."""
    found = []
    for row in deeper:
        ratio = row.peak / deeper[0].peak
        goal = verdict(f"<= {FLAT}", ratio <= FLAT) if row is deeper[-1] and len(deeper) > 1 else ""
        found.append(Line("growing depth", *_cells(row), f"{ratio:.3f} of the first", goal))
    if large is not None:
        goal = verdict(f"< {MOST / 1e9} GB", large.peak < MOST)
        found.append(Line("large checkpoint", *_cells(large), f"{large.peak / large.checkpoint:.2f} of it", goal))
    return found


def _cells(row: Probed) -> tuple[str, str]:
    made = f"{row.layers} layers, {row.checkpoint / 1e9:.2f} GB, {row.seconds:.0f} s"
    return made, f"{row.peak / 1e9:.3f} GB"


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", default="4,8,16,32", metavar="A,B", help="layers of the models that get deeper")
    parser.add_argument("--hidden", type=int, default=512, metavar="N", help="their width")
    parser.add_argument("--gigabytes", type=float, default=2.0, metavar="N", help="the large checkpoint; 0: none")
    parser.add_argument("--preset", default="fast", help="solver preset")
    parser.add_argument("--windows", type=int, default=16, metavar="N", help="windows to solve for; half for prices")
    parser.add_argument("--seq-len", type=int, default=256, metavar="N")
    parser.add_argument("--max-memory", default="1.4GB", metavar="SIZE", help="given to the probe")
    parser.add_argument("--work", type=Path, default=None, metavar="FOLDER", help="where the models are written")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    shapes = [Shape(int(depth), options.hidden, 11 * options.hidden // 4) for depth in options.depths.split(",")]
    deeper = [probe(shape, options.work, options) for shape in shapes]
    large = None
    if options.gigabytes:
        layer = Shape(1, 1024, 2816)
        depth = round(options.gigabytes * 1e9 / (2 * layer.parameters))
        large = probe(Shape(depth, 1024, 2816), options.work, options)
    print_table(lines(deeper, large))
    if options.json:
        rows = {"growing depth": [asdict(row) for row in deeper], "large": asdict(large) if large else None}
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

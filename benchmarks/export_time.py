"""Memory of `export` on a sparse checkpoint that is larger than the machine's memory, and its speed beside `cp`.

    python benchmarks/export_time.py [--gigabytes 40] [--copied 7.5] [--rounds 5] [--work FOLDER] [--json FILE]

The large checkpoint is a Llama of many layers whose weights are holes in the files: it takes no room, its export to
NVFP4A16 a third of its size. The copied one is random and stays in BF16, so that every byte is passed through; `cp` is
followed by a `sync` of what it wrote, as `export` syncs before it renames, and by `sha256sum`, because `export` writes
SHA256SUMS.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from child import run
from report import Line, print_table, verdict

from prismaquant.exporting.shards import Entry, header, index, lay_out

HIDDEN, INNER = 4096, 14336
#: Bytes of the resident set for any checkpoint of these layers.
MOST = 1e9
#: Of the bytes per second of `cp`.
SHARE = 0.7

#: Writes the file of a shard: its header, and so many bytes of data.
Fill = Callable[[Path, bytes, int], None]


def tensors(layers: int, vocabulary: int) -> Iterator[Entry]:
    """Of a Llama in BF16."""
    shapes = {"model.embed_tokens": (vocabulary, HIDDEN), "lm_head": (vocabulary, HIDDEN), "model.norm": (HIDDEN,)}
    for layer in range(layers):
        names = {f"self_attn.{x}_proj": (HIDDEN, HIDDEN) for x in "qkvo"}
        names |= {f"mlp.{x}_proj": (INNER, HIDDEN) for x in ("gate", "up")} | {"mlp.down_proj": (HIDDEN, INNER)}
        names |= dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (HIDDEN,))
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in names.items()}
    for name, shape in shapes.items():
        yield Entry(f"{name}.weight", "BF16", shape, 2 * math.prod(shape))


def write_model(folder: Path, gigabytes: float, vocabulary: int, fill: Fill) -> int:
    """Make the folder of a model of about ``gigabytes``; returns the bytes of its tensors."""
    of_ends, of_layer = (sum(entry.nbytes for entry in tensors(layers, vocabulary)) for layers in (0, 1))
    layers = max(1, round((gigabytes * 1e9 - of_ends) / (of_layer - of_ends)))
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HIDDEN // 128,
        "num_key_value_heads": HIDDEN // 128,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    layout = lay_out(tensors(layers, vocabulary), 5 * 10**9)
    (folder / "model.safetensors.index.json").write_bytes(index(layout))
    for shard in layout:
        fill(folder / shard.file, header(shard.entries), sum(entry.nbytes for entry in shard.entries))
    return sum(shard.nbytes for shard in layout)


def holes(path: Path, start: bytes, nbytes: int) -> None:
    """A `Fill`."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + nbytes)


def noise(path: Path, start: bytes, nbytes: int) -> None:
    """A `Fill`: finite numbers in BF16."""
    chunk = (np.random.default_rng(0).standard_normal(2**22, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    with path.open("wb") as file:
        file.write(start)
        for begin in range(0, nbytes, len(chunk)):
            file.write(chunk[: nbytes - begin])


def export(model: Path, scheme: str, out: Path) -> tuple[float, int]:
    """Seconds, and largest resident set in bytes, of a process that exports ``model`` in one scheme."""
    recipe = out.with_suffix(".json")
    recipe.unlink(missing_ok=True)
    program = [sys.executable, "-m", "prismaquant"]
    planned = [*program, "plan", model, "--schemes", scheme, "--preset", "rtn", "-o", recipe]
    subprocess.run(planned, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run([*program, "export", model, "--plan", recipe, "-o", out])


def copy(model: Path, out: Path) -> tuple[float, float]:
    """Seconds of `cp`, until the disk has everything, and of `sha256sum`."""
    start = time.perf_counter()
    subprocess.run(["cp", "--recursive", "--sparse=never", "--reflink=never", model, out], check=True)
    subprocess.run(["sync", *out.iterdir()], check=True)
    copied = time.perf_counter()
    subprocess.run(["sha256sum", *out.iterdir()], check=True, stdout=subprocess.DEVNULL)
    return copied - start, time.perf_counter() - copied


def remove(folder: Path) -> None:
    """And have the disk come to rest, or the next run pays for it."""
    subprocess.run(["rm", "-r", folder], check=True)
    subprocess.run(["sync"], check=True)


def main() -> None:
    """Measures, prints and writes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=40, metavar="N", help="the sparse checkpoint; 0: none")
    parser.add_argument("--copied", type=float, default=7.5, metavar="N", help="the random one, in GB; 0: none")
    parser.add_argument("--vocabulary", type=int, default=128256, metavar="N", help="rows of embedding and head")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of export and cp, in turns")
    parser.add_argument("--work", type=Path, default=None, metavar="FOLDER", help="on the disk that is measured")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    found: dict[str, float] = {}
    lines = []
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        if options.gigabytes:
            size = write_model(work / "sparse", options.gigabytes, options.vocabulary, holes)
            seconds, peak = export(work / "sparse", "NVFP4A16", work / "out")
            remove(work / "out")
            found |= {"sparse bytes": size, "sparse seconds": seconds, "sparse peak": peak}
            goal = verdict(f"< {MOST / 1e9:g} GB", peak < MOST)
            lines.append(
                Line("sparse", f"{size / 1e9:.1f} GB, {seconds:.0f} s", f"{peak / 1e9:.2f} GB resident", "", goal)
            )
        if options.copied:
            size = write_model(work / "random", options.copied, options.vocabulary, noise)
            times: dict[str, list[float]] = {"export": [], "cp": [], "cp, sha256sum": []}
            for _ in range(options.rounds):
                times["export"].append(export(work / "random", "BF16", work / "out")[0])
                remove(work / "out")
                copied, summed = copy(work / "random", work / "copy")
                times["cp"].append(copied)
                times["cp, sha256sum"].append(copied + summed)
                remove(work / "copy")
            medians = {name: statistics.median(of_name) for name, of_name in times.items()}
            found |= {f"{name} seconds": seconds for name, seconds in medians.items()}
            for who, seconds in medians.items():
                share = seconds / medians["export"]
                goal = verdict(f">= {SHARE:g} for export", share >= SHARE) if who != "export" else ""
                ratio = "" if who == "export" else f"export has {share:.2f} of it"
                lines.append(
                    Line(f"{size / 1e9:.1f} GB passed through", who, f"{size / seconds / 1e9:.2f} GB/s", ratio, goal)
                )
    print_table(lines)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

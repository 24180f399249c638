"""What a plan takes of a device, and what fits without one, as lines and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prismaquant.quantity import format_bytes

if TYPE_CHECKING:
    from prismaquant.files.plan import Footprint
    from prismaquant.planning import Outlook

__all__ = ["show_footprint", "show_outlook"]

_VERDICTS = {
    "unquantized": "fits without quantization",
    "quantized": "fits quantized",
    "impossible": "does not fit",
}


def show_footprint(footprint: Footprint) -> None:
    """What a device holds and reads."""
    from prismaquant.cli.tables import line

    devices = f" on each of {footprint.tensor_parallel} devices" if footprint.tensor_parallel > 1 else ""
    line(
        f"weights {format_bytes(footprint.resident)}{devices}, of which a token reads "
        f"{format_bytes(footprint.read_per_token)}"
    )
    if footprint.bandwidth is not None:
        rate = footprint.bandwidth * footprint.tensor_parallel / footprint.read_per_token
        line(f"so one sequence gets at most {rate:.0f} tokens per second")
    if footprint.context:
        kinds = ", ".join(
            f"{share.layers} layers {share.kind} {format_bytes(share.bytes)}" for share in footprint.cache
        )
        sequences = f"{footprint.concurrency} x " if footprint.concurrency > 1 else ""
        line(f"KV cache in {footprint.kv} of {sequences}{footprint.context} tokens: {kinds}")
    if footprint.memory is not None and footprint.left is not None:
        line(
            f"about {format_bytes(footprint.activations)} for activations; of what vLLM takes of "
            f"{format_bytes(footprint.memory)} "
            + (f"{format_bytes(footprint.left)} are left" if footprint.left >= 0 else "not enough is left")
        )


def show_outlook(outlook: Outlook) -> None:
    """What fits where."""
    from prismaquant.cli.tables import line, table

    low, high = (8 * count / outlook.parameters for count in (outlook.minimum, outlook.maximum))
    line(
        f"{outlook.parameters} weights in Linears: {low:.4f} bits each in the smallest plan of the menu "
        f"({format_bytes(outlook.minimum)}), {high:.4f} in BF16 ({format_bytes(outlook.maximum)})"
    )
    table(
        ("budget", "left for Linears", "bits per weight", "", "uniform builds that fit"),
        [
            (
                place.name,
                format_bytes(place.bytes) if place.bytes > 0 else "-",
                f"{min(max(place.bpw, 0), high):.3f}" if place.verdict != "impossible" else "-",
                _VERDICTS[place.verdict],
                ", ".join(place.uniform) or "-",
            )
            for place in outlook.places
        ],
    )
    show_footprint(outlook.footprint)
    if any(place.verdict == "quantized" for place in outlook.places):
        line("a plan needs prices: make them with prismaquant probe")

"""How codecs and results show themselves: one line in a shell, a table and a picture in a notebook."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from prismaquant import _core
from prismaquant.codec import ErrorSummary, Quantized, get_codec
from prismaquant.codec.html import facts
from prismaquant.formats import format_info, list_formats

WEIGHT = np.random.default_rng(9).standard_normal((16, 256)).astype(np.float32)
SVG = "{http://www.w3.org/2000/svg}"


def parsed(thing: object) -> ElementTree.Element:
    """The HTML of ``thing``, which must be well-formed and small."""
    text = thing._repr_html_()  # type: ignore[attr-defined]
    assert len(text) < 40_000
    assert "nan" not in text
    return ElementTree.fromstring(text)


def table(tree: ElementTree.Element) -> dict[str, str]:
    return {row[0].text or "": row[1].text or "" for row in tree.iter("tr")}


def bars(tree: ElementTree.Element) -> list[ElementTree.Element]:
    return list(tree.iter(f"{SVG}rect"))


def assert_inside(tree: ElementTree.Element) -> None:
    """Nothing is drawn beyond the picture."""
    for svg in tree.iter(f"{SVG}svg"):
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        for bar in svg.iter(f"{SVG}rect"):
            left, top, wide, tall = (float(bar.attrib[key]) for key in ("x", "y", "width", "height"))
            assert left >= 0
            assert left + wide <= width
            assert top >= 0
            assert top + tall <= height
        for text in svg.iter(f"{SVG}text"):
            assert 0 <= float(text.attrib["x"]) <= width
            assert 8 <= float(text.attrib["y"]) <= height


def test_reprs_in_one_line() -> None:
    codec = get_codec("nvfp4")
    assert repr(codec) == (
        "Codec(nvfp4: 4-bit elements, one 8-bit scale per group of 16 along a row, one global scale; "
        "scale rules amax, sweep, four_over_six, given)"
    )
    assert repr(codec.encode(WEIGHT, global_scale=448.0)) == (
        "Quantized(nvfp4, 16 x 256, 4.508 bits per weight, global scale 448)"
    )
    assert repr(codec.encode(np.stack([WEIGHT, WEIGHT]), axis=1)) == (
        "Quantized(nvfp4, 2 x 16 x 256, 4.508 bits per weight, groups along axis -2)"
    )
    assert repr(codec.error(np.ones((1, 16), np.float32))).startswith("ErrorSummary(squared_error=0.0, ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fp8_e4m3_tensor", "8-bit elements, one 16-bit scale per tensor"),
        ("fp8_e4m3_block", "8-bit elements, one 16-bit scale per block of 128 x 128"),
        ("int8_token", "8-bit elements, one 32-bit scale per row"),
        ("int4_g64_asym", "4-bit elements, one 16-bit scale per group of 64 along a row, zero points"),
        ("bf16", "16-bit elements"),
    ],
)
def test_facts_in_words(name: str, words: str) -> None:
    assert ", ".join(facts(format_info(name))) == words


@pytest.mark.parametrize("name", list_formats())
def test_the_code_grid_of_every_format(name: str) -> None:
    codec = get_codec(name)
    tree = parsed(codec)
    assert_inside(tree)
    values = codec.values
    grid = np.unique(values[np.isfinite(values)])
    assert tree.find("strong").text == name  # type: ignore[union-attr]
    assert table(tree)["element values"] == f"{grid.size}, from {grid[0]:g} to {grid[-1]:g}"
    labels = [text.text for text in tree.iter(f"{SVG}text")]
    lines = [line.attrib["d"] for line in tree.iter(f"{SVG}path")]
    if codec.info.element_bits == 16:
        assert "1" in labels
        return
    assert {f"{grid[0]:.3g}".replace("-5.73e+04", "-57344"), "0"} <= set(labels)
    assert len(lines) == (2 if name.startswith(("mxfp6_e3m2", "mxfp8", "fp8")) else 1)
    if _core.element_values(name).size <= 64:  # all values can be told apart
        assert lines[0].count("v8") == grid.size


def test_values_are_those_that_decoding_gives() -> None:
    codes = np.arange(16, dtype=np.uint8)
    packed = np.resize(codes[::2] | codes[1::2] << 4, (1, 16))
    decoded = get_codec("mxfp4").decode(Quantized("mxfp4", (1, 32), packed, np.array([[127]], np.uint8), None))
    assert get_codec("mxfp4").values.tolist() == decoded[0, :16].tolist()
    e4m3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(get_codec("fp8_e4m3_channel").values, e4m3)


@pytest.mark.parametrize("name", list_formats())
def test_codes_are_counted(name: str) -> None:
    """Decoded under scales of one, how often each value occurs is how often its codes are."""
    codec = get_codec(name)
    quantized = codec.encode(WEIGHT)
    counts = quantized.code_counts()
    assert counts.shape == codec.values.shape
    assert counts.sum() == WEIGHT.size
    if codec.info.element_bits == 16:
        np.testing.assert_array_equal(counts, np.bincount(quantized.codes.reshape(-1), minlength=1 << 16))
        return
    used = np.flatnonzero(counts)
    if name.startswith(("mx", "nvfp4")):  # all scales one: elements are what is decoded
        one = np.full_like(quantized.scales, 0x38 if name == "nvfp4" else 127)
        decoded = codec.decode(Quantized(name, quantized.shape, quantized.codes, one, 1.0 if name == "nvfp4" else None))
        values, occurrences = np.unique(decoded, return_counts=True)
        for value, number in zip(values, occurrences, strict=True):
            assert counts[codec.values == value].sum() == number
    assert np.isfinite(codec.values[used]).all()


def test_counting_goes_over_many_runs_of_words() -> None:
    from prismaquant.codec import counts

    rng = np.random.default_rng(1)
    codes = rng.integers(0, 64, 4 * (counts._RUN // 3 + 1000))
    together = codes.reshape(-1, 4) @ (1 << np.array([0, 6, 12, 18]))
    words = np.stack([together & 255, together >> 8 & 255, together >> 16], axis=1).astype(np.uint8)
    np.testing.assert_array_equal(counts.code_counts(words, 6), np.bincount(codes, minlength=64))


@pytest.mark.parametrize("name", list_formats())
def test_the_histogram_of_codes(name: str) -> None:
    quantized = get_codec(name).encode(WEIGHT)
    tree = parsed(quantized)
    assert_inside(tree)
    shares = [float(bar[0].text.rpartition(": ")[2].rstrip("%")) for bar in bars(tree)]  # type: ignore[union-attr]
    assert sum(shares) == pytest.approx(100, abs=0.005 * len(shares) + 0.01)
    tallest = max(bars(tree), key=lambda bar: float(bar.attrib["height"]))
    assert tallest[0].text.endswith(f"{max(shares):.2f}%")  # type: ignore[union-attr]
    facts_shown = table(tree)
    assert facts_shown["shape"] == "16 x 256"
    assert facts_shown["codes"].startswith(str(quantized.codes.dtype))
    assert f"{quantized.nbytes:,} bytes" in facts_shown["bits per weight"]


def test_the_histogram_of_a_batch_and_of_nothing() -> None:
    codec = get_codec("nvfp4")
    shown = table(parsed(codec.encode(np.stack([WEIGHT, WEIGHT]), axis=-2)))
    assert shown["global scale"] == "float32 [2]"
    assert shown["groups along"] == "axis -2"
    assert bars(parsed(codec.encode(np.zeros((0, 32), np.float32)))) == []


@pytest.mark.parametrize("name", ["nvfp4", "fp8_e4m3_token", "int4_g32_asym", "nf4_double"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_histograms_of_errors(name: str, dtype: torch.dtype) -> None:
    codec, weight = get_codec(name), torch.from_numpy(WEIGHT).to(dtype)
    quantized = codec.encode(weight)
    summary = codec.error(weight, quantized, bins=21)
    assert summary == codec.error(weight, quantized) == codec.error(weight, bins=21)
    assert codec.error(weight).histogram is None
    assert summary.histogram is not None
    edges, counts = summary.histogram.edges, summary.histogram.counts
    assert (edges[0], edges[-1], len(edges)) == (-summary.max_error, summary.max_error, 22)
    errors = codec.decode(quantized) - weight.float().numpy()
    np.testing.assert_array_equal(counts, np.histogram(errors, 21, (edges[0], edges[-1]))[0])
    assert counts.sum() == WEIGHT.size
    tree = parsed(summary)
    assert_inside(tree)
    assert len(bars(tree)) == (counts > 0).sum()
    assert table(tree)["signal to noise"] == f"{summary.snr_db:.2f} dB"


def test_errors_without_a_picture() -> None:
    tree = parsed(ErrorSummary(0.0, 0.0, 0.0, float("inf")))
    assert list(tree.iter(f"{SVG}svg")) == []
    nothing_lost = get_codec("bf16").error(np.ones((4, 4), np.float32), bins=5)
    [bar] = bars(parsed(nothing_lost))
    assert bar[0].text.endswith("100.00%")  # type: ignore[union-attr]


def test_names_are_escaped() -> None:
    from prismaquant.codec.html import _document

    tree = ElementTree.fromstring(_document("<b>&", [("<i>", 'a < "b"')], ""))
    assert tree[0].text == "<b>&"
    assert table(tree) == {"<i>": 'a < "b"'}

"""Every verb from the command line to its result: what people see, and the one JSON document that programs see."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prismaquant as pq
from prismaquant.environment import Environment
from prismaquant.exporting.report import VerifyReport
from prismaquant.exporting.run import ExportReport
from prismaquant.files import evaluation, manifest
from prismaquant.files.plan import Plan
from prismaquant.pipeline import QuantizeReport


def fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_inspect(run, tiny_llama):
    shown = run("inspect", tiny_llama)
    assert shown.code == 0
    assert "24 units" in shown.out
    assert "256+128+128 x 256" in shown.out
    assert re.search(r"^ *no matrix +13 +", shown.out, re.MULTILINE)
    assert re.search(r"^ *embedding +1 +", shown.out, re.MULTILINE)
    assert shown.err == ""


def test_inspect_json(run, tiny_llama):
    document = run("inspect", tiny_llama, "--json").document
    model = pq.open(tiny_llama)
    assert document["fingerprint"] == model.fingerprint
    assert document["bytes"] == model.nbytes == sum(tensor.nbytes for tensor in model.tensors.values())
    assert [unit["name"] for unit in document["units"]] == [unit.name for unit in model.units]
    unit = document["units"][0]
    assert unit["linears"]["model.layers.0.self_attn.k_proj"] == [128, 256]
    assert unit["bytes"]["NVFP4A16"] < unit["bytes"]["FP8_DYNAMIC"] < unit["bytes"]["BF16"] == 2 * 512 * 256
    assert {name: kept["reason"] for name, kept in document["kept"].items()} == model.reasons


def test_plan_without_prices_says_what_fits(run, tiny_llama):
    shown = run("plan", tiny_llama, "--fit", "13MB", "--context", "512", "--reserve", "0")
    assert shown.code == 0
    assert "fits quantized" in shown.out
    assert "KV cache in bf16 of 512 tokens: 6 layers full 1.50 MiB" in shown.out
    document = run("plan", tiny_llama, "--context", "1k", "--json").document
    assert set(document) == fields(pq.Outlook)
    assert {"H100", "RTX-4090", "MI300X"} <= {place["name"] for place in document["places"]}
    assert run("plan", tiny_llama, "--max-loss", "0.01").code == 2  # that needs prices


def test_plan_frontier_and_explain(run, made, source, tmp_path):
    sensitivity = ["--sensitivity", made.work / "sensitivity.safetensors"]
    recipe = tmp_path / "recipe.json"
    shown = run("plan", source, *sensitivity, "--bpw", "10", "--pin", "*.layers.0.*o_proj=BF16", "-o", recipe)
    assert shown.code == 0
    assert "of which a token reads" in shown.out
    shown = run("explain", source, "--plan", recipe, *sensitivity)
    assert "the next byte would save" in shown.out
    assert "it is pinned to BF16" in shown.out
    shown = run("explain", source, "model.layers.1.mlp.down_proj", "--plan", recipe, *sensitivity)
    assert "keeps its scheme in" in shown.out
    assert set(run("explain", source, "--plan", recipe, *sensitivity, "--json").document) == fields(pq.Explanation)
    shown = run("frontier", source, *sensitivity, "--points", "5")
    assert "5 certified optima" in shown.out
    assert "knee at" in shown.out
    assert set(run("frontier", source, *sensitivity, "--json").document) == fields(pq.Frontier)


def test_quantize_uniform_needs_no_data(run, tiny_llama, tmp_path):
    shown = run("quantize", tiny_llama, "-o", tmp_path / "out", "--schemes", "nvfp4a16")
    assert shown.code == 0
    assert [line.split(",")[0] for line in shown.err.splitlines()] == ["export 24/24", "verify 24/24"]
    assert "4.5003 bits per weight" in shown.out
    assert "written and verified" in shown.out
    assert "predicted" not in shown.out
    assert names(tmp_path) == {"out"}  # no work folder, nothing left
    assert manifest.read(tmp_path / "out" / manifest.FILE).plan.predicted_kl is None


def test_quantize_to_a_budget(made, source):
    assert names(made.folder.parent) == {"mixed", "mixed.work"}
    document = made.document
    assert set(document) == fields(QuantizeReport)
    assert set(document["plan"]) == fields(Plan)
    assert set(document["export"]) == fields(ExportReport)
    assert set(document["verify"]) == fields(VerifyReport)
    assert document["export"]["path"] == str(made.folder)
    assert document["work_dir"] == str(made.work)
    assert document["verify"]["failures"] == []
    written = manifest.read(made.folder / manifest.FILE)
    assert [unit["scheme"] for unit in document["plan"]["units"]] == [unit.scheme for unit in written.plan.units]
    assert {unit.scheme for unit in written.plan.units} == {"FP8_DYNAMIC", "BF16"}
    assert document["plan"]["predicted_kl"] == written.plan.predicted_kl


def test_quantize_for_people(run, source, data, tmp_path):
    few = ("--samples", 4, "--seq_len=32", "--data", data)  # an underscore is as good as a hyphen
    shown = run(
        "quantize", source, "--out", tmp_path / "out", "--size", "1.12MB", *few, "--formats", "NVFP4A16,FP8_DYNAMIC"
    )
    assert shown.code == 0, shown.err
    assert "model.layers.*.self_attn.qkv_proj" in shown.out
    assert "no plan of no more bytes is below" in shown.out
    assert f"{tmp_path / 'out.work'} (the checkpoint does not need them)" in shown.out
    said = dict.fromkeys(line.split()[0] for line in shown.err.splitlines())  # a slow stage says more than one line
    assert list(said) == ["data:", "forward", "head", "backward", "price", "polish", "export", "verify"]


def test_verify(run, made, source):
    shown = run("verify", made.folder)
    assert shown.code == 0
    assert "ok, 14 Linears decoded, 9 of them quantized, not compared to a source" in shown.out
    shown = run("verify", made.folder, "--source", source)
    assert shown.code == 0
    assert " dB" in shown.out
    assert "lossless" in shown.out  # those that stay BF16


def test_verify_json(run, made, source):
    ran = run("verify", made.folder, "--source", source, "--json")
    assert ran.code == 0
    assert set(ran.document) == {"ok"} | fields(VerifyReport)
    assert ran.document["ok"] is True
    by_scheme = {linear["scheme"]: linear["snr_db"] for linear in ran.document["linears"]}
    assert by_scheme["BF16"] is None  # infinite: JSON has no such number
    assert 15 < by_scheme["FP8_DYNAMIC"] < 40


def test_eval(run, made, source, root, tmp_path):
    held_out = root / "examples" / "data" / "evaluation.txt"
    few = ("--source", source, "--data", held_out, "--tokens", 256, "--seq-len", 32)
    ran = run("eval", made.folder, *few, "-o", tmp_path / "eval.json", "--json")
    assert ran.code == 0
    # what is printed is what is kept, and either can be read again
    assert ran.document == json.loads((tmp_path / "eval.json").read_bytes())
    (tmp_path / "copy.json").write_text(ran.out)
    measured = evaluation.read(tmp_path / "copy.json")
    assert 0 < measured.kl.low < measured.kl.value < measured.kl.high
    shown = run("eval", made.folder, *few, "-o", tmp_path / "eval.json")
    assert f"{measured.kl.low:.4g} .. {measured.kl.high:.4g}" in shown.out
    assert f"{measured.top1.low:.2%} .. {measured.top1.high:.2%}" in shown.out
    assert evaluation.read(tmp_path / "eval.json").seconds == measured.seconds  # used again, not measured again


def test_doctor(run):
    shown = run("doctor")
    assert shown.code == 0
    assert pq.__version__ in shown.out
    assert set(run("doctor", "--json").document) == fields(Environment)


def test_doctor_names_the_extra_of_a_missing_package(run, monkeypatch):
    from prismaquant import environment

    monkeypatch.setattr(environment, "_installed", lambda name: None)
    assert "not installed; pip install 'prismaquant-cpp[probe]'" in run("doctor").out


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "prismaquant"], [str(Path(sys.executable).with_name("prismaquant"))]]
)
def test_a_process_prints_one_document_and_nothing_else(command, source, data, tmp_path):
    if not Path(command[0]).exists():
        pytest.skip("the package is not installed, so there is no script")
    arguments = ["quantize", source, "-o", tmp_path / "out", "--schemes", "FP8_DYNAMIC", "--json"]
    ran = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)) == fields(QuantizeReport)
    assert (
        subprocess.run([*command, "--version"], capture_output=True, text=True).stdout
        == f"prismaquant {pq.__version__}\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error(tiny_llama):
    command = f"{sys.executable} -m prismaquant inspect {tiny_llama} --json | head -n 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "{\n"
    assert ran.stderr == ""

"""Exit codes: 0 ok, 1 an operation failed, 2 usage, 3 refused before work, 4 verification failed. And what is said."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

import prismaquant
from prismaquant.exporting import publish
from prismaquant.pipeline import quantization
from prismaquant.planning import Request, preflight
from prismaquant.quantity import format_bytes
from support import hostile

Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def refused(run, tmp_path):
    """Runs a command that must fail with a code and leave nothing; gives what it says, as JSON and as text."""

    def refused(code: int, *arguments: object) -> dict:
        before = set(tmp_path.rglob("*"))
        shown = run(*arguments)
        assert (shown.code, shown.out) == (code, ""), shown
        ran = run(*arguments, "--json")
        assert ran.code == code
        assert set(ran.document) == {"error"}
        error = ran.document["error"]
        assert error.keys() >= {"type", "message", "where", "hint"}
        where = f"{error['where']}: " if error["where"] else ""
        assert shown.err.startswith(f"error: {where}{error['message']}\n")
        assert "Traceback" not in shown.err
        if error["hint"]:
            assert f"\n  {error['hint']}\n" in shown.err
        assert set(tmp_path.rglob("*")) == before
        return error

    return refused


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["qantize"], "unknown verb 'qantize'", "did you mean 'quantize'?"),
        (["--verison"], "unknown option --verison", "did you mean --version?"),
        (["--seed", "doctor"], "--seed comes before the verb", "write prismaquant VERB ... --seed"),
        (["inspect"], "the following arguments are required: MODEL", "see prismaquant inspect --help"),
        (["inspect", "a", "b"], "one argument too many: b", "see prismaquant inspect --help"),
        (["inspect", "a", "--jsn"], "unknown option --jsn", "did you mean --json?"),
        (["quantize", "a"], "the following arguments are required: -o/--output/--out", None),
        (["quantize", "a", "-o", "b", "--sample", "4"], "unknown option --sample", "did you mean --samples?"),
        (["quantize", "a", "-o", "b", "--bpw", "4,5"], "argument --bpw: invalid float value: '4,5'", None),
        (["quantize", "a", "-o", "b", "--bpw", "4", "--size", "1GB"], "argument --size: not allowed with", None),
        (["quantize", "a", "-o"], "argument -o/--output/--out: expected one argument", None),
        (["eval", "a", "--source", "b"], "the following arguments are required: --data", None),
    ],
)
def test_usage(arguments, message, hint, refused):
    error = refused(2, *arguments)
    assert error["message"].startswith(message)
    assert (hint or "see prismaquant") in error["hint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no budget, and a menu of 2 schemes"),
        (["--schemes", ","], "schemes is empty"),
        (["--schemes", "NVFP5"], "unknown scheme 'NVFP5'"),
        (["--bpw", "nan"], "bpw is nan"),
        (["--bpw", "-4"], "bpw is -4"),
        (["--size", "much"], "'much' is not a size"),
        (["--size", "0GB"], "size is 0"),
        (["--schemes", "NVFP4A16", "--shard-size", "5 apples"], "'5 apples' is not a size"),
        (["--schemes", "NVFP4A16", "--threads", "0"], "threads: 0"),
        (["--schemes", "NVFP4A16", "--preset", "bets"], "unknown preset 'bets'"),
        (["--bpw", 5, "--data", "DATA", "--price", "fair"], "unknown price 'fair'"),
        (["--bpw", 5, "--data", "DATA", "--samples", "0"], "samples is 0"),
        (["--bpw", 5, "--data", "DATA", "--seq-len", "1"], "seq_len is 1"),
        (["--bpw", 5, "--data", "DATA", "--work-dir", "OUT/work"], "OUT/work is in the output folder"),
    ],
)
def test_arguments_are_checked_before_any_work(arguments, message, refused, source, data, tmp_path):
    known = {"DATA": str(data), "OUT/work": str(tmp_path / "out" / "work")}
    arguments = [known.get(argument, argument) for argument in arguments]
    error = refused(2, "quantize", source, "-o", tmp_path / "out", *arguments)
    assert message.replace("OUT", str(tmp_path / "out")) in error["message"]


def test_no_model(refused, tmp_path):
    error = refused(3, "inspect", tmp_path / "none")
    assert (error["type"], error["where"]) == ("ModelError", str(tmp_path / "none"))
    assert refused(3, "verify", tmp_path / "none")["message"] == "does not exist"
    assert refused(3, "quantize", tmp_path / "none", "-o", tmp_path / "out", "--schemes", "NVFP4A16")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: hostile.edit_config(folder, model_type="mamba"), "mamba"),
        (hostile.truncated_data, "model.safetensors"),
        (hostile.pickles_only, "pytorch_model.bin"),
        (lambda folder: hostile.edit_config(folder, quantization_config={"quant_method": "awq"}), "awq"),
    ],
)
def test_models_that_cannot_be_used(damage, words, refused, source, tmp_path):
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    damage(folder)
    error = refused(3, "quantize", folder, "-o", tmp_path / "out", "--schemes", "NVFP4A16")
    assert error["type"] == "ModelError"
    assert words in f"{error['where']} {error['message']} {error['hint']}"
    assert error["hint"]


def test_budgets_that_fit_no_plan_say_what_does(refused, run, source, data, tmp_path):
    arguments = ("quantize", source, "-o", tmp_path / "out", "--data", data)
    error = refused(3, *arguments, "--bpw", 3)
    minimum = 8 * error["minimum"] / sum(unit.parameters for unit in prismaquant.open(source).units)
    assert f"{minimum:.4f} bpw" in error["message"]
    assert refused(3, *arguments, "--bpw", 17)["maximum"] > error["minimum"]
    error = refused(3, *arguments, "--size", "900kB")
    least = error["hint"].split("size ")[1].split(",")[0]
    assert format_bytes(int(least)) in error["message"]
    assert run(*arguments, "--size", least, "--samples", 2, "--seq-len", 16).code == 0


def test_the_output_exists(refused, source, data, made, tmp_path):
    (tmp_path / "out").mkdir()
    error = refused(3, "quantize", source, "-o", tmp_path / "out", "--bpw", 5, "--data", data)
    assert (error["message"], error["where"]) == ("exists", str(tmp_path / "out"))
    assert "--force" in error["hint"]
    assert (
        "is the source" in refused(3, "quantize", source, "-o", source, "--schemes", "NVFP4A16", "--force")["message"]
    )


def test_data_that_cannot_be_used(refused, source, tmp_path):
    arguments = ("quantize", source, "-o", tmp_path / "out", "--bpw", 5, "--data")
    assert refused(3, *arguments, tmp_path / "none.txt")["type"] == "DataError"
    (tmp_path / "short.txt").write_text("Hardly anything.")
    assert "has 5 tokens, 85848 are needed" in refused(3, *arguments, tmp_path / "short.txt")["message"]
    (tmp_path / "text.pdf").write_bytes(b"%PDF")
    assert "'.pdf'" in refused(3, *arguments, tmp_path / "text.pdf")["message"]


@pytest.mark.parametrize("others", [0, 1000], ids=["output", "output_and_stage_files"])
def test_a_full_disk(others, refused, source, data, tmp_path, monkeypatch):
    """First the output alone is too large, then both on one disk."""
    free = preflight(prismaquant.open(source), Request(bpw=15.9)) + 16 * 2**20 + others - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(2**30, 2**30 - free, free))
    error = refused(3, "quantize", source, "-o", tmp_path / "out", "--bpw", 15.9, "--data", data)
    assert f"{format_bytes(free)} free" in error["message"]
    assert "free some space" in error["hint"]


def test_a_full_disk_under_the_work_folder(refused, source, data, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "_disk", lambda path: path.name)
    monkeypatch.setattr(quantization.shutil, "disk_usage", lambda path: Disk(2**30, 2**30 - 9, 9))
    monkeypatch.setattr(publish, "_check_room", lambda out, nbytes: None)
    error = refused(3, "quantize", source, "-o", tmp_path / "out", "--bpw", 5, "--data", data)
    assert "needed for stage files, 9 B free" in error["message"]
    assert error["where"] == str(tmp_path / "out.work")


def test_a_work_folder_that_cannot_be_made(run, source, data, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    few = ("--bpw", 5, "--data", data, "--samples", 2, "--seq-len", 16)
    ran = run("quantize", source, "-o", tmp_path / "out", *few, "--work-dir", tmp_path / "file" / "work")
    assert ran.code == 3
    assert ran.out == ""
    assert "error: " in ran.err  # after what was said of the data
    assert "cannot be made" in ran.err


def test_a_file_of_something_else_is_not_overwritten(refused, made, source, data, tmp_path):
    (tmp_path / "eval.json").write_text('{"mine": true}')
    arguments = ("eval", made.folder, "--source", source, "--data", data, "--tokens", 64, "--seq-len", 32)
    assert refused(3, *arguments, "-o", tmp_path / "eval.json")["type"] == "StageFileError"
    assert (tmp_path / "eval.json").read_text() == '{"mine": true}'


def test_a_missing_extra_says_what_to_install(refused, source, data, made, tmp_path, monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in ("torch", "transformers") else find(name))
    error = refused(3, "quantize", source, "-o", tmp_path / "out", "--bpw", 5, "--data", data)
    assert (error["type"], error["message"]) == ("MissingExtraError", "torch and transformers are not installed")
    assert error["hint"] == "pip install 'prismaquant-cpp[probe]'"
    error = refused(3, "eval", made.folder, "--source", source, "--data", data)
    assert error["hint"] == "pip install 'prismaquant-cpp[eval]'"


def test_a_damaged_checkpoint(run, made, source, tmp_path):
    folder = Path(shutil.copytree(made.folder, tmp_path / "damaged"))
    (shard,) = folder.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0x40
    shard.write_bytes(content)
    shown = run("verify", folder, "--source", source)
    assert shown.code == 4
    assert "error: " in shown.out
    assert "1 errors" in shown.out or "errors, 14 Linears" in shown.out
    ran = run("verify", folder, "--source", source, "--json")
    assert ran.code == 4
    assert ran.document["ok"] is False
    assert ran.document["failures"][0].keys() == {"rule", "where", "text", "is_warning"}


def test_a_mistake_of_ours_shows_all_there_is_to_know(run, source, monkeypatch):
    def broken(model: object) -> None:
        raise RuntimeError("this cannot happen")

    monkeypatch.setattr(prismaquant, "open", broken)
    shown = run("inspect", source, "--json")
    assert shown.code == 1
    assert shown.document["error"] == {
        "type": "RuntimeError",
        "message": "this cannot happen",
        "where": None,
        "hint": None,
    }
    assert "Traceback" in shown.err


def test_verbose_shows_the_traceback_of_an_expected_error(run, tmp_path):
    shown = run("inspect", tmp_path / "none", "-v")
    assert shown.code == 3
    assert "Traceback" in shown.err
    assert shown.err.splitlines()[-2].startswith("error: ")


def test_json_of_an_error_is_one_line_per_field(run, tmp_path):
    assert json.loads(run("inspect", tmp_path / "none", "--json").out)["error"]["type"] == "ModelError"

"""Ctrl-C at any moment leaves nothing half-written, and the next run goes on from what is complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

#: Runs a command once per moment, with a Ctrl-C when it is reached; tells for each the exit code and what is there.
_DRIVER = """
import contextlib, json, os, signal, sys
from pathlib import Path
from prismaquant.cli import main, progress

out, moments, arguments = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
events = []

def interrupt_at(moment):
    @contextlib.contextmanager
    def bar():
        def sink(event):
            events.append(event.stage)
            if [event.stage, event.done] == moment:
                os.kill(os.getpid(), signal.SIGINT)
        yield sink
    return bar

for moment in moments:
    events.clear()
    progress.bar = interrupt_at(moment)
    code = main(arguments)
    print(json.dumps([moment, code, sorted(os.listdir(out.parent)), sorted(set(events))]))
"""

#: Idle threads of small matrices would only wait for each other.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(source: Path, data: Path, out: Path) -> list[str]:
    few = ["--samples", "8", "--price-samples", "4", "--seq-len", "64"]
    return ["quantize", str(source), "-o", str(out), "--bpw", "6", "--data", str(data), *few]


def test_at_every_stage(source, data, tmp_path):
    out = tmp_path / "out"
    moments = [["forward", 1], ["head", 3], ["backward", 1], ["price", 4], ["export", 0], ["export", 5], None]
    program = [sys.executable, "-c", _DRIVER, str(out), json.dumps(moments), *command(source, data, out)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=300, env=_ENVIRONMENT)
    assert ran.returncode == 0, ran.stderr
    results = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[")]
    assert [moment for moment, *_ in results] == moments
    for _moment, code, there, _events in results[:-1]:
        assert code == 130
        assert there == ["out.work"]
    assert ran.stderr.count("interrupted: nothing half-written was left") == len(moments) - 1
    assert results[-1][1:3] == [0, ["out", "out.work"]]
    assert results[-1][3] == ["export", "verify"]  # what was measured before is used
    partial = [path for path in (tmp_path / "out.work").rglob(".*")]
    assert not partial


def test_while_the_finished_folder_is_verified(source, tmp_path):
    out = tmp_path / "out"
    arguments = ["quantize", str(source), "-o", str(out), "--schemes", "FP8_DYNAMIC"]
    program = [sys.executable, "-c", _DRIVER, str(out), json.dumps([["verify", 3]]), *arguments]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=300, env=_ENVIRONMENT)
    assert json.loads(ran.stdout)[1:3] == [130, ["out"]]
    assert ran.stderr == f"interrupted: {out} is complete, but not verified\n"


def test_a_signal_from_outside(tiny_llama, data, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "prismaquant", *command(tiny_llama, data, out), "--samples", "24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    )
    assert process.stderr is not None
    assert any(line.startswith("forward") for line in iter(process.stderr.readline, ""))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert printed == ""
    assert rest.splitlines()[-1].startswith("interrupted: nothing half-written was left")
    assert "Traceback" not in rest
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out.work"}

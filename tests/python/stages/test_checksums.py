"""`SHA256SUMS` of a written folder: what the system's own tool reads, and `verify` believes only if it is true."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from prismaquant.exporting.checksums import FILE, check_checksums
from prismaquant.exporting.run import export
from prismaquant.exporting.verify import verify
from prismaquant.model import open_model
from support.plans import cycled
from support.tiny_models import build


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checksums")
    source = open_model(build("llama", folder / "source", tokenizer=True))
    export(source, cycled(source, ("NVFP4A16", "FP8_DYNAMIC", "BF16")), folder / "out", shard_size=50_000)
    return folder / "out"


@pytest.fixture
def out(written, tmp_path):
    return shutil.copytree(written, tmp_path / "out")


def test_every_file_is_listed(out):
    listed = {line.split("  ")[1] for line in (out / FILE).read_text().splitlines()}
    assert listed == {path.name for path in out.iterdir()} - {FILE}
    assert verify(out).ok


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_system_reads_it(out):
    assert subprocess.run(["sha256sum", "--check", "--strict", "--quiet", FILE], cwd=out, check=False).returncode == 0


def test_the_same_export_has_the_same_sums(written, tmp_path):
    source = open_model(written.parent / "source")
    plan = cycled(source, ("NVFP4A16", "FP8_DYNAMIC", "BF16"))
    export(source, plan, tmp_path / "again", shard_size=50_000)
    assert (tmp_path / "again" / FILE).read_bytes() == (written / FILE).read_bytes()


def test_a_changed_file_is_named(out):
    (out / "tokenizer.json").write_text("{}")
    (failure,) = verify(out).failures
    assert (failure.rule, failure.where) == ("checksum", "tokenizer.json")


def test_a_missing_file_is_named(out):
    (out / "tokenizer.json").unlink()
    (failure,) = verify(out).failures
    assert "is missing" in failure.text


def test_a_missing_manifest_is_named(out):
    (out / "prismaquant.json").unlink()
    (failure,) = verify(out).failures
    assert failure.where == "prismaquant.json"


def test_what_is_not_listed_is_free(out):
    (out / "README.md").write_text("served since Monday")
    assert verify(out).ok


@pytest.mark.parametrize("line", ["not a sum", f"{'0' * 64}  ../config.json", f"{'0' * 64}  /etc/passwd"])
def test_a_line_that_is_no_sum_or_leaves_the_folder_is_refused(out, line):
    (out / FILE).write_text(line + "\n")
    (failure,) = check_checksums(out)
    assert failure.where == f"{FILE}: line 1"


def test_a_folder_without_sums_breaks_no_rule(out):
    (out / FILE).unlink()
    assert verify(out).ok

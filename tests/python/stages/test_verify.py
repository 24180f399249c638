"""What `verify` says of good folders, of plain ones, and of what it could not compare."""

from __future__ import annotations

import numpy as np
import pytest

from prismaquant.errors import ModelError, VerificationError
from prismaquant.exporting.run import export
from prismaquant.exporting.verify import verify
from prismaquant.model import open_model
from prismaquant.planning import Request, plan
from support import tiny_models
from support.exported import FP8
from support.mutations import INDEX


def test_the_untouched_folder_passes(mixed, mixed_source):
    report = verify(mixed, source=mixed_source)
    assert report.failures == ()
    assert report.ok
    assert report.source_compared
    report.raise_for_failures()
    assert repr(report) == "VerifyReport(ok; 14 Linears, compared to its source)"
    assert {check.scheme for check in report.linears} == {"NVFP4", "NVFP4A16", "FP8_DYNAMIC", "BF16"}
    for check in report.linears:
        assert check.equals_manifest
        # Random weights: 4 bits leave some 20 dB, FP8 some 30.
        low, high = {"FP8_DYNAMIC": (30, 35), "BF16": (np.inf, np.inf)}.get(check.scheme, (19, 24))
        assert low <= check.snr_db <= high


def test_rewriting_it_without_a_change_breaks_nothing(broken, mixed_source):
    broken.tensors(lambda tensors: None)
    broken.config(lambda config: None)
    assert verify(broken.path, source=mixed_source).ok


def test_without_a_source_the_report_says_so(mixed):
    report = verify(mixed)
    assert report.ok
    assert not report.source_compared
    assert {(check.snr_db, check.squared_error, check.equals_manifest) for check in report.linears} == {(None,) * 3}
    assert "not compared to a source" in repr(report)


def test_progress_counts_the_units(mixed):
    events = []
    verify(mixed, progress=events.append)
    assert [(event.done, event.total) for event in events] == [(done, 8) for done in range(9)]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(mixed, mixed_source, threads):
    assert verify(mixed, source=mixed_source, threads=threads) == verify(mixed, source=mixed_source)


def test_a_failure_names_one_place_and_leaves_the_rest_alone(broken, mixed_source):
    broken.tensors(lambda tensors: tensors[f"{FP8}.weight"].data.__setitem__(7, 1))
    report = verify(broken.path, source=mixed_source)
    (check,) = report.failures
    assert check.where == FP8
    assert [linear.name for linear in report.linears if not linear.equals_manifest] == [FP8]
    with pytest.raises(VerificationError, match=rf"has 1 failure: {FP8}: squared error") as caught:
        report.raise_for_failures()
    assert caught.value.exit_code == 4


def test_only_the_first_failures_are_in_the_message(broken):
    broken.tensors(lambda tensors: [tensors.pop(name) for name in list(tensors) if name.endswith("weight_scale")])
    with pytest.raises(VerificationError, match=r"has \d+ failures: .*; and \d+ more"):
        verify(broken.path).raise_for_failures()


def test_a_source_that_cannot_be_opened_is_an_error(mixed, tmp_path):
    with pytest.raises(ModelError):
        verify(mixed, source=tmp_path)


def test_another_model_is_not_the_source(mixed, mixed_source, tmp_path):
    other = tiny_models.build("qwen2", tmp_path / "other", tokenizer=True, seed=1)
    rules = {check.rule for check in verify(mixed, source=other).failures}
    assert {"manifest", "passthrough", "signal-to-noise"} <= rules


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_plain_model_is_checked_as_one(tmp_path, dtype):
    path = tiny_models.build("llama", tmp_path / "plain", dtype=dtype)
    for report in (verify(path), verify(path, source=path)):
        assert report.failures == ()
        assert {check.scheme for check in report.linears} == {"BF16"}
    (path / INDEX).write_text("{}")
    assert {check.rule for check in verify(path).failures} == {"index"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
def test_an_export_in_bf16_passes(tmp_path, dtype):
    source = tiny_models.build("gemma3_text", tmp_path / "source", dtype=dtype)
    model = open_model(source)
    export(model, plan(model, None, Request(schemes=["BF16"])), tmp_path / "out")
    report = verify(tmp_path / "out", source=source)
    assert report.failures == ()
    assert all(check.equals_manifest for check in report.linears)
    assert all((check.squared_error == 0.0) == (dtype == "bfloat16") for check in report.linears)

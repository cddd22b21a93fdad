"""The dry run: what a run takes, measured on a sample, and nothing written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import pytest

from uce.cli.main import main
from uce.estimating import Estimate


@pytest.fixture
def source(make_cells: Callable[..., ad.AnnData], tmp_path: Path) -> Path:
    make_cells(cells=1500, genes=300).write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def dry_run(source: Path, model: Path, *options: str) -> int:
    return main(["embed", str(source), "--model", str(model), "--species", "human", "--dry-run", *options])


def test_the_dry_run_writes_nothing_and_says_what_a_run_takes(
    source: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(source.parent)
    assert dry_run(source, tiny_folder) == 0
    said = capsys.readouterr().out
    for words in ("1,500 cells", "tokens a cell", "cells/s", "one such device", "finished blocks", "10^8 cells"):
        assert words in said
    assert [path.name for path in source.parent.iterdir()] == ["in.h5ad"]


def test_its_numbers_follow_from_the_sample(
    source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(source, tiny_folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert 64 < found["tokens_per_cell"] <= 160  # 64 draws, the tokens around chromosomes, CLS
    assert found["sample"] <= 1024
    assert found["hours"] == pytest.approx(1500 / found["cells_per_second"] / 3600)
    assert found["hours_for_100000000_cells"]["64"] == pytest.approx(1e8 / found["cells_per_second"] / 3600 / 64)
    vectors = 1500 * 16 * 4
    assert found["parts_bytes"] == vectors + 1500 * 32
    assert found["result_bytes"] == vectors + source.stat().st_size
    assert dry_run(source, tiny_folder, "--json", "--format", "npy") == 0
    assert json.loads(capsys.readouterr().out)["result_bytes"] == vectors


def test_times_are_told_in_the_unit_that_fits() -> None:
    slow = Estimate("a.h5ad", 1000, 1280, "cpu", "fp32", 8, 1000.0, 0.5, 10, 10)
    assert "34 minutes on one such device" in str(replace(slow, cells=1020))
    assert "55,556 hours (2,315 days) on 1" in str(slow)
    assert "512.0 GB of vectors" in str(slow)
    assert "a minute at most on one such device" in str(replace(slow, cells=3))


def test_a_file_without_cells_is_refused(
    make_cells: Callable[..., ad.AnnData], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_cells(cells=5)[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    assert dry_run(tmp_path / "none.h5ad", tiny_folder) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1

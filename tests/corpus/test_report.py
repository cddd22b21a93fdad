"""`uce corpus info` reads one index and one table, however many datasets there are."""

from pathlib import Path

import pytest

from uce.cli.main import main
from uce.corpus import layout
from uce.corpus.layout import CorpusIndex, write_index, write_rows
from uce.corpus.report import info_lines
from uce.files import sha256_file

DATASETS = 100_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index and the table of a corpus of very many datasets; no store is there."""
    folder = tmp_path_factory.mktemp("large")
    usual = {"species": "homo_sapiens", "split": "train", "licence": "CC0", "left_out": ""}
    sizes = {"n_cells": 5000, "n_kept": 4000}
    write_rows(folder / layout.TABLE, [{"dataset_id": f"dataset-{n:06d}", **usual, **sizes} for n in range(DATASETS)])
    totals = {"datasets": DATASETS, "cells": 4000 * DATASETS, "entries": 1, "counts": 1}
    content = {
        "gene_encoder": "orthogroups-v1",
        "seed": 0,
        "species": {"homo_sapiens": {"sha256": "0" * 64, "genes": 1}},
        "totals": totals,
        "datasets": {f"dataset-{n:06d}": "0" * 64 for n in range(DATASETS)},
        "files": {layout.TABLE: sha256_file(folder / layout.TABLE)},
        "failed": {"bad": "no such\nfile"},
    }
    write_index(folder, content)
    return folder


def test_a_hundred_thousand_datasets_are_listed_from_the_index_alone(
    large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["corpus", "info", str(large)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == DATASETS + 3
    assert lines[1].split() == ["dataset-000000", "homo_sapiens", "train", "4,000", "5,000", "CC0"]
    assert "100,000 datasets, 400,000,000 cells" in lines[-2]
    assert lines[-1].startswith("failed: bad: no such")
    assert sorted(path.name for path in large.iterdir()) == ["corpus.json", "datasets.csv"]


def test_the_table_is_read_and_hashed_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(layout, "sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    index = layout.read_index(large)
    assert isinstance(index, CorpusIndex)
    info_lines(index)
    assert [path.name for path in hashed] == ["datasets.csv"]

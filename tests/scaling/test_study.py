"""A whole study, as small as one can be, by its command."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import toy_config, write_planted_files
from uce.cli.main import main
from uce.config import config_to_dict, read_config
from uce.corpus.choosing import training_cells
from uce.errors import UsageError
from uce.grid import read_rows
from uce.scaling.settings import LearnerSettings, StudyConfig, runs_of, sizes_of
from uce.training.settings import OptimizerSettings, RunSettings


@pytest.fixture
def study(uce_home: Path, tmp_path: Path) -> Path:
    """Two sizes, one seed, five steps; beside it a configuration that fits its corpus of planted cells."""
    corpus = write_planted_files(uce_home, tmp_path / "cells").corpus
    run = RunSettings(workers=0, log_every=5, snapshot_every=5)
    config = toy_config(steps=5, batch_size=8, optimizer=OptimizerSettings(lr=1e-3, warmup=1), run=run)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    content = {
        "corpus": corpus,
        "sizes": 2,
        "seeds": 1,
        "validation": {"probe_cells": 50, "batches": 1},
        "learners": [{"name": "toy", "config": "toy.yaml"}, {"name": "pca"}],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_study_from_its_file_to_its_report(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["scaling", str(study), "-o", str(out), "--quiet"]
    # Principal components need orthogroups, which made-up genes have not: points with a reason, and exit code 3.
    assert main(command) == 3
    records = {record["name"]: record for record in read_rows(out)}
    trained = {"toy-untrained-0-s0", "toy-random-90-s0", "toy-all-180-s0"}
    assert set(records) == {"references", *trained, "pca-random-90-s0", "pca-all-180-s0"}
    for name in trained:
        assert records[name]["status"] == "done"
        assert set(records[name]["values"]["f1"]) == {"kept"}
    assert records["toy-random-90-s0"]["values"]["cells"] == 90
    assert [records[name]["values"]["shown"] for name in sorted(trained)] == [40, 40, 0]
    assert "no principal components of this corpus" in records["pca-random-90-s0"]["reason"]
    assert set(records["references"]["values"]) == {"chance", "mean gene vectors", "own PCA"}
    assert not (out / "runs" / "toy-random-90-s0" / "corpus").exists(), "the subset of a finished run is let go"
    assert (out / "runs" / "toy-random-90-s0" / "run" / "metrics.jsonl").is_file()

    content = json.loads((out / "verdict.json").read_text())
    assert [(curve["learner"], curve["verdict"]["word"]) for curve in content["curves"]] == [
        ("toy", "undetermined"),
        ("pca", "undetermined"),
    ]
    assert set(content["failed"]) == {"pca-random-90-s0", "pca-all-180-s0"}
    assert content["curves"][0]["sizes"] == [90, 180]
    assert (out / "curves.png").stat().st_size > 1000
    with (out / "rows.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 5
    assert {row["learner"]: row["status"] for row in rows} == {"toy": "done", "pca": "failed"}
    capsys.readouterr()

    before = {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()}
    (out / "report.md").unlink()
    assert main([*command, "--report"]) == 3
    assert {path: path.stat().st_mtime_ns for path in (out / "rows").iterdir()} == before
    assert capsys.readouterr().out == (out / "report.md").read_text()

    assert main([*command, "margin=0.01"]) == 3, "how a study is judged may change"
    toy = study.with_name("toy.yaml")
    toy.write_text(toy.read_text().replace("steps: 5", "steps: 10"))
    assert main(command) == 2
    assert "holds a row with config" in capsys.readouterr().err


def make(**changes: object) -> StudyConfig:
    settings: dict[str, object] = {"corpus": "corpus", "learners": (LearnerSettings("toy", "toy.yaml"),)}
    return StudyConfig(**(settings | changes))  # type: ignore[arg-type]


def test_the_full_corpus_is_one_run_whatever_the_schemes(study: Path) -> None:
    config = read_config(StudyConfig, study, overrides=["sizes=3", "seeds=2"])
    pool = training_cells(config.corpus)
    assert sizes_of(config, pool) == [45, 90, 180]
    several = read_config(StudyConfig, study, overrides=["schemes=[random, 'spike:0.5:set1']", "sizes=3", "seeds=2"])
    names = [run.name for run in runs_of(several, pool)]
    assert len(set(names)) == len(names) == 2 * (1 + 2 * (2 * 2 + 1))
    assert sum(name.startswith("toy-all-") for name in names) == 2
    poor = read_config(StudyConfig, study, overrides=["schemes=['spike:0.9:set1']", "sizes=2"])
    assert not any("spike" in run.name for run in runs_of(poor, pool)), "60 cells are no nine tenths of 90"
    datasets = read_config(StudyConfig, study, overrides=["axis=datasets"])
    assert sizes_of(datasets, pool) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"learners": ()}, "one or more are needed"),
        ({"learners": (LearnerSettings("a", "a.yaml"), LearnerSettings("a"))}, "a name of its own"),
        ({"seeds": 0}, "1 or more"),
        ({"schemes": ("randm",)}, "Did you mean random"),
        ({"schemes": ("spike:much:set1",)}, "spike:SHARE:DATASET"),
        ({"schemes": ("sketch",), "axis": "datasets"}, "taken at random"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        make(**changes)


def test_steps_that_cannot_be_shared_out_are_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = study.with_name("toy.yaml")
    toy.write_text(toy.read_text().replace("steps: 5", "steps: 7"))
    assert main(["scaling", str(study), "-o", str(study.with_name("out"))]) == 2
    assert "steps = 7: a multiple of 5" in capsys.readouterr().err
    assert not study.with_name("out").exists()

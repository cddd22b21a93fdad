"""Scores of a benchmark go into the model's card, and nothing else of the model changes."""

import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest

from uce.model.checkpoint import load_model
from uce.model.folders import find_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_scores.py"


def test_unseen_sets_alone_count_and_the_model_stays_the_same(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("write_scores", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path / "uce-mini"
    shutil.copytree(find_model("uce-mini"), folder)
    before = load_model(folder).sha256
    values = {("a", "uce-mini"): 0.5, ("a", "pca"): 0.7, ("b", "uce-mini"): 0.4, ("b", "pca"): 0.3}
    lines = [
        {"dataset": d, "seen": "clean", "embedding": e, "kind": "own", "metric": "knn_macro_f1", "value": v}
        for (d, e), v in values.items()
    ]
    lines.append(lines[0] | {"dataset": "seen", "seen": "cell-overlap", "value": 1.0})
    pd.DataFrame(lines).assign(status="ok", better="higher").to_csv(tmp_path / "results.tsv", sep="\t", index=False)
    script.write_scores(tmp_path, folder)
    model = load_model(folder)
    assert model.sha256 == before
    assert model.info["metrics"]["uce-mini"] == "0.450"
    assert model.info["metrics"]["pca"] == "0.500 (uce-mini -0.050, better in 1 of 2 sets)"
    assert "0.450" in (folder / "README.md").read_text()
    for name in ("manifest.json", "cells.npy", "near.npy"):
        kept = (folder / "trained_on" / name).read_bytes()
        assert kept == (find_model("uce-mini") / "trained_on" / name).read_bytes()
    (tmp_path / "results.tsv").write_text((tmp_path / "results.tsv").read_text().replace("clean", "cell-overlap"))
    with pytest.raises(SystemExit, match="not trained on"):
        script.write_scores(tmp_path, folder)

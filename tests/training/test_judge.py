"""The script that judges the bundled model: its scores are the usual ones, and no cell votes on itself."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from uce.genes.tables import write_table
from uce.training.corpus import special_vectors

from .conftest import WIDTH, planted_cells, planted_counts, planted_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "judge_uce_mini.py"


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("judge_uce_mini", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _task(judge: ModuleType, cells: int = 200) -> tuple[object, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.choice(["a", "b", "c"], cells, p=[0.6, 0.3, 0.1])
    vectors = random.normal(size=(cells, 5)) + np.equal.outer(labels, ["a", "b", "c", "d", "e"])
    data = SimpleNamespace(species="homo_sapiens", name="toy")
    return judge.Task(data, labels, judge._stratified_folds(labels), "cells"), vectors


def test_a_file_becomes_a_task_of_its_labelled_cells(judge: ModuleType, uce_home: Path, tmp_path: Path) -> None:
    (uce_home / "genes" / "planted").mkdir(parents=True)
    write_table(planted_table(), uce_home / "genes" / "planted" / "homo_sapiens.h5ad")
    cells = planted_cells(80)
    cells.obs["cell_type"] = np.where(np.arange(80) < 10, "unassigned", cells.obs["cell_type"])
    cells[:, ::-1].copy().write_h5ad(tmp_path / "toy.h5ad")
    model = SimpleNamespace(gene_encoder="planted", specials=special_vectors(WIDTH), chromosome_vectors=None)
    row = {"dataset": "toy", "file": "toy.h5ad", "species": "human"}
    task = judge._read_task(row, SimpleNamespace(data=tmp_path, most_cells=1000), model)
    assert task.labels.tolist() == cells.obs["cell_type"].tolist()[10:]
    by_row = task.data.counts[:, task.data.vocabulary.ranks].toarray()
    assert np.array_equal(by_row, planted_counts(80)[0].toarray()[10:])
    assert task.split == "cells"
    for label in set(task.labels):
        assert np.ptp(np.bincount(task.folds[task.labels == label], minlength=5)) <= 1


def test_macro_f1_is_that_of_scikit_learn_also_where_cells_are_drawn_twice(judge: ModuleType) -> None:
    random = np.random.default_rng(1)
    labels, voted = random.choice(["a", "b", "c"], (2, 100))
    weights = random.integers(0, 3, 100)
    expected = f1_score(labels, voted, average="macro", sample_weight=weights)
    assert judge.macro_f1(labels, voted, weights.astype(float)) == pytest.approx(expected)


def test_votes_are_those_of_scikit_learn_fold_by_fold(judge: ModuleType) -> None:
    task, vectors = _task(judge)
    voted = judge.vote(vectors, task)
    agreed = []
    for fold in range(5):
        test = task.folds == fold
        neighbours = KNeighborsClassifier(15, metric="cosine").fit(vectors[~test], task.labels[~test])
        agreed.append((neighbours.predict(vectors[test]) == voted[test]).mean())
    assert np.mean(agreed) > 0.95  # ties are broken in another way


def test_labels_without_a_relation_to_the_vectors_score_like_guessing(judge: ModuleType) -> None:
    task, vectors = _task(judge, cells=900)
    shuffled = np.random.default_rng(2).permutation(vectors)
    score = judge.macro_f1(task.labels, judge.vote(shuffled, task), np.ones(900))
    assert score < 0.4
    assert judge.macro_f1(task.labels, judge.vote(vectors, task), np.ones(900)) > score + 0.1


def test_the_difference_is_drawn_in_pairs(judge: ModuleType) -> None:
    task, vectors = _task(judge)
    votes = {"toy": judge.vote(vectors, task)}
    result = judge.compare([task], {"trained": votes, "untrained 0": votes, "untrained 1": votes})
    row = result["summary"]["untrained"]
    assert row["trained_minus_this"] == [0.0, 0.0, 0.0]
    assert row["mean"][1] < row["mean"][0] < row["mean"][2]
    assert len(row["copies"]) == 2

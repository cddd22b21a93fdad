"""Pieces of an evaluation come back as they were, under the same plan alone."""

from pathlib import Path

import numpy as np

from uce.evaluation.results import NAN, Findings, Score
from uce.evaluation.saving import Pieces


def _findings() -> Findings:
    scores = (Score("a", 0.5, "bio", 0.4, 0.6), Score("b", NAN, "batch", status="undefined", note="one batch"))
    predictions = {"cell": np.array(["c1", "zwei ü"], dtype=object), "fold": np.array([0, 1])}
    return Findings(scores, {"labels": [{"label": "T", "share": 0.25}], "empty": []}, predictions)


def test_findings_come_back_equal_and_are_not_made_again(tmp_path: Path) -> None:
    made = []

    def make() -> Findings:
        made.append(1)
        return _findings()

    plan = {"seed": 0}
    first = Pieces(tmp_path, plan).findings("x", make)
    again = Pieces(tmp_path, plan).findings("x", make)
    assert len(made) == 1
    assert repr(again.scores) == repr(first.scores)
    assert again.details == first.details
    assert list(again.predictions["cell"]) == ["c1", "zwei ü"]
    assert again.predictions["cell"].dtype.kind == "U"
    np.testing.assert_array_equal(again.predictions["fold"], [0, 1])
    Pieces(tmp_path, {"seed": 1}).findings("x", make)
    assert len(made) == 2


def test_a_failure_is_tried_again(tmp_path: Path) -> None:
    tries = []

    def make() -> Findings:
        tries.append(1)
        return Findings((Score("a", NAN, "bio", status="failed", note="MemoryError"),))

    for _ in range(2):
        Pieces(tmp_path, {}).findings("x", make)
    assert len(tries) == 2


def test_vectors_come_back_and_nothing_is_left_when_dropped(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    Pieces(tmp_path, {}).vectors("v", lambda: vectors)
    pieces = Pieces(tmp_path, {})
    np.testing.assert_array_equal(pieces.vectors("v", lambda: vectors + 1), vectors)
    pieces.drop()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_everything_is_made() -> None:
    pieces = Pieces(None, {})
    assert pieces.findings("x", _findings).scores[0].value == 0.5
    pieces.drop()

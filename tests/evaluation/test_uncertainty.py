"""Intervals that cover the truth as often as they say, and what is called better."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.evaluation.scores import classification_scores
from uce.evaluation.uncertainty import compare, holm, interval_of_f1, interval_of_mean

RUNS = 300


def _covered(n_groups: int, by_cell: bool = False) -> float:
    """How often the interval covers 0, for cells whose donors differ by 1 and cells by 1."""
    rng, covered = np.random.default_rng(n_groups), 0
    groups = np.repeat(np.arange(n_groups), 20)
    units = (np.arange(len(groups)) if by_cell else groups).astype(str)
    for run in range(RUNS):
        values = rng.standard_normal(n_groups)[groups] + rng.standard_normal(len(groups))
        found = interval_of_mean(values, units, draws=400, seed=run)
        covered += found.low <= 0 <= found.high
    return covered / RUNS


@pytest.mark.parametrize("n_groups", [8, 30])
def test_intervals_by_group_cover_the_truth_in_95_of_100_cases(n_groups: int) -> None:
    assert _covered(n_groups) == pytest.approx(0.95, abs=2.5 * np.sqrt(0.95 * 0.05 / RUNS))


def test_intervals_over_cells_would_not() -> None:
    assert _covered(8, by_cell=True) < 0.6


def test_the_interval_of_f1_is_that_of_scikit_learns_f1_on_redrawn_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(10, size=400).astype(str)
    true = rng.choice(["a", "b", "c"], size=400)
    said = np.where(rng.random(400) < 0.7, true, rng.choice(["a", "b", "d"], size=400))
    found = interval_of_f1(true, said, groups, draws=2000)
    names = np.unique(groups)
    plain = []
    for _ in range(200):
        rows = np.concatenate([np.flatnonzero(groups == name) for name in rng.choice(names, 10)])
        plain.append(classification_scores(true[rows], said[rows])["macro_f1"])
    middle = np.quantile(plain, [0.025, 0.975])
    # Theirs are plain percentiles, which lie inside.
    assert found.low == pytest.approx(middle[0], abs=0.03)
    assert found.high == pytest.approx(middle[1], abs=0.03)
    assert found.high - found.low > middle[1] - middle[0]
    for name in names:
        rows = groups == name
        assert found.groups[name] == pytest.approx(classification_scores(true[rows], said[rows])["macro_f1"])


def test_five_groups_give_their_values_and_no_interval() -> None:
    found = interval_of_mean(np.asarray([1.0, 2, 3, 4, 5, np.nan]), np.asarray(list("abcdee")))
    assert np.isnan([found.low, found.high]).all()
    assert found.groups == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert "six groups are needed" in found.note


def _predictions(right: float, n_groups: int, seed: int, n: int = 1200) -> dict[str, np.ndarray]:
    label = np.asarray(["a", "b", "c", "d"])[np.arange(n) % 4]
    rng = np.random.default_rng(seed)
    return {
        "cell": np.asarray([f"cell {i}" for i in range(n)], dtype=object),
        "group": (np.arange(n) // 4 % n_groups).astype(str),
        "label": label,
        "knn_label": np.where(rng.random(n) < right, label, "a"),
    }


def test_better_worse_and_tie() -> None:
    rows = {
        "mine": _predictions(0.8, 10, 0),
        "good": _predictions(0.95, 10, 1),
        "poor": _predictions(0.6, 10, 2),
        "alike": _predictions(0.8, 10, 3),
    }
    found = {line["other"]: line for line in compare(rows, "mine")}
    assert {name: line["verdict"] for name, line in found.items()} == {
        "good": "worse",
        "poor": "better",
        "alike": "tie",
    }
    f1 = {n: classification_scores(c["label"], c["knn_label"])["macro_f1"] for n, c in rows.items()}
    for name, line in found.items():
        assert line["difference"] == pytest.approx(f1["mine"] - f1[name])
        assert line["low"] <= line["median"] <= line["high"]
        assert line["p_holm"] >= line["p"]
        assert (line["n_groups"], line["by"], line["n_cells"]) == (10, "group", 1200)
    assert found["poor"]["share_above"] == 1
    (floored,) = [line for line in compare(rows, "mine", noise_floor=0.5) if line["other"] == "poor"]
    assert floored["verdict"] == "tie"


def test_few_groups_cannot_make_one_better() -> None:
    rows = {"mine": _predictions(0.95, 5, 0), "poor": _predictions(0.4, 5, 1)}
    (line,) = compare(rows, "mine")
    assert line["low"] > 0.3
    assert (line["by"], line["verdict"]) == ("cell", "tie")
    assert np.isnan(line["p"])
    assert "over cells" in line["note"]
    assert set(line["groups"]) == set("01234")


def test_only_cells_that_both_were_judged_on_count_in_any_order() -> None:
    mine, others = _predictions(0.8, 10, 0), _predictions(0.6, 10, 1)
    order = np.random.default_rng(0).permutation(1200)
    (whole,) = compare({"mine": mine, "other": others}, "mine")
    (mixed,) = compare({"mine": mine, "other": {k: v[order] for k, v in others.items()}}, "mine")
    assert mixed == whole
    (part,) = compare({"mine": mine, "other": {k: v[:600] for k, v in others.items()}}, "mine")
    assert part["n_cells"] == 600
    (none,) = compare({"mine": mine, "other": {k: v[:0] for k, v in others.items()}}, "mine")
    assert (none["verdict"], none["note"]) == ("tie", "no cell was judged on both")


def test_equal_predictions_are_a_tie_with_no_width() -> None:
    (line,) = compare({"mine": _predictions(0.8, 10, 0), "same": _predictions(0.8, 10, 0)}, "mine")
    assert (line["low"], line["difference"], line["high"], line["verdict"]) == (0, 0, 0, "tie")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(p <= c <= 1 for p, c in zip(values, corrected, strict=True))
    assert min(corrected) == pytest.approx(min(1, min(values) * len(values)))
    ranked = [c for _, c in sorted(zip(values, corrected, strict=True))]
    assert ranked == sorted(ranked)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, float("nan"), 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert np.isnan(holm([0.01, float("nan")])[1])

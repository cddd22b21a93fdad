"""Means, ranks and differences over data sets, with planted winners."""

import numpy as np
import pandas as pd
import pytest

from uce.evaluation.combine import interval_of_sets, signed_rank, standings


def _scores(
    values: dict[str, list[float]], *, better: str = "higher", kinds: dict[str, str] | None = None
) -> pd.DataFrame:
    rows = [
        {
            "dataset": f"set{number}",
            "embedding": name,
            "kind": (kinds or {}).get(name, "baseline"),
            "metric": "f1",
            "value": value,
            "status": "failed" if np.isnan(value) else "ok",
            "better": better,
        }
        for name, row in values.items()
        for number, value in enumerate(row)
    ]
    return pd.DataFrame(rows)


def test_the_better_row_is_first_and_the_difference_says_by_how_much() -> None:
    base = np.linspace(0.3, 0.8, 8)
    rows = standings(_scores({"ours": list(base + 0.1), "pca": list(base)}), "f1", "ours")
    assert [row.embedding for row in rows] == ["ours", "pca"]
    pca = rows[1]
    assert pca.difference == pytest.approx(0.1)
    assert (pca.wins, pca.ties, pca.losses) == (8, 0, 0)
    assert pca.difference_low == pytest.approx(0.1)  # the same in every set, however far the sets are apart
    assert rows[0].high - rows[0].low > 0.1
    assert pca.rank == 2
    assert pca.p < 0.05


def test_lower_is_better_where_it_is() -> None:
    rows = standings(_scores({"ours": [0.3] * 6, "pca": [0.1] * 6}, better="lower"), "f1", "ours")
    assert [row.embedding for row in rows] == ["pca", "ours"]
    assert rows[0].difference == pytest.approx(-0.2)
    assert rows[0].losses == 6


def test_a_row_that_failed_in_a_set_is_compared_on_the_others_only() -> None:
    rows = {r.embedding: r for r in standings(_scores({"a": [0.9, 0.1], "b": [0.8, float("nan")]}), "f1", "a")}
    assert rows["b"].n_sets == 1
    assert rows["b"].difference == pytest.approx(0.1)
    assert rows["a"].mean == pytest.approx(0.5)


def test_controls_are_not_ranked() -> None:
    scores = _scores({"oracle": [1.0] * 3, "ours": [0.5] * 3}, kinds={"oracle": "control"})
    rows = {row.embedding: row for row in standings(scores, "f1", "ours")}
    assert rows["ours"].rank == 1
    assert np.isnan(rows["oracle"].rank)


def test_few_sets_have_no_interval_and_no_p() -> None:
    assert np.isnan(interval_of_sets(np.arange(5.0))).all()
    assert np.isnan(signed_rank(np.arange(1.0, 6.0)))
    assert signed_rank(np.arange(1.0, 9.0)) < 0.01


@pytest.mark.parametrize("sets", [7, 30])
def test_intervals_over_sets_cover_the_truth(sets: int) -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        low, high = interval_of_sets(random.normal(0.2, 0.1, sets), seed=seed)
        covered += low <= 0.2 <= high
    assert 0.92 <= covered / 300 <= 0.98

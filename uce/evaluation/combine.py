"""Many evaluations as one: means, ranks and paired differences over data sets, which are the units here."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uce.evaluation.results import NAN
from uce.evaluation.uncertainty import holm, interval_of_mean

LEAST_SETS = 6
_DRAWS = 2000


@dataclass(frozen=True)
class Standing:
    """How one row does in one metric over data sets.

    Attributes
    ----------
    embedding, kind, metric, better
        Which.
    n_sets
        Data sets in which it has the number.
    mean, low, high
        Its mean over these, with the 95 % interval when data sets are drawn anew; no interval below six sets.
    rank
        Mean rank among the rows that have the number in a data set, 1 is best; controls are not ranked.
    difference, difference_low, difference_high
        Mean of the first row minus this one over the sets that both have; positive where the first row is better.
    wins, ties, losses
        Of the first row against this one; a tie is a difference below .005.
    p
        Wilcoxon's signed rank test of these differences, two-sided, Holm-corrected over the rows; NaN below six sets.
    """

    embedding: str
    kind: str
    metric: str
    better: str
    n_sets: int
    mean: float
    low: float = NAN
    high: float = NAN
    rank: float = NAN
    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    wins: int = 0
    ties: int = 0
    losses: int = 0
    p: float = NAN


def standings(scores: pd.DataFrame, metric: str, first: str, *, seed: int = 0) -> list[Standing]:
    """How every row does in `metric`, best mean first.

    Parameters
    ----------
    scores
        Columns dataset, embedding, kind, metric, value, status, better; one line per number.
    first
        The row that the others are compared with.
    """
    chosen = scores[(scores["metric"] == metric) & (scores["status"] == "ok")]
    if chosen.empty:
        return []
    wide = chosen.pivot_table(index="dataset", columns="embedding", values="value")
    kinds = dict(zip(chosen["embedding"], chosen["kind"], strict=True))
    better = str(chosen["better"].iloc[0])
    sign = -1.0 if better == "lower" else 1.0
    ranked = wide[[name for name in wide if kinds[name] != "control"]]
    ranks = (sign * ranked).rank(axis=1, ascending=False).mean()
    found: list[dict[str, Any]] = [
        _standing(wide, str(name), first, sign, seed)
        | {"kind": str(kinds[name]), "metric": metric, "better": better, "rank": float(ranks.get(name, NAN))}
        for name in wide
    ]
    corrected = holm([row["p"] for row in found])
    rows = [Standing(**{**row, "p": p}) for row, p in zip(found, corrected, strict=True)]
    return sorted(rows, key=lambda row: -sign * row.mean)


def _standing(wide: pd.DataFrame, name: str, first: str, sign: float, seed: int) -> dict[str, Any]:
    values = wide[name].dropna().to_numpy(float)
    low, high = interval_of_sets(values, seed=seed)
    row: dict[str, Any] = {
        "embedding": name,
        "n_sets": len(values),
        "mean": float(values.mean()),
        "low": low,
        "high": high,
    }
    row["p"] = NAN
    if name == first or first not in wide:
        return row
    difference = (sign * (wide[first] - wide[name])).dropna().to_numpy(float)
    if not len(difference):
        return row
    low, high = interval_of_sets(difference, seed=seed)
    return row | {
        "difference": float(difference.mean()),
        "difference_low": low,
        "difference_high": high,
        "wins": int((difference >= 0.005).sum()),
        "losses": int((difference <= -0.005).sum()),
        "ties": int((np.abs(difference) < 0.005).sum()),
        "p": signed_rank(difference),
    }


def interval_of_sets(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean when data sets are drawn anew, see `uncertainty`; NaN below six."""
    found = interval_of_mean(values, np.arange(len(values)).astype(str), draws=_DRAWS, seed=seed)
    return found.low, found.high


def signed_rank(differences: NDArray[np.float64]) -> float:
    """P of Wilcoxon's signed rank test, two-sided; NaN below six differences that are not 0."""
    from scipy.stats import wilcoxon

    told = differences[differences != 0]
    return float(wilcoxon(told).pvalue) if len(told) >= LEAST_SETS else NAN

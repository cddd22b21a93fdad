"""How far a number would move with other donors: intervals by resampled groups, and what may be called better.

Cells are no replicates: those of one donor are alike. Whole groups are drawn with replacement, and what was stored for
their cells is added up again; nothing is fitted again. Percentiles of so few groups are too narrow, so they are taken
further out: at the normal quantiles of t x sqrt(n / (n - 1)) (Hesterberg 2015, "expanded percentiles").
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.cells import Texts
from uce.evaluation.results import NAN

Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]
Statistic = Callable[[Numbers], Numbers]
LEAST_GROUPS = 6


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or why there is none.

    Attributes
    ----------
    low, high
        NaN where there is none.
    groups
        group -> its own value.
    note
        What was resampled, or why nothing was.
    """

    low: float = NAN
    high: float = NAN
    groups: dict[str, float] = field(default_factory=dict)
    note: str = ""


def bootstrap(
    sums: Numbers, statistic: Statistic, *, times: NDArray[np.int64] | None = None, draws: int = 1000, seed: int = 0
) -> Numbers:
    """(draws,) the statistic of groups drawn with replacement.

    Parameters
    ----------
    sums
        (groups, ...) what adds up over the cells of a group: a sum and a count, say.
    statistic
        (draws, ...) added up -> (draws,) numbers.
    times
        (groups,) how often each stands in the data; once if None.
    """
    times = np.ones(len(sums), np.int64) if times is None else times
    n = int(times.sum())
    drawn = np.random.default_rng(seed).multinomial(n, times / n, size=draws).astype(np.float64)
    return statistic(np.tensordot(drawn, sums, axes=1))


def interval(sums: Numbers, names: Texts, statistic: Statistic, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Interval of a statistic of what adds up over groups; none with fewer than six of them.

    Parameters
    ----------
    sums
        (groups, ...), see `bootstrap`.
    names
        (groups,).
    """
    own = dict(zip(names.tolist(), statistic(sums).tolist(), strict=True))
    if len(names) < LEAST_GROUPS:
        values = ", ".join(f"{name} {value:.3f}" for name, value in own.items())
        return Interval(groups=own, note=f"no interval: six groups are needed, these are {len(names)} ({values})")
    low, high = _quantiles(bootstrap(sums, statistic, draws=draws, seed=seed), len(names))
    return Interval(low, high, own, f"interval from {len(names)} resampled groups")


def interval_of_mean(values: Numbers, groups: Texts, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Interval of the mean of per-cell values (cells,), by groups (cells,); NaN values are left out."""
    known = np.isfinite(values)
    names, codes = np.unique(groups[known], return_inverse=True)
    sums = np.stack([np.bincount(codes, values[known]), np.bincount(codes)], axis=1).astype(np.float64)
    return interval(sums, names, lambda total: total[..., 0] / total[..., 1], draws=draws, seed=seed)


def interval_of_f1(true: Texts, predicted: Texts, groups: Texts, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Interval of the macro-F1 of predictions (cells,), by groups (cells,)."""
    names, codes = np.unique(groups, return_inverse=True)
    return interval(_f1_sums(true, [predicted], codes)[:, 0], names, macro_f1, draws=draws, seed=seed)


def macro_f1(sums: Numbers) -> Numbers:
    """(..., 3, labels) cells rightly given a label, of the label, and given it -> (...) mean F1 of the labels there."""
    right, true, given = np.moveaxis(sums, -2, 0)
    f1 = 2 * right / np.maximum(true + given, 1)
    return np.asarray((f1 * (true > 0)).sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1))


def _f1_sums(true: Texts, predictions: Sequence[Texts], units: Codes) -> Numbers:
    """(units, predictions, 3, labels) what `macro_f1` needs."""
    labels = np.unique(np.concatenate([true, *predictions]))
    sums = np.zeros((int(units.max()) + 1, len(predictions), 3, len(labels)))
    codes = np.searchsorted(labels, true)
    for place, predicted in enumerate(predictions):
        given, right = np.searchsorted(labels, predicted), true == predicted
        np.add.at(sums[:, place, 0], (units[right], codes[right]), 1)
        np.add.at(sums[:, place, 1], (units, codes), 1)
        np.add.at(sums[:, place, 2], (units, given), 1)
    return sums


def _widening(n: int) -> float:
    return float(np.sqrt(n / (n - 1)))


def _quantiles(values: Numbers, n_groups: int) -> tuple[float, float]:
    from scipy.stats import norm, t

    outside = norm.cdf(_widening(n_groups) * t.ppf(0.025, n_groups - 1))
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)


def _p_value(difference: float, drawn: Numbers, n_groups: int) -> float:
    """Two-sided, of no difference: Student's t of the difference over the spread of the draws.

    Counting the draws beyond 0 could not tell a small p from a smaller one, and no p of few groups would outlive the
    correction for many rows.
    """
    from scipy.stats import t

    spread = float(drawn.std()) * _widening(n_groups)
    if not spread:
        return float(difference == 0)
    return float(2 * t.sf(abs(difference) / spread, n_groups - 1))


def compare(
    predictions: Mapping[str, Columns],
    first: str,
    *,
    probe: str = "knn",
    noise_floor: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Any], ...]:
    """Paired differences in macro-F1 between the embedding `first` and each other, on cells that both were judged on.

    The same groups are drawn for both. With fewer than six groups the interval is over cells, says so, and supports no
    verdict: it would be too narrow. p is corrected for the number of others (Holm 1979).

    Parameters
    ----------
    predictions
        embedding -> columns of the transfer task: `cell`, `group`, `label`, `<probe>_label`.
    noise_floor
        A smaller difference is a tie, however sure.

    Returns
    -------
    One dict per other embedding: `metric`, `first`, `other`, `difference`, `median`, `low`, `high`, `share_above` (of
    draws above 0), `p`, `p_holm`, `n_cells`, `n_groups`, `by` (`group` or `cell`), `verdict` (`better`, `worse`,
    `tie`), `note`, `groups` (group -> its own difference).
    """
    lines = [
        {"metric": f"{probe}_macro_f1", "first": first, "other": other}
        | _paired(predictions[first], predictions[other], f"{probe}_label", draws, seed)
        for other in predictions
        if other != first
    ]
    corrected = holm([line["p"] for line in lines])
    return tuple(
        line | {"p_holm": p, "verdict": _verdict(line, p, noise_floor)}
        for line, p in zip(lines, corrected, strict=True)
    )


def _paired(mine: Columns, others: Columns, column: str, draws: int, seed: int) -> dict[str, Any]:
    _, here, there = np.intersect1d(mine["cell"].astype(str), others["cell"].astype(str), return_indices=True)
    if not len(here):
        return _nothing("no cell was judged on both")
    true, groups = mine["label"][here], mine["group"][here]
    guesses = [mine[column][here], others[column][there]]
    names, units = np.unique(groups, return_inverse=True)
    sums = _f1_sums(true, guesses, units)
    own = dict(zip(names.tolist(), _difference(sums).tolist(), strict=True))
    by, note, times = "group", f"{len(names)} groups resampled", np.ones(len(names), np.int64)
    if len(names) < LEAST_GROUPS:
        # Cells with the same label and the same two guesses are the same to a draw.
        _, kind, times = np.unique(np.stack([true, *guesses]), axis=1, return_inverse=True, return_counts=True)
        sums = _f1_sums(true, guesses, kind) / times[:, None, None, None]
        by, note = "cell", f"{len(names)} groups are too few: the interval is over cells, too narrow to call one better"
    drawn = bootstrap(sums, _difference, times=times, draws=draws, seed=seed)
    low, high = _quantiles(drawn, int(times.sum())) if len(here) > 1 else (NAN, NAN)
    difference = float(_difference(np.tensordot(times.astype(float), sums, axes=1)))
    return {
        "difference": difference,
        "median": float(np.median(drawn)),
        "low": low,
        "high": high,
        "share_above": float((drawn > 0).mean()),
        "p": _p_value(difference, drawn, len(names)) if by == "group" else NAN,
        "n_cells": len(here),
        "n_groups": len(names),
        "by": by,
        "note": note,
        "groups": own,
    }


def _nothing(note: str) -> dict[str, Any]:
    missing = dict.fromkeys(("difference", "median", "low", "high", "share_above", "p"), NAN)
    return {**missing, "n_cells": 0, "n_groups": 0, "by": "group", "note": note, "groups": {}}


def _difference(sums: Numbers) -> Numbers:
    f1 = macro_f1(sums)
    return np.asarray(f1[..., 0] - f1[..., 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN values stay and do not count."""
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), NAN)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def _verdict(line: Mapping[str, Any], p: float, noise_floor: float) -> str:
    sure = line["by"] == "group" and p < 0.05 and (line["low"] > 0 or line["high"] < 0)
    if not sure or abs(line["difference"]) <= noise_floor:
        return "tie"
    return "better" if line["difference"] > 0 else "worse"

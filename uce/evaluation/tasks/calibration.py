"""Is the confidence of a label true? Before and after calibration, both on cells of held-out groups."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.evaluation.calibration import (
    brier,
    classwise_ece,
    coverage_area,
    coverage_at,
    coverage_curve,
    ece,
    log_loss,
    reliability,
)
from uce.evaluation.context import Context
from uce.evaluation.embeddings import Embedding
from uce.evaluation.held_out import HeldOut, held_out_of
from uce.evaluation.results import NAN, Better, Family, Findings, Score

_PROBES = ("knn", "logistic")
_MEASURES = ("ece", "ece_mass", "classwise_ece", "brier", "log_loss")
_NAMES = (
    *(f"{probe}_{measure}{after}" for probe in _PROBES for measure in _MEASURES for after in ("", "_calibrated")),
    "coverage_at_95",
    "logistic_coverage_at_95",
    "coverage_area",
)
METRICS: tuple[tuple[str, Family], ...] = tuple((name, "calibration") for name in _NAMES)
_POINTS = 200
_NO_INNER = "training cells have no second group to calibrate on: three groups or more are needed"


def run(context: Context, embedding: Embedding) -> Findings:
    """Judge the confidence of k-NN and logistic labels.

    The curve (k-NN: isotonic) and the temperature (logistic) are fitted on training groups that are held out within
    each fold, and judged on the groups that the fold holds out. Coverage is of the calibrated k-NN confidence.

    Raises
    ------
    NotPossible
        There is one label, or no group can be held out.
    """
    held = held_out_of(context, embedding)
    values: dict[str, float] = {}
    details: dict[str, Any] = {}
    for probe in _PROBES:
        correct = held.predicted(probe) == held.labels
        stages = {"before": held.votes[probe]}
        if probe in held.calibrated:
            stages["after"] = held.calibrated[probe]
        details[probe] = {}
        for stage, shares in stages.items():
            confidence = held.confidence(probe, calibrated=stage == "after")
            ending = "_calibrated" if stage == "after" else ""
            measured = _measured(shares, confidence, correct, np.searchsorted(held.classes, held.labels))
            values |= {f"{probe}_{name}{ending}": value for name, value in measured.items()}
            details[probe] |= {stage: {"bins": reliability(confidence, correct)}, **_coverage(confidence, correct)}
    values["coverage_at_95"] = details["knn"]["coverage_at_95"]
    values["logistic_coverage_at_95"] = details["logistic"]["coverage_at_95"]
    confidence = held.confidence("knn", calibrated="knn" in held.calibrated)
    values["coverage_area"] = coverage_area(confidence, held.predicted("knn") == held.labels)
    return Findings(tuple(_scores(held, values)), details)


def _measured(
    shares: NDArray[np.float64],
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    codes: NDArray[np.int64],
) -> dict[str, float]:
    return {
        "ece": ece(confidence, correct),
        "ece_mass": ece(confidence, correct, equal="mass"),
        "classwise_ece": classwise_ece(shares, codes),
        "brier": brier(shares, codes),
        "log_loss": log_loss(shares, codes),
    }


def _coverage(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> dict[str, Any]:
    coverage, accuracy = coverage_curve(confidence, correct)
    kept = np.unique(np.linspace(0, len(coverage) - 1, _POINTS).round().astype(int))
    return {
        "coverage": [{"coverage": float(coverage[i]), "accuracy": float(accuracy[i])} for i in kept],
        "coverage_at_95": coverage_at(confidence, correct),
    }


def _scores(held: HeldOut, values: dict[str, float]) -> Iterator[Score]:
    n_groups, mark = len(np.unique(held.split.units[held.rows])), held.split.mark
    for name in _NAMES:
        better: Better = "higher" if "coverage" in name else "lower"
        score = Score(
            name,
            values.get(name, NAN),
            "calibration",
            better=better,
            note=mark,
            n_cells=len(held.rows),
            n_groups=n_groups,
            n_labels=len(np.unique(held.labels)),
            headline=name == "knn_ece_calibrated",
        )
        yield score if name in values else replace(score, status="skipped", note=_NO_INNER)

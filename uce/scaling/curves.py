"""The curves of a study, put together from its rows, each with its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uce.grid import DONE
from uce.scaling.fits import Floats
from uce.scaling.saturation import corrected_point, published_point
from uce.scaling.settings import UNTRAINED, WHOLE, Run, StudyConfig
from uce.scaling.verdicts import Verdict, judge


@dataclass(frozen=True)
class Curve:
    """A learner on growing subsets of one scheme.

    Attributes
    ----------
    sizes
        (K,) cells or datasets, rising.
    scores
        (seeds, K) macro-F1, the mean over validation datasets; NaN where a run is missing.
    untrained
        (seeds,) of the encoder before training; NaN where there is none.
    chance
        Of a guess; 0 where that was not measured.
    last_fifth
        By how much the score of the largest size rose in the last fifth of the updates, the mean over seeds. None where
        there are no updates.
    cut_off
        It rose by the margin of the study or more: a run that was cut off in its rise says less of its data.
    verdict, corrected, published
        What is said of it, and both saturation points.
    """

    learner: str
    scheme: str
    sizes: Floats
    scores: Floats
    untrained: Floats
    chance: float
    last_fifth: float | None
    cut_off: bool
    verdict: Verdict
    corrected: float | None
    published: float

    @property
    def missing(self) -> int:
        """Runs without a score."""
        return int(np.isnan(self.scores).sum())

    @property
    def said(self) -> str:
        """The verdict, with what must be said beside it."""
        return self.verdict.told + (", cut off in its rise" if self.cut_off else "")


def reference_means(records: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float]:
    """Means over datasets of the scores that no size changes, by what they are of; empty until they are there."""
    record = records.get(name, {})
    values = record.get("values", {}) if record.get("status") == DONE else {}
    return {what: float(np.mean(list(scores.values()))) for what, scores in values.items()}


def curves_of(
    study: StudyConfig, runs: Sequence[Run], records: Mapping[str, Mapping[str, Any]], *, chance: float
) -> list[Curve]:
    """A curve for each learner and scheme, in their order in the study."""
    of = {learner.name: [run for run in runs if run.learner == learner] for learner in study.learners}
    return [_curve(study, scheme, own, records, chance=chance) for own in of.values() for scheme in study.schemes]


def _curve(
    study: StudyConfig,
    scheme: str,
    own: Sequence[Run],
    records: Mapping[str, Mapping[str, Any]],
    *,
    chance: float,
) -> Curve:
    """The curve of one learner, of which all runs are given."""
    points = [run for run in own if run.scheme in (scheme, WHOLE)]
    sizes = np.array(sorted({run.size for run in points}), dtype=np.float64)
    done = {run.name: records[run.name]["values"]["f1"] for run in own if _is_done(records, run)}
    units = sorted({name for scores in done.values() for name in scores})
    table = np.full((study.seeds, len(sizes), max(len(units), 1)), np.nan)
    for run in points:
        if run.name in done:
            scores = done[run.name]
            table[run.seed, np.searchsorted(sizes, run.size)] = [scores.get(name, np.nan) for name in units]
    means = table.mean(axis=-1)
    start = [run for run in own if run.scheme == UNTRAINED and run.name in done]
    untrained = np.array([np.mean(list(done[run.name].values())) for run in start])
    floor = max([chance, float(untrained.mean()) if len(untrained) else chance])
    verdict = judge(sizes, means, floor=floor, units=table, margin=study.margin)
    rises = [
        records[run.name]["values"].get("last_fifth") for run in points if run.size == sizes[-1] and run.name in done
    ]
    known = [rise for rise in rises if rise is not None]
    last_fifth = float(np.mean(known)) if known else None
    return Curve(
        learner=own[0].learner.name,
        scheme=scheme,
        sizes=sizes,
        scores=means,
        untrained=untrained,
        chance=chance,
        last_fifth=last_fifth,
        cut_off=last_fifth is not None and last_fifth >= study.margin,
        verdict=verdict,
        corrected=corrected_point(sizes, means, verdict, floor=floor),
        published=published_point(sizes, means),
    )


def _is_done(records: Mapping[str, Mapping[str, Any]], run: Run) -> bool:
    return run.name in records and records[run.name]["status"] == DONE

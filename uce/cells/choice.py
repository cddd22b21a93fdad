"""Choosing the matrix that holds the counts, in a fixed order, with a reason for every one that does not."""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from uce.cells.count_test import Evidence, canonical, gather_evidence, sample_ranges, value_warnings
from uce.cells.layouts import CompressedRows, PickedRows, Rows, SelectedColumns
from uce.cells.log_counts import BASES, LogScale, total_scales, undo_log
from uce.cells.slots import Source
from uce.cells.stores import GuardedRows, reading
from uce.errors import InputError, UsageError
from uce.files import nearest, shorten

Treatment = Literal["whole", "undo", "round", "as-is"]
COUNT_LAYERS = (
    "counts", "raw_counts", "raw", "count", "umi", "umis", "soupx_counts", "decontxcounts", "x_counts",
    "spliced+unspliced",
)  # fmt: skip
TOTAL_COLUMNS = ("n_counts", "total_counts", "nCount_RNA", "n_umi", "nUMI", "sum")
ACCEPTED = 0.999  # share of sampled cells that must come back exactly


@dataclass(frozen=True)
class Choice:
    """The chosen slot and how its values become counts."""

    slot: str
    rows: Rows
    treatment: Treatment
    scale: LogScale | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trial:
    """A candidate with what its sample showed."""

    slot: str
    rows: Rows
    evidence: Evidence


def choose(source: Source, *, layer: str | None, policy: str) -> Choice:
    """The first candidate with whole counts, else the first that can be made into counts under the policy.

    Raises
    ------
    InputError
        None can; every candidate is listed with the reason.
    """
    names = candidates(source, layer)
    if not names:
        others = [name for name in source.slots if name.startswith("layers/")]
        hint = f" Its layers are {shorten(others)}; name one with --layer." if others else ""
        msg = f"{source.file}: no matrix that could hold counts (no X, no raw, no layer of counts).{hint}"
        raise InputError(msg)
    trials: dict[str, Trial] = {}
    reasons: dict[str, str] = {}
    for name in names:
        trial = _trial(source, name)
        trials[name] = trial
        found = _whole(source, trial, policy)
        if isinstance(found, Choice):
            return _with_reasons(found, reasons)
        reasons[name] = found
    if policy != "strict":
        for name, trial in trials.items():
            if trial.evidence.finding not in ("log", "fractional"):
                continue
            found = _made_whole(source, trial, policy)
            if isinstance(found, Choice):
                return _with_reasons(found, {k: v for k, v in reasons.items() if k != name})
            reasons[name] = found
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    msg = f"{source.file}: no raw counts found. {listed}. Give the raw counts, in layers['counts'] or raw or X."
    raise InputError(msg)


def _with_reasons(choice: Choice, reasons: dict[str, str]) -> Choice:
    passed_over = [f"{name} passed over: {reason}." for name, reason in reasons.items()]
    return replace(choice, notes=[*choice.notes, *passed_over])


def candidates(source: Source, layer: str | None) -> list[str]:
    """Slot names in the order they are tried: layers by name, raw, X; or the one that was asked for."""
    if layer is not None:
        wanted = layer if layer in ("X", "raw") else f"layers/{layer}"
        if source.kind.startswith("10x"):
            msg = f"{source.file}: a 10x file has one matrix and no layers; leave --layer out."
            raise UsageError(msg)
        if wanted not in source.slots:
            there = [name.removeprefix("layers/") for name in source.slots]
            msg = f"{source.file}: no layer {layer!r}; there are {shorten(there) or 'none'}.{nearest(layer, there)}"
            raise UsageError(msg)
        return [wanted]
    layers = {name.removeprefix("layers/").lower(): name for name in source.slots if name.startswith("layers/")}
    order = [layers[name] for name in COUNT_LAYERS if name in layers]
    return order + [name for name in ("raw", "X", "matrix") if name in source.slots]


def _trial(source: Source, name: str) -> Trial:
    slot = source.slots[name]
    with reading(f"{source.file}: {name}"):
        slot.var()  # refuses matrices without genes before any value is read
        rows = GuardedRows(slot.rows(), source.file)
    return Trial(name, rows, gather_evidence(rows, sample_ranges(source.n_cells)))


def _whole(source: Source, trial: Trial, policy: str) -> Choice | str:
    evidence = trial.evidence
    finding = evidence.finding
    if finding == "empty" and (source.n_cells == 0 or _has_values(trial.rows)):
        finding = "counts"
    if finding != "counts":
        return evidence.words
    if trial.rows.dtype.kind == "b" and policy != "as-is":
        return "true and false instead of counts; policy as-is takes them as 1 and 0"
    notes = [f"{trial.slot}: {remark}" for remark in value_warnings(evidence, trial.rows.dtype)]
    if evidence.zeros or evidence.duplicates:
        notes.append(
            f"{trial.slot}: {evidence.duplicates} repeated and {evidence.zeros} zero entries in the sample; the first "
            "are summed, the second dropped, block by block."
        )
    return Choice(trial.slot, trial.rows, "whole", None, [f"counts taken from {trial.slot} (whole numbers).", *notes])


def _has_values(rows: Rows) -> bool:
    """Whether a matrix whose sample was empty stores anything at all, as far as that is cheap to know."""
    inner = rows
    while isinstance(inner, GuardedRows | SelectedColumns | PickedRows):
        inner = inner.rows
    if isinstance(inner, CompressedRows):
        return bool(inner.data.shape[0] > 0)
    return inner.shape[0] > sum(stop - start for start, stop in sample_ranges(inner.shape[0]))


def _made_whole(source: Source, trial: Trial, policy: str) -> Choice | str:
    evidence = trial.evidence
    if evidence.finding == "log" and policy == "invert":
        return _undone(source, trial)
    if evidence.finding == "fractional" and policy == "round":
        moved = _moved_by_rounding(source, trial)
        note = f"{trial.slot}: fractional counts rounded as asked; rounding moves {moved:.2%} of the counts"
        doubt = ", which is much: are these counts?" if moved > 0.05 else "."
        return Choice(trial.slot, trial.rows, "round", None, [note + doubt])
    if evidence.finding in ("fractional", "log") and policy == "as-is":
        return Choice(trial.slot, trial.rows, "as-is", None, [f"{trial.slot}: {evidence.words}, taken as they are."])
    if evidence.finding == "fractional":
        return f"{evidence.words}; policy round rounds ambient-corrected or EM counts"
    return evidence.words


def _moved_by_rounding(source: Source, trial: Trial) -> float:
    moved = total = 0.0
    for start, stop in sample_ranges(source.n_cells):
        values = trial.rows.block(start, stop).data.astype(np.float64)
        moved += float(np.abs(values - np.rint(values)).sum())
        total += float(values.sum())
    return moved / max(total, 1.0)


def _undone(source: Source, trial: Trial) -> Choice | str:
    """Try every way the logarithm may have been taken on the sample; the first that gives back every cell wins."""
    evidence = trial.evidence
    best, best_residual, best_words = 0.0, 0.0, "no scale tried"
    for words, scale in _scales(source, evidence, trial.rows.dtype):
        share, residual = _share_undone(source, trial, scale)
        if share >= ACCEPTED:
            factor = "" if scale.factors is not None else " (exact up to a whole factor common to all counts of a cell)"
            rounding = f", rounded to {scale.decimals} decimals" if scale.decimals else ""
            note = (
                f"{trial.slot} holds log1p of normalised counts (base {words}{rounding}); undone exactly to whole "
                f"counts, with {scale.origin}{factor}."
            )
            return Choice(trial.slot, trial.rows, "undo", scale, [note])
        if share >= best:
            best, best_residual, best_words = share, residual, f"base {words}"
    return (
        f"{evidence.words} that cannot be undone exactly (best try, {best_words}: {best:.1%} of the sampled cells, "
        f"largest miss {best_residual:.2f} counts)"
    )


def _scales(source: Source, evidence: Evidence, dtype: np.dtype[Any]) -> list[tuple[str, LogScale]]:
    single = evidence.single_precision and np.dtype(dtype).itemsize > 4
    precision = float(np.finfo(np.float32 if single else dtype).eps)
    # Several roundings of a double stay far below this, and so does the gap between two counts.
    precision = max(precision, 1e-12)
    decimals = evidence.decimals

    @cache
    def totals() -> dict[str, npt.NDArray[np.float64]]:
        found = {name: source.cells.numbers(name) for name in TOTAL_COLUMNS if name in source.cells.columns}
        return {name: values for name, values in found.items() if values is not None}

    scales: list[tuple[str, LogScale]] = []
    for words, base in BASES.items():
        known = total_scales(totals(), base=base, precision=precision, decimals=decimals)
        scales += [(words, scale) for scale in (*known, LogScale(base, precision, decimals))]
    return scales


def _share_undone(source: Source, trial: Trial, scale: LogScale) -> tuple[float, float]:
    """Share of the sampled cells given back exactly, and the largest miss; stops early where the first block fails."""
    cells = accepted = 0
    residual = 0.0
    for start, stop in sample_ranges(source.n_cells):
        undone = undo_log(canonical(trial.rows.block(start, stop))[0], scale, start=start)
        cells += stop - start
        accepted += int(undone.accepted.sum())
        residual = max(residual, undone.largest_residual)
        if accepted < 0.5 * cells:
            break
    return accepted / max(cells, 1), residual

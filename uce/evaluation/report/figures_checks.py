"""Pictures of checks: what perturbed cells become, how variance is spread, how alike pairs of vectors are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uce.evaluation.report.figures import FAINT, GREY, Look, new_figure, picture, short
from uce.evaluation.report.page import Picture, number

_MEASURES = {
    "cosine": ("#0072b2", "o", "-", "cosine to the vector of the whole cell"),
    "overlap": ("#009e73", "s", "-", "share of the neighbours kept"),
    "accuracy": ("#d55e00", "^", "-", "labels right"),
    "mean_genes_accuracy": (GREY, "^", "--", "labels right, mean of gene vectors"),
}
_AXES = {
    "thinning": ("Fewer counts", "share of the counts that is kept", "%"),
    "panel": ("Fewer genes in the panel", "genes in the panel", ""),
    "dropout": ("Genes lost", "share of the expressed genes that is lost", "%"),
}


def robustness_curves(name: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Picture]:
    """Title -> picture of a perturbation: measures between 0 and 1 at its levels (`level`, in percent or genes)."""
    return {_AXES.get(kind, (kind,))[0]: _curve(name, kind, points) for kind, points in curves.items() if points}


def _curve(name: str, kind: str, points: Sequence[Mapping[str, Any]]) -> Picture:
    title, across, unit = _AXES.get(kind, (kind, "level", ""))
    figure = new_figure(3.1)
    axes = figure.subplots()
    levels = [f"{point['level']:,g} {unit}".strip() for point in points]
    told = []
    for measure, (colour, marker, line, meaning) in _MEASURES.items():
        values = [_float(point.get(measure)) for point in points]
        if np.isfinite(values).any():
            axes.plot(range(len(points)), values, color=colour, marker=marker, ms=4, lw=1.4, ls=line, label=meaning)
            told.append(f"{meaning}: " + ", ".join(f"{a} {number(b)}" for a, b in zip(levels, values, strict=True)))
    axes.set_xticks(range(len(points)), levels)
    axes.set(ylim=(min(0.0, axes.get_ylim()[0]), 1.03), xlabel=across)
    axes.set_title(f"{title} · {short(name, 24)}")
    axes.grid(axis="y", color=FAINT, lw=0.5)
    figure.legend(loc="outside lower center", fontsize=7, ncols=2, handlelength=1.6, columnspacing=1.2)
    return picture(figure, f"{title}, {name}. {'; '.join(told)}.")


def _float(value: Any) -> float:
    return np.nan if value is None else float(value)


def spectra(shares: Mapping[str, Sequence[float]], ranks: Mapping[str, float], looks: Mapping[str, Look]) -> Picture:
    """Cumulative share of variance by number of components; the effective rank is in the name.

    Parameters
    ----------
    shares
        Embedding -> cumulative shares of variance.
    ranks
        Embedding -> effective rank.
    """
    figure = new_figure(2.9 + 0.16 * ((len(shares) + 1) // 2))
    axes = figure.subplots()
    told = []
    for name, values in shares.items():
        look, rank = looks[name], ranks.get(name, np.nan)
        meaning = f"{short(name, 20)} ({rank:.0f})" if np.isfinite(rank) else short(name)
        axes.plot(range(1, len(values) + 1), values, color=look.colour, lw=1.4, ls=look.line, label=meaning)
        told.append(f"{name}: {100 * float(values[0]):.0f} % on the first component, effective rank {number(rank)}")
    axes.set_xscale("log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= max(map(len, shares.values()))]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set(ylim=(0, 1.03), xlabel="components", ylabel="share of the variance")
    axes.set_title("Spectrum (effective rank)")
    figure.legend(loc="outside lower center", fontsize=7, ncols=2, handlelength=2.4)
    return picture(figure, f"Cumulative spectrum. {'; '.join(told)}.")


def cosine_histograms(histograms: Mapping[str, Mapping[str, Sequence[float]]], looks: Mapping[str, Look]) -> Picture:
    """How alike two cells drawn at random are, one strip per embedding: raw (filled), centred (line)."""
    figure = new_figure(0.75 + 0.42 * len(histograms))
    rows = figure.subplots(len(histograms), 1, sharex=True, squeeze=False)[:, 0]
    told = []
    for axes, (name, histogram) in zip(rows, histograms.items(), strict=True):
        edges = np.asarray(histogram["edges"], dtype=float)
        raw, centred = (np.asarray(histogram[key], dtype=float) for key in ("raw", "centred"))
        axes.stairs(raw / max(raw.max(), 1e-12), edges, fill=True, color=looks[name].colour, alpha=0.55)
        axes.stairs(centred / max(centred.max(), 1e-12), edges, color="black", lw=0.8)
        axes.set(yticks=[], xlim=(-1, 1), ylim=(0, 1.1))
        axes.spines["left"].set_visible(False)
        axes.set_ylabel(short(name, 20), rotation=0, ha="right", va="center", fontsize=7)
        middle = (edges[:-1] + edges[1:]) / 2
        told.append(f"{name} raw mean {number(float((middle * raw).sum() / max(raw.sum(), 1e-12)))}")
    for axes in rows[:-1]:
        axes.tick_params(bottom=False)
    rows[-1].set_xlabel("cosine of two cells drawn at random: raw (filled), centred (line)")
    return picture(figure, f"Histograms of pairwise cosines. {'; '.join(told)}.")

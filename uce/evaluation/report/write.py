"""The report of one evaluation: the verdict in words, then pictures, then tables."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uce.evaluation.cells import Cells
from uce.evaluation.embeddings import Embedding
from uce.evaluation.report import sections_checks, sections_cross, sections_labels, sections_scores, tables
from uce.evaluation.report.figures import between, style, words
from uce.evaluation.report.material import Material
from uce.evaluation.report.page import Html, Section, banner, facts, number, page, paragraph, write_page
from uce.evaluation.results import EvalResult

_SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    sections_scores.at_a_glance,
    sections_scores.comparisons,
    sections_checks.maps,
    sections_scores.bio_and_batch,
    sections_labels.transfer,
    sections_labels.calibration,
    sections_labels.unseen,
    sections_cross.cross,
    sections_scores.structure,
    sections_checks.robustness,
    sections_checks.collapse,
    sections_checks.leakage,
    tables.numbers,
    tables.cells_left_out,
    tables.provenance,
    tables.limits,
)


def write_report(
    result: EvalResult, cells: Cells, embeddings: Sequence[Embedding], path: Path, *, seed: int = 0
) -> Path:
    """Write the report of an evaluation as one HTML file that needs nothing else.

    Parameters
    ----------
    result
        What was found.
    cells
        The judged cells, for the maps.
    embeddings
        Vectors of these cells; controls are not mapped.
    path
        Of the file; equal results give equal bytes.
    seed
        Of the maps.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    material = Material(result, cells, embeddings, seed)
    with style():
        sections = [made for make in _SECTIONS if (made := make(material)) is not None]
        title = f"How good are these vectors? {result.facts.get('name', cells.name)}"
        html = page(title, _top(material), sections, footer=_footer(result))
    return write_page(path, html)


def _top(material: Material) -> list[Html]:
    result, blocks = material.result, [paragraph(sentence, look="verdict") for sentence in verdict(material)]
    blocks += [banner(text) for text in result.banners]
    return [*blocks, sections_checks.leakage_banner(result.leakage), facts(_tiles(material))]


def _tiles(material: Material) -> list[tuple[str, object]]:
    found = material.result.facts
    tiles: list[tuple[str, object]] = [
        (title, str(found[key]).replace("_", " ") if key == "species" else found[key])
        for key, title in _TILES.items()
        if found.get(key)
    ]
    kinds = list(material.kinds.values())
    tiles += [("embeddings", sum(kind in ("own", "given") for kind in kinds)), ("baselines", kinds.count("baseline"))]
    return tiles


def verdict(material: Material) -> list[str]:
    """What was judged, and how it compares with the simple things, in sentences."""
    found = material.result.facts
    title = next((str(e.get("title", "")) for e in material.result.embeddings if e["name"] == material.first), "")
    named = f"{material.first} ({title})" if title else material.first
    labels, cells = number(found.get("labels")), number(len(material.cells))
    if sides := found.get("sides"):
        names = between([str(side["name"]) for side in sides])
        shared = "one shared label" if found.get("labels") == 1 else f"{labels} shared labels"
        judged = f"{named} was judged by carrying {shared} between {names}, both ways, on {cells} cells."
    else:
        groups = found.get("groups")
        donors = f" from {number(groups)} donors" if groups else ""
        judged = f"{named} was judged on {cells} cells{donors} with {labels} labels."
    return [judged, *_against(material)]


def _against(material: Material) -> list[str]:
    """One sentence per metric: better, worse or a tie, with the paired interval."""
    said = []
    for metric in dict.fromkeys(str(entry["metric"]) for entry in material.result.comparisons):
        rows = {str(row["other"]): row for row in material.result.comparisons if row["metric"] == metric}
        wanted = [name for name in _NAMES if name in rows] or list(rows)[:2]
        said.append(f"{words(metric)}: {between([_compared(name, rows[name]) for name in wanted])}.")
    return said or ["No paired comparison could be made; the tables say why."]


def _compared(name: str, row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    interval = f"; 95 % interval {number(low)} to {number(high)}" if number(low) != "–" else "; no interval"
    verdict = _WORDS.get(str(row["verdict"]), str(row["verdict"]))
    return f"{verdict} {_NAMES.get(name, name)} (difference {number(row['difference'])}{interval}{_why_tie(row)})"


def _why_tie(row: Mapping[str, Any]) -> str:
    """Why an interval beside zero is called a tie all the same; "" where nothing is to be explained."""
    if row["verdict"] != "tie" or not (row["low"] > 0 or row["high"] < 0):
        return ""
    if row.get("by") == "cell":
        return ", over cells: too few donors to say more"
    corrected = row["p_holm"] >= 0.05
    return ", beside zero, but not sure once corrected for all rows compared" if corrected else ", within the noise"


_TILES = {
    "judged": "cells judged",
    "labels": "labels",
    "groups": "donors",
    "batches": "batches",
    "datasets": "data sets",
    "assays": "assays",
    "species": "species",
}
_WORDS = {"better": "better than", "worse": "worse than", "tie": "a tie with"}
_NAMES = {
    "pca": "PCA",
    "mean-genes": "the mean of gene vectors",
    "ortholog-pca": "PCA on orthologues",
    "ortholog-harmony": "PCA on orthologues with Harmony",
}


def _footer(result: EvalResult) -> str:
    return f"uce {result.environment.get('uce', '')}. One file: it loads nothing from anywhere."

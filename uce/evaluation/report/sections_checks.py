"""Maps, and checks that a score alone does not show: spoiled cells, collapse, leakage."""

from typing import Any

import numpy as np

from uce.errors import InputError
from uce.evaluation.embeddings import Embedding
from uce.evaluation.report.figures import words
from uce.evaluation.report.figures_checks import cosine_histograms, robustness_curves, spectra
from uce.evaluation.report.maps import Categories, Points, draw_map, drawn_cells
from uce.evaluation.report.material import Material
from uce.evaluation.report.page import (
    Cell,
    Html,
    Section,
    banner,
    bullets,
    columns,
    figure,
    heading,
    paragraph,
    section,
    table,
)
from uce.plotting import umap_coordinates


def maps(material: Material) -> Section | None:
    """A UMAP of every embedding, by label and by batch, of the same cells."""
    shown = [embedding for embedding in material.embeddings if embedding.kind != "control"]
    if not shown:
        return None
    cells = material.cells
    drawn = drawn_cells(len(cells), np.random.default_rng([material.seed, 8]))
    order = np.random.default_rng([material.seed, 9]).permutation(len(drawn))
    columns_ = {"label": Categories(cells.labels)}
    if cells.batches is not None:
        columns_["batch"] = Categories(cells.batches)
    values = {"label": cells.labels, "batch": cells.batches}
    blocks = [
        paragraph(
            "A picture, not evidence: UMAP bends distances, and pretty islands prove nothing. The same "
            f"{len(drawn):,} cells everywhere, the same seed. Numbers are labels, see the legend; where it is "
            "crowded, rare labels go without.",
            look="lead",
        )
    ]
    blocks += [Html(heading(f"By {name}") + found.legend()) for name, found in columns_.items()]
    for embedding in shown:
        points = _coordinates(embedding, drawn, len(cells), material.seed)
        if isinstance(points, str):
            blocks.append(paragraph(f"{embedding.name}: {points}", look="small"))
            continue
        pair = []
        for name, found in columns_.items():
            column = values[name]
            assert column is not None
            title = f"{embedding.name}, by {name}"
            picture = draw_map(points, column[drawn], found, title=title, numbered=name == "label", order=order)
            pair.append(figure(picture, f"{title}.", "A picture, not evidence."))
        blocks.append(columns(pair))
    return section("Maps", *blocks)


def _coordinates(embedding: Embedding, drawn: np.ndarray[Any, Any], n_cells: int, seed: int) -> Points | str:
    """(drawn, 2) coordinates, NaN for cells without a vector; or why there are none."""
    place = np.full(n_cells, -1)
    place[np.arange(n_cells) if embedding.rows is None else embedding.rows] = np.arange(len(embedding.vectors))
    vectors = np.full((len(drawn), embedding.vectors.shape[1]), np.nan, np.float32)
    there = place[drawn] >= 0
    vectors[there] = embedding.vectors[place[drawn][there]]
    try:
        return umap_coordinates(vectors, seed=seed)
    except InputError as error:
        return str(error)


# What two draws of the genes of one cell change, see `uce.evaluation.robustness.noise_floor`.
_FLOOR = {
    "cosine_mean": "cosine of two draws of one cell, mean",
    "cosine_sd": "the same, standard deviation",
    "cosine_p1": "the same, lowest 1 % of the cells",
    "overlap": "share of the nearest cells that stay",
    "macro_f1": "largest difference in macro F1 between two draws",
    "label_flips": "share of cells that change their label",
    "between_cells": "cosine of two different cells, mean",
    "share": "spread between draws over that between cells",
}


def robustness(material: Material) -> Section | None:
    """What becomes of a cell with fewer counts or genes; checks that must hold whatever the cells."""
    if "robustness" not in material.tasks:
        return None
    blocks: list[Html] = []
    for name, details in material.details("robustness").items():
        pictures = robustness_curves(name, details.get("curves", {}))
        blocks.append(columns([figure(drawn, f"{title} ({name}).") for title, drawn in pictures.items()]))
        checks = [
            [entry["name"].replace("_", " "), _passed(entry.get("passed")), entry.get("value"), entry.get("note", "")]
            for entry in details.get("checks", [])
        ]
        if checks:
            blocks.append(table(f"Checks of {name}", ["check", "passed", "value", "note"], checks))
        floor = details.get("noise_floor") or {}
        if floor:
            values = [
                [_FLOOR.get(key, words(key)), value]
                for key, value in floor.items()
                if isinstance(value, int | float | None)
            ]
            blocks.append(table(f"Noise floor of {name}", ["quantity", "value"], values))
    reading = paragraph(
        "The same cells are embedded again with counts or genes taken away. Labels are looked up among whole cells "
        "of other donors. The model draws genes at random, so two draws of one cell differ too: what is below this "
        "noise floor is no difference.",
        look="lead",
    )
    return section("Fewer counts, fewer genes", reading, *blocks, material.missing("robustness"))


def _passed(passed: bool | None) -> Cell:
    if passed is None:
        return Cell("stated")
    return Cell("yes") if passed else Cell("no", look="failed")


def collapse(material: Material) -> Section | None:
    """Spectrum and cosines, and the gates that fired."""
    if "collapse" not in material.tasks:
        return None
    found = material.details("collapse")
    ranks = {name: material.value(name, "effective_rank") for name in found}
    shares = {name: details["spectrum"] for name, details in found.items() if details.get("spectrum")}
    histograms = {name: d["cosine_histogram"] for name, d in found.items() if d.get("cosine_histogram")}
    blocks = []
    if shares:
        caption = "Steep at the left: few directions hold everything. In brackets the effective rank."
        blocks.append(figure(spectra(shares, ranks, material.looks), "Spectrum.", caption))
    if histograms:
        caption = "A raw cosine near 1 for any two cells makes plain cosine search useless, even where ranks look fine."
        blocks.append(figure(cosine_histograms(histograms, material.looks), "How alike any two cells are.", caption))
    gates = [f"{name}: {gate}" for name, details in found.items() for gate in details.get("gates", [])]
    alarms = [banner(gate) for gate in gates]
    reading = paragraph(
        "Scores made of ranks cannot see vectors that are squeezed around their mean. These can.", look="lead"
    )
    return section("Do the vectors differ at all?", reading, *alarms, columns(blocks), material.missing("collapse"))


def leakage(material: Material) -> Section:
    """Was the model trained on these cells, and how do we know."""
    found = material.result.leakage
    blocks = [leakage_banner(found)]
    if found.get("doubts"):
        blocks.append(bullets(str(doubt) for doubt in found["doubts"]))
    rows = found.get("rows") or []
    if rows:
        keys = list(dict.fromkeys(key for row in rows for key in row))
        blocks.append(table("Evidence of leakage", keys, [[_plain(row.get(key)) for key in keys] for row in rows]))
    if not found.get("note"):
        blocks.append(material.missing("leakage"))
    return section("Leakage", *blocks)


def leakage_banner(found: dict[str, Any]) -> Html:
    """Green, yellow or red."""
    status = str(found.get("status", "unknown"))
    return banner(leakage_words(found), "good" if status == "clean" else "note" if status == "unknown" else "alarm")


def leakage_words(found: dict[str, Any]) -> str:
    """The status of leakage as a sentence; unknown is said to be unknown."""
    said = {
        "clean": "Not trained on these cells, as far as the training manifest tells",
        "unknown": "Whether the model was trained on these cells is not known",
        "cell-overlap": "The model was trained on some of these very cells: its scores are too high",
        "dataset-overlap": "The model was trained on a data set of this name: its scores may be too high",
    }
    status = str(found.get("status", "unknown"))
    note = f": {found['note']}" if found.get("note") and status != "clean" else ""
    return f"{said.get(status, status)}{note}."


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)

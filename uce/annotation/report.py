"""One page about an annotation, that opens offline: what was called what, how sure, and how far to believe it."""

from pathlib import Path
from typing import Any

import numpy as np

from uce.annotation.describing import sentences
from uce.annotation.labelling import UNKNOWN, curve
from uce.annotation.pictures import Maps, draw_composition, draw_distances, draw_query
from uce.annotation.running import Run
from uce.evaluation.report import page as html
from uce.evaluation.report.figures import style
from uce.evaluation.report.figures_labels import clustered, confusion_map, reliability
from uce.evaluation.scores import confusion

FEWEST_CELLS = 10
_COLOUR = "#0072b2"


def draw_umap(run: Run) -> Maps | None:
    """The query among the reference; None where there are too few cells for a UMAP."""
    vectors = run.query.vectors[run.found.there]
    if not len(vectors) or len(vectors) + len(run.found.reference.vectors) < FEWEST_CELLS:
        return None
    return draw_query(run.found, vectors, title=run.query.given.name, seed=0)


def write_report(run: Run, drawn: Maps | None, path: Path) -> Path:
    """Write the page."""
    banners = [html.banner(text) for text in run.facts["warnings"]]
    top = [html.paragraph(_verdict(run), look="verdict"), *banners]
    sections = [_labels(run, drawn), _trust(run), _pca(run), _markers(run), _made_of(run)]
    title = f"Labels of {run.query.given.name} from {run.reference.given.name}"
    return html.write_page(path, html.page(title, top, [part for part in sections if part.body]))


def _verdict(run: Run) -> str:
    found, scores = run.found, run.facts["held_out"]
    unknown = float(np.mean(found.unknown)) if len(found.unknown) else 0.0
    said = f"{len(found.unknown):,} cells got one of {len(run.facts['summary'])} labels; {unknown:.1%} are {UNKNOWN}."
    if "accuracy" in scores:
        what = "donors" if found.held_out.donors else "cells of the same donors"
        said += f" On held-out {what} of the reference {scores['accuracy']:.0%} of the labels are right."
    return said


def _labels(run: Run, drawn: Maps | None) -> html.Section:
    blocks = []
    if drawn is not None:
        crosses = " Crosses are unknown." if run.found.unknown.any() else ""
        caption = f"UMAP, reference in grey.{crosses} A picture, not evidence: distances in it mean little."
        sure = html.figure(drawn.confidence, "How sure.", "The same cells in the same places.")
        blocks.append(html.columns([html.figure(drawn.labels, "The query among the reference.", caption), sure]))
    if len(run.found.unknown):
        caption = "Shares differ where tissues differ; a label that is much commoner in the query wants a look."
        blocks.append(html.figure(draw_composition(run.facts["summary"]), "Composition", caption))
    summary = run.facts["summary"]
    names = [name.replace("_", " ") for name in summary.columns]
    blocks.append(html.table("Labels", names, summary.to_numpy(dtype=object).tolist()))
    blocks.append(
        html.paragraph(
            "Recall, precision, F1 and confused with: on held-out cells of the reference. Noticed if missing: the "
            "share of the label's cells that would be called unknown if the reference had no such label; taken for: "
            "what the others would be called.",
            look="small",
        )
    )
    never = summary.loc[summary["cells"] == 0, "label"].tolist()
    if never:
        blocks.append(html.paragraph(f"Never given: {', '.join(never)}."))
    return html.section("Labels", *blocks)


def _trust(run: Run) -> html.Section:
    found = run.found
    blocks = [html.bullets(sentences(found, run.facts))]
    if found.calibrated:
        with style():
            drawn = reliability({"calibrated": curve(found)}, _COLOUR, title="confidence on held-out donors")
        caption = "Each donor by a curve fitted on the others; on the dotted line a confidence of 0.8 is right in 80 %."
        blocks.append(html.figure(drawn, "Is the confidence true?", caption))
    if len(found.guesses.distances) and len(found.held_out.rows):
        caption = "Where the query is further away than held-out donors are, confidence and threshold promise too much."
        blocks.append(html.figure(draw_distances(found), "How far are the neighbours?", caption))
    known = found.held_out.learnable
    if known.any():
        labels, counts = confusion(found.held_out.labels[known], found.held_out.guesses.labels[known])
        matrix = np.asarray(counts, dtype=float)
        with style():
            drawn = confusion_map(labels, matrix, clustered(matrix), title="held-out reference cells")
        blocks.append(html.figure(drawn, "What is taken for what", "Rows add up to 100 %."))
    return html.section("How far to believe it", *blocks)


def _pca(run: Run) -> html.Section:
    if isinstance(run.beside, str):
        return html.section("Principal components beside it", html.paragraph(f"Not compared: {run.beside}"))
    facts: dict[str, Any] = run.beside.facts
    rows = [
        [name, *(facts[key][score] for score in ("accuracy", "macro_f1"))]
        for key, name in (("ours", "the model's vectors"), ("pca", "principal components"))
        if key in facts
    ]
    what = (
        f"The same cells labelled by principal components of {facts['genes']:,} shared genes, fitted on the reference: "
        f"{facts['agreement']:.0%} of {facts['cells']:,} query cells get the same label."
    )
    table = [html.table("On held-out cells of the reference", ["", "accuracy", "macro-F1"], rows)] if rows else []
    return html.section("Principal components beside it", html.paragraph(what), *table)


def _markers(run: Run) -> html.Section:
    if isinstance(run.beside, str) or run.beside.markers.empty:
        return html.Section("", html.Html(""))
    names = ["label", "gene", "reference cells of the label", "query cells so called", "other query cells"]
    rows = run.beside.markers.to_numpy(dtype=object).tolist()
    return html.section(
        "Markers",
        html.paragraph(
            "The five genes that set each label apart in the reference, and the share of cells with a count of them. "
            "A label whose markers its query cells lack is doubtful."
        ),
        html.table("Markers of each label", names, rows),
    )


def _made_of(run: Run) -> html.Section:
    facts = run.facts
    pairs = [
        (name, facts[name])
        for name in ("query", "reference", "label_key", "group_key", "method", "k", "split", "model", "precision")
    ]
    rows = [[name.replace("_", " "), str(value) or "–"] for name, value in pairs]
    rows.append(["model, hash", facts["model_sha256"][:12]])
    return html.section("Made of", html.table("What it rests on", ["what", "value"], rows))

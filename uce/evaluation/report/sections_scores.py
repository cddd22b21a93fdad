"""All rows at a glance, who is better than whom, scIB as a picture, mixing within labels, neighbourhoods of types."""

from collections.abc import Mapping
from itertools import groupby

import numpy as np

from uce.evaluation.report.figures import words
from uce.evaluation.report.figures_labels import label_dots
from uce.evaluation.report.figures_scores import difference_plot, dot_plot, scatter, score_picture
from uce.evaluation.report.material import READ, Material
from uce.evaluation.report.page import Html, Section, bullets, columns, figure, paragraph, section, table

FAMILIES = {
    "bio": "Biology kept",
    "batch": "Batches mixed",
    "total": "Both together",
    "structure": "Structure",
    "transfer": "Labels carried over",
    "unseen": "Unseen types noticed",
    "calibration": "Honest confidence",
    "robustness": "Robustness",
    "collapse": "Vectors that differ",
    "leakage": "Leakage",
    "cross": "Across data sets",
}
_AGGREGATES = ("scib_bio", "scib_batch", "scib_total")


def at_a_glance(material: Material) -> Section:
    """Every row in every headline metric."""
    order = list(FAMILIES)
    drawable = [m for m in material.headline if any(s.status in READ for s in material.scores[m].values())]
    metrics = sorted(drawable, key=lambda metric: order.index(_family(material, metric)))
    blocks = []
    for family, members in groupby(metrics, key=lambda metric: _family(material, metric)):
        for metric in members:
            drawn = dot_plot(metric, material.scores[metric], material.looks)
            reasons = _reasons(material, metric)
            blocks.append(figure(drawn, f"{FAMILIES[family]}: {words(metric)}.", reasons))
    reading = paragraph(
        "One line per embedding, the same order everywhere. Colour: what is judged; grey: baselines; hollow: "
        "controls, whose verdict is known beforehand. Bars are 95 % intervals, from resampled donors where there are "
        "enough. The dotted line is PCA. A cross is a number that does not exist, with the reason.",
        look="lead",
    )
    if not blocks:
        reading = paragraph("No row has a number that belongs here; the sections below hold what there is.")
    lines = [f"{words(m)}: {_of_nobody(material, m)}" for m in material.headline if m not in drawable]
    lines += [f"{name} has no numbers. {reason[:1].upper()}{reason[1:]}" for name, reason in material.absent.items()]
    return section("All rows at a glance", reading, columns(blocks), bullets(lines) if lines else Html(""))


def _of_nobody(material: Material, metric: str) -> str:
    """Why no row has a number that was tried."""
    tried = next(score for score in material.scores[metric].values() if score.headline)
    return f"{tried.status}{', ' + tried.note if tried.note else ''}."


def _family(material: Material, metric: str) -> str:
    return next(iter(material.scores[metric].values())).family


def _reasons(material: Material, metric: str) -> str:
    """Why some rows have no value, or one that must not be trusted."""
    reasons = [
        f"{name}: {score.status}{', ' + score.note if score.note else ''}"
        for name, score in material.scores[metric].items()
        if material.told(name, score)
    ]
    return f"{'; '.join(reasons)}." if reasons else ""


def comparisons(material: Material) -> Section | None:
    """The first embedding against each other row, on the same cells and the same resampled donors."""
    found = material.result.comparisons
    if not found:
        return None
    blocks = []
    for metric in dict.fromkeys(str(entry["metric"]) for entry in found):
        rows = [entry for entry in found if entry["metric"] == metric]
        differences = {str(row["other"]): _difference(row) for row in rows}
        drawn = difference_plot(words(metric), differences, str(rows[0]["first"]))
        notes = " ".join(dict.fromkeys(str(row["note"]) for row in rows if row.get("note")))
        blocks.append(figure(drawn, f"Paired differences in {words(metric)}.", notes))
    reading = paragraph(
        "Both rows of a pair are judged on the same held-out cells and on the same resampled donors. A difference "
        "counts only where its whole interval lies on one side of zero, there are six donors or more, and a t-test "
        "over resampled donors agrees, corrected for the number of rows compared (Holm). All else is a tie, so that a "
        "tie may have an interval beside zero; and a tie is no proof that two are equal.",
        look="lead",
    )
    return section("Better, or a tie?", reading, columns(blocks))


def _difference(row: Mapping[str, object]) -> tuple[float, float, float, str]:
    return _number(row["difference"]), _number(row["low"]), _number(row["high"]), str(row["verdict"])


def _number(value: object) -> float:
    return np.nan if value is None else float(value)  # type: ignore[arg-type]


def bio_and_batch(material: Material) -> Section | None:
    """ScIB: the scatter with its anchors, and the table as a picture."""
    if "scib" not in material.tasks:
        return None
    points = {
        name: (material.value(name, "scib_batch"), material.value(name, "scib_bio"))
        for name in material.kinds
        if np.isfinite(material.value(name, "scib_batch") + material.value(name, "scib_bio"))
    }
    blocks = []
    if points:
        drawn = scatter(points, material.looks, x="batches mixed (scIB)", y="biology kept (scIB)")
        caption = (
            "Up and to the right is better. Neither axis says anything alone: random numbers mix batches well. "
            "The hollow controls are the anchors: the oracle knows the labels, the others know nothing, or only the "
            "batch."
        )
        blocks.append(columns([figure(drawn, "Biology against batch.", caption)], count="one"))
    blocks.append(_score_table(material))
    return section("Biology kept, batches mixed", *blocks, _scib_notes(material), material.missing("scib"))


def _score_table(material: Material) -> Html:
    metrics = material.metrics("scib")
    members = [metric for metric in metrics if metric not in _AGGREGATES and _is_share(material, metric)]
    scores = {
        name: {m: material.scores[m][name] for m in metrics if name in material.scores[m]} for name in material.kinds
    }
    scores = {name: row for name, row in scores.items() if any(score.status in READ for score in row.values())}
    if not scores:
        return Html("")
    drawn = score_picture(scores, members, [metric for metric in _AGGREGATES if metric in metrics])
    caption = (
        "Raw values on a fixed scale from 0 to 1, never rescaled between rows: they can be compared with other "
        "reports of the same version. A total exists only where all its members do."
    )
    return figure(drawn, "Scores of scIB.", caption, wide=True)


def _is_share(material: Material, metric: str) -> bool:
    values = [score.value for score in material.scores[metric].values() if score.status in READ]
    return not values or (np.nanmin(values) >= -1 and np.nanmax(values) <= 1)


def _scib_notes(material: Material) -> Html:
    found = material.details("scib")
    details = found.get(material.first) or next(iter(found.values()), {})
    lines = [str(note) for note in details.get("notes", [])]
    if details.get("isolated_labels"):
        lines.append(f"Isolated labels (in the fewest batches): {', '.join(map(str, details['isolated_labels']))}.")
    if details.get("kbet_skipped"):
        lines.append(
            f"Labels that kBET skips (few cells, or one batch): {', '.join(map(str, details['kbet_skipped']))}."
        )
    if details.get("effective_batches"):
        lines.append(
            f"iLISI is scaled by the number of batches; {material.first} has {details['effective_batches']:.2f} "
            "effective batches around a cell."
        )
    lines.append(
        "cLISI and graph connectivity are near 1 for every sensible embedding: differences below 0.01 are ties."
    )
    if details.get("version"):
        lines.append(f"scib-metrics {details['version']}; values of other versions are not comparable.")
    return bullets(lines)


def structure(material: Material) -> Section | None:
    """Mixing within each label, and distances between types."""
    if not {"cilisi", "scgraph"} & set(material.tasks):
        return None
    blocks = []
    found = material.details("cilisi")
    names = material.featured(list(found))
    if names:
        values = {name: _by_label(found[name], "cilisi") for name in names}
        sizes = {str(entry["label"]): int(entry["cells"]) for entry in found[names[0]]["labels"]}
        drawn = label_dots(values, sizes, material.looks, title="Batches mixed within each label", across="CiLISI")
        blocks.append(figure(drawn, "CiLISI of every label.", _ceilings(found[names[0]])))
    blocks += [
        figure(dot_plot(metric, material.scores[metric], material.looks), f"{words(metric)}.")
        for metric in material.metrics("scgraph")
        if metric not in material.headline and any(s.status in READ for s in material.scores[metric].values())
    ][:3]
    reading = paragraph(
        "CiLISI asks, within each label, whether cells of different batches are neighbours: 0 is apart, and the "
        "value that shuffled batches reach is what to aim at. scGraph asks whether the distances between types agree "
        "with those inside each batch. Its yardstick is a PCA, so embeddings by PCA are favoured.",
        look="lead",
    )
    return section(
        "Within labels, and between them",
        reading,
        columns(blocks),
        _left_out(next(iter(found.values()), {})),
        material.missing("cilisi"),
        material.missing("scgraph"),
    )


def _by_label(details: dict[str, object], key: str) -> dict[str, float]:
    return {str(entry["label"]): _number(entry[key]) for entry in details["labels"]}  # type: ignore[attr-defined]


def _ceilings(details: dict[str, object]) -> str:
    ceilings = [value for value in _by_label(details, "ceiling").values() if np.isfinite(value)]
    skipped = list(details.get("skipped", []))  # type: ignore[call-overload]
    text = f"Batches dealt at random reach {min(ceilings):.2f} to {max(ceilings):.2f}." if ceilings else ""
    return f"{text} {len(skipped)} labels are left out, see the table." if skipped else text


def _left_out(details: dict[str, object]) -> Html:
    skipped = details.get("skipped", [])
    rows = [[entry["label"], entry["reason"]] for entry in skipped]  # type: ignore[attr-defined]
    return table("Labels without a CiLISI", ["label", "why"], rows) if rows else Html("")

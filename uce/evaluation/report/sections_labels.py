"""Labels carried to held-out cells: who is taken for whom, how sure it was, what happens to types nobody has seen."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from uce.evaluation.report.figures import words
from uce.evaluation.report.figures_labels import (
    clustered,
    confusion_map,
    coverage,
    heat_map,
    label_dots,
    reliability,
    strips,
)
from uce.evaluation.report.material import Material
from uce.evaluation.report.page import Html, Section, banner, columns, figure, paragraph, section, table
from uce.evaluation.tasks.transfer import NOT_TRAINED_ON

_PROBES = ("knn", "logistic", "centroid")


def transfer(material: Material) -> Section | None:
    """Confusions, F1 of every label, one dot per donor."""
    if "transfer" not in material.tasks:
        return None
    found = {name: details for name, details in material.details("transfer").items() if details.get("probes")}
    if not found:
        return section("Labels carried to held-out donors", material.missing("transfer"))
    details = next(iter(found.values()))
    probe = next(probe for probe in (*_PROBES, *details["probes"]) if probe in details["probes"])
    blocks = [
        paragraph(
            f"Split: {details['split']}. Labels of held-out cells are guessed from the others by {words(probe)} on "
            "each embedding; everything that is fitted was fitted without the held-out cells.",
            look="lead",
        )
    ]
    if details.get("watermark"):
        blocks.append(
            banner("This split ignores donors: cells of one donor are near-copies, so these scores are too high.")
        )
    if material.transductive():
        blocks.append(paragraph(f"Fitted on the very cells they are judged on: {', '.join(material.transductive())}."))
    blocks.append(_not_trained_on(material))
    by_name = {name: details["probes"][probe] for name, details in found.items() if probe in details["probes"]}
    blocks += [_confusions(material, by_name), columns(_dots(material, by_name)), material.missing("transfer")]
    return section("Labels carried to held-out donors", *blocks)


def _not_trained_on(material: Material) -> Html:
    """The headline scores beside those over cells that the model was not trained on, where it saw some."""
    pairs = [
        (metric.removesuffix(NOT_TRAINED_ON), metric) for metric in material.scores if metric.endswith(NOT_TRAINED_ON)
    ]
    rows = [
        [name, *(material.value(name, metric) for pair in pairs for metric in pair)]
        for name in material.kinds
        if any(np.isfinite(material.value(name, other)) for _, other in pairs)
    ]
    names = [name for pair in pairs for name in (words(pair[0]), "without cells trained on")]
    return (
        table("With and without the cells that the model was trained on", ["embedding", *names], rows)
        if rows
        else Html("")
    )


def _confusions(material: Material, by_name: Mapping[str, dict[str, Any]]) -> Html:
    names = material.featured(list(by_name))
    labels = [str(label) for label in by_name[names[0]]["labels"]]
    order = clustered(np.asarray(by_name[names[0]]["confusion"], dtype=float))
    pictures = []
    for name in names:
        counts = _aligned(by_name[name], labels)
        drawn = confusion_map(labels, counts, order, title=name)
        caption = "In percent of the cells of a label; labels that are mistaken for each other stand beside each other."
        pictures.append(figure(drawn, f"Who is taken for whom: {name}.", caption, wide=True))
    return columns(pictures, count="many" if len(labels) <= 20 else "one")


def _aligned(probe: dict[str, Any], labels: list[str]) -> np.ndarray[Any, Any]:
    """Counts in the order of `labels`, whatever the order they were found in."""
    counts = np.zeros((len(labels), len(labels)))
    place = {label: i for i, label in enumerate(labels)}
    own = [str(label) for label in probe["labels"]]
    for label, row in zip(own, probe["confusion"], strict=True):
        for other, count in zip(own, row, strict=True):
            if label in place and other in place:
                counts[place[label], place[other]] = count
    return counts


def _dots(material: Material, by_name: Mapping[str, dict[str, Any]]) -> list[Html]:
    shown = [name for name in by_name if material.kinds[name] != "baseline"][:5]
    shown += [name for name in material.featured(list(by_name)) if name not in shown]
    rows = by_name[shown[0]]["per_label"]
    sizes = {str(entry["label"]): int(entry["support"]) for entry in rows}
    values = {name: {str(e["label"]): _number(e["f1"]) for e in by_name[name]["per_label"]} for name in shown}
    labels = label_dots(values, sizes, material.looks, title="F1 of every label", across="F1, labels sorted by size")
    groups = {name: {str(e["group"]): _number(e["macro_f1"]) for e in by_name[name]["per_group"]} for name in by_name}
    donors = strips(groups, material.looks, title="One dot per held-out group", across="macro F1 within the group")
    return [
        figure(
            donors, "Every donor.", "The spread between donors is what another study would see. The bar is the median."
        ),
        figure(labels, "Every label.", "Rare labels are at the bottom."),
    ]


def calibration(material: Material) -> Section | None:
    """Reliability before and after, and accuracy against coverage."""
    if "calibration" not in material.tasks:
        return None
    found = material.details("calibration")
    blocks = []
    for name in material.featured(list(found)):
        for probe, stages in found[name].items():
            bins = {stage: stages[stage]["bins"] for stage in ("before", "after") if stages.get(stage)}
            title = f"{words(probe)} on {name}"
            drawn = reliability(bins, _colour(material, name), title=title)
            sure = stages.get("coverage_at_95")
            caption = f"{100 * sure:.0f} % of the cells can be labelled at 95 % accuracy." if sure is not None else ""
            blocks.append(figure(drawn, f"Reliability: {title}.", f"On the dotted line, confidence is true. {caption}"))
    for probe in _PROBES:
        curves = {name: d[probe]["coverage"] for name, d in found.items() if d.get(probe, {}).get("coverage")}
        if curves:
            drawn = coverage(curves, material.looks, title=f"Accuracy of the surest cells, {words(probe)}")
            caption = "Who may say “unknown” for the least sure cells is right more often. The dotted line is 95 %."
            blocks.append(figure(drawn, f"Accuracy against coverage: {words(probe)}.", caption))
    reading = paragraph(
        "When a label comes with 0.9, is it right nine times in ten? On held-out donors only. Before: the confidence "
        "as the classifier gives it; after: calibrated on other donors. Small dots are few cells.",
        look="lead",
    )
    return section("Is the confidence true?", reading, columns(blocks), material.missing("calibration"))


def _colour(material: Material, name: str) -> str:
    return material.looks[name].colour


def unseen(material: Material) -> Section | None:
    """Each label withheld in turn: whether it is noticed, and what it is called instead."""
    if "unseen" not in material.tasks:
        return None
    found = {name: details for name, details in material.details("unseen").items() if details.get("labels")}
    blocks = []
    if found:
        shown = [*material.featured(list(found)), *(n for n in found if material.kinds[n] in ("own", "given"))]
        values = {n: {str(e["label"]): _number(e["auroc"]) for e in found[n]["labels"]} for n in dict.fromkeys(shown)}
        name = next(iter(values))
        sizes = {str(entry["label"]): int(entry["cells"]) for entry in found[name]["labels"]}
        across = "AUROC of the unknown score; 0.5 is chance"
        drawn = label_dots(values, sizes, material.looks, title="Withheld labels", across=across, chance=0.5)
        caption = f"Unknown score: {words(str(found[name].get('score', '')))}." if found[name].get("score") else ""
        blocks = [figure(drawn, "Is a withheld label noticed?", caption), _destinations(name, found[name])]
    reading = paragraph(
        "Each label in turn is taken out of the reference. Its cells should look unknown; siblings of known types "
        "are hard, distant types easy.",
        look="lead",
    )
    return section("Types the reference lacks", reading, columns(blocks), material.missing("unseen"))


def _destinations(name: str, details: dict[str, Any]) -> Html:
    rows = sorted(details["labels"], key=lambda entry: (-int(entry["cells"]), str(entry["label"])))
    largest: dict[str, float] = {}
    for entry in rows:
        for label, share in entry["called"].items():
            largest[str(label)] = max(largest.get(str(label), 0.0), _number(share))
    columns_ = [label for label, share in sorted(largest.items(), key=lambda item: -item[1]) if share >= 0.08][:25]
    if not columns_:
        return Html("")
    shares = np.array([[_number(entry["called"].get(label, 0.0)) for label in columns_] for entry in rows])
    names = [str(entry["label"]) for entry in rows]
    drawn = heat_map(shares, names, columns_, title=name, across="called instead", down="withheld label")
    return figure(drawn, f"What withheld cells are called: {name}.", "In percent of the withheld cells.", wide=True)


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)

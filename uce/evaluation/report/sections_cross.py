"""Labels carried between two data sets or species: heat maps, and whether mixing went too far."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from uce.evaluation.report.figures_labels import clustered, confusion_map
from uce.evaluation.report.material import Material
from uce.evaluation.report.page import Cell, Html, Section, columns, figure, number, paragraph, section, table


def cross(material: Material) -> Section | None:
    """Labels carried between data sets or species, both ways, and whether mixing went too far."""
    if "cross" not in material.tasks:
        return None
    found = material.details("cross")
    blocks = []
    orders: dict[str, Any] = {}
    for name in material.featured(list(found)):
        for direction in found[name].get("directions", []):
            labels = [str(label) for label in direction["labels"]]
            counts = np.asarray(direction["confusion"], dtype=float)
            title = f"{name}: {direction['from']} → {direction['to']}"
            order = orders.setdefault(f"{labels}", clustered(counts))
            drawn = confusion_map(labels, counts, order, title=title)
            caption = f"Macro F1 {number(direction['macro_f1'])} over {len(labels)} shared labels."
            blocks.append(figure(drawn, f"{title}.", caption, wide=True))
    reading = paragraph(
        "A probe learns labels on one side and is asked on the other; only shared labels are scored.", look="lead"
    )
    return section(
        "Across data sets or species",
        reading,
        columns(blocks),
        *_cross_tables(found),
        *_sides(material.result.facts),
        material.missing("cross"),
    )


def _sides(facts: Mapping[str, Any]) -> list[Html]:
    """What is on either side, and which labels were taken for the same."""
    tables = []
    if sides := facts.get("sides"):
        keys = ("species", "cells", "left_out", "labels", "groups", "counts_in_orthologs")
        rows = [
            [side["name"], *(side.get(key) for key in keys), ", ".join(side.get("own_labels", []))] for side in sides
        ]
        names = [key.replace("_", " ") for key in keys]
        tables.append(table("The two sides", ["side", *names, "labels the other side lacks"], rows))
    if facts.get("orthologs"):
        source = facts.get("orthologs_source") or "not named"
        tables.append(paragraph(f"{facts['orthologs']:,} genes are shared, one to one. Source: {source}."))
    if mapping := [row for row in facts.get("label_mapping", []) if isinstance(row, dict)]:
        keys = tuple(dict.fromkeys(key for row in mapping for key in row))
        tables.append(
            table("Labels taken for the same", list(keys), [[row.get(key) for key in keys] for row in mapping])
        )
    return tables


def _cross_tables(found: Mapping[str, dict[str, Any]]) -> list[Html]:
    checks = [
        [
            name,
            entry["check"],
            entry["value"],
            Cell(entry["verdict"], look=_look(str(entry["verdict"]))),
            entry.get("note", ""),
        ]
        for name, details in found.items()
        for entry in details.get("overcorrection", [])
    ]
    tables = [table("Over-correction", ["embedding", "check", "value", "verdict", "note"], checks)] if checks else []
    retrieval = [(name, entry) for name, details in found.items() for entry in details.get("retrieval", [])]
    if retrieval:
        keys = list(dict.fromkeys(key for _, entry in retrieval for key in entry))
        rows = [[name, *(entry.get(key) for key in keys)] for name, entry in retrieval]
        tables.append(table("Retrieval of the same label", ["embedding", *keys], rows))
    return tables


def _look(verdict: str) -> str:
    return "suspect" if verdict == "over-corrected" else ""

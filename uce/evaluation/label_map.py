"""One set of labels for two data sets: by a table that the user gives, or by equal names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import InputError
from uce.files import printable, shorten

Texts = NDArray[np.str_]
FORM = "label,shared or file,label,shared"
_SPELLINGS = {
    "label": ("label", "cell_type", "from"),
    "shared": ("shared", "shared_label", "to"),
    "file": ("file", "dataset", "species", "dataset_or_species"),
}


@dataclass(frozen=True, eq=False)
class Harmonised:
    """The labels of two data sets, made one set.

    Attributes
    ----------
    first, second
        (cells,) labels of each side; "" where the map says to leave a cell out.
    shared
        Labels that both sides have, sorted.
    mapping
        What was made of every label: file, label, shared (the label it became), both (whether both sides have it).
    """

    first: Texts
    second: Texts
    shared: tuple[str, ...]
    mapping: tuple[dict[str, Any], ...]


def read_label_map(path: str | Path, *, form: str = FORM) -> dict[tuple[str, str], str]:
    """(file or "", label) -> shared label, from a CSV or TSV with the columns `label,shared` or `file,label,shared`.

    Labels are as `plain_label` has them; `form` is what messages call the columns. An empty shared label leaves the
    cells of that label out.

    Raises
    ------
    InputError
        The file is missing or damaged, lacks a column, has no rows, or gives one label two meanings.
    """
    from uce.genes.annotations.delimited import read_columns

    path = Path(path)
    mapping: dict[tuple[str, str], str] = {}
    for line, (label, shared, file) in read_columns(path, _SPELLINGS, needed=2, form=form):
        key = (file, plain_label(label))
        if mapping.setdefault(key, shared) != shared:
            msg = f"{path}: line {line}: {printable(label)!r} has two shared labels. Keep one."
            raise InputError(msg)
    if not mapping:
        msg = f"{path}: no rows. The form is {form}."
        raise InputError(msg)
    return mapping


def plain_label(label: str) -> str:
    """`label` without what does not tell labels apart: case, punctuation (except + and -) and spaces.

    "CD4+ T cell" and "cd4+_T-cell" are one label; "CD14+" and "CD14-" are two.
    """
    return re.sub(r"(?<=\w)-(?=\w)|[\s_.,;:/()\[\]'\"]+", " ", label.casefold()).strip()


def harmonise(
    first: Texts,
    second: Texts,
    label_map: Mapping[tuple[str, str], str] | None,
    sides: Sequence[Sequence[str]],
) -> Harmonised:
    """Make the labels of two data sets one set.

    Parameters
    ----------
    first, second
        (cells,) labels as they are.
    label_map
        See `read_label_map`. A label it does not name belongs to its side alone. Without a map labels are the same
        whose names are equal but for case and punctuation.
    sides
        For each side the names that the map's column `file` may have for it (file, data set, species), the first one
        for messages.

    Raises
    ------
    InputError
        The map names a file that is neither side, or no label is shared; the message has the labels of both.
    """
    known = {name for names in sides for name in names}
    if strangers := sorted({file for file, _ in label_map or {}} - known - {""}):
        msg = f"label map: {shorten(strangers)} is neither {' nor '.join(repr(names[0]) for names in sides)}."
        raise InputError(msg)
    if label_map is None:
        made = _by_name(first, second)
    else:
        made = [_by_map(labels, label_map, names) for labels, names in zip((first, second), sides, strict=True)]
    shared = tuple(sorted((set(made[0].values()) & set(made[1].values())) - {""}))
    if not shared:
        raise InputError(_nothing_shared(first, second, sides, label_map is not None))
    mapping = tuple(
        {"file": names[0], "label": label, "shared": new, "both": new in shared}
        for names, renamed in zip(sides, made, strict=True)
        for label, new in renamed.items()
    )
    columns = [_replaced(labels, renamed) for labels, renamed in zip((first, second), made, strict=True)]
    return Harmonised(columns[0], columns[1], shared, mapping)


def _by_name(first: Texts, second: Texts) -> list[dict[str, str]]:
    """For each side label -> what it becomes: the first spelling of it, that of the first side before the second's."""
    kinds = [np.unique(labels).tolist() for labels in (first, second)]
    spelled: dict[str, str] = {}
    for label in [*kinds[0], *kinds[1]]:
        spelled.setdefault(plain_label(label), label)
    return [{label: spelled[plain_label(label)] for label in each} for each in kinds]


def _by_map(labels: Texts, label_map: Mapping[tuple[str, str], str], names: Sequence[str]) -> dict[str, str]:
    """Label of one side -> what it becomes; one that the map does not name says which side it is of."""
    renamed = {}
    for label in np.unique(labels).tolist():
        found = [label_map[key] for name in (*names, "") if (key := (name, plain_label(label))) in label_map]
        renamed[label] = found[0] if found else f"{label} ({names[0]})"
    return renamed


def _replaced(labels: Texts, renamed: Mapping[str, str]) -> Texts:
    kinds, codes = np.unique(labels, return_inverse=True)
    return np.array([renamed[label] for label in kinds.tolist()], dtype=np.str_)[codes]


def _nothing_shared(first: Texts, second: Texts, sides: Sequence[Sequence[str]], mapped: bool) -> str:
    shown = " and ".join(
        f"{names[0]} has {shorten(np.unique(labels).tolist(), limit=20)}"
        for labels, names in zip((first, second), sides, strict=True)
    )
    way = (
        "Name shared labels for both in the label map" if mapped else "Say which are the same with --label-map map.csv"
    )
    return f"no label is shared: {shown}. {way} (columns {FORM})."

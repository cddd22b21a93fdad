"""The labelled cells that labels are taken from: read, renamed where a map says so, those without a label left out."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uce.annotation.sources import Input, Side
from uce.cells.counts import open_source
from uce.cells.labels import is_labelled
from uce.cells.slots import Source
from uce.cells.stores import reading
from uce.errors import InputError, UsageError
from uce.evaluation.cells import Texts
from uce.evaluation.embeddings import Floats
from uce.evaluation.label_map import plain_label, read_label_map
from uce.files import nearest, shorten

LabelMap = str | Path | Mapping[str, str]
FORM = "from,to"


@dataclass(frozen=True, eq=False)
class Reference:
    """Labelled cells that have a vector.

    Attributes
    ----------
    labels
        (cells,) text.
    vectors
        (cells, dim) float32 unit rows.
    groups
        (cells,) the donor, or whatever is independent, of each; None where no column was given.
    rows
        (cells,) position of each in the source.
    left_out
        In words, how many cells of the source are not here, by reason.
    """

    labels: Texts
    vectors: Floats
    groups: Texts | None
    rows: NDArray[np.int64]
    left_out: dict[str, int]

    def take(self, kept: NDArray[np.int64] | NDArray[np.bool_]) -> "Reference":
        """Some of the cells."""
        groups = None if self.groups is None else self.groups[kept]
        return Reference(self.labels[kept], self.vectors[kept], groups, self.rows[kept], self.left_out)


def read_columns(given: Input, label_key: str, group_key: str | None) -> tuple[NDArray[np.object_], Texts | None]:
    """(cells,) labels, None where missing, and groups as text: what can be refused before any work.

    Raises
    ------
    UsageError
        A column that is not there; the nearest one is offered.
    InputError
        The source cannot be read, or no cell has a label.
    """
    with closing((source := open_source(given.data, genome=given.options.genome)).stack):
        labels = _column(source, given, label_key)
        groups = None if group_key is None else _column(source, given, group_key)
    if not is_labelled(labels).any():
        held = shorten(sorted({str(label) for label in labels if label is not None})) or "nothing"
        msg = f"{given.name}: no cell has a label in obs column {label_key!r} (it holds {held})."
        raise InputError(msg)
    return labels, None if groups is None else np.array(["" if g is None else str(g) for g in groups], np.str_)


def _column(source: Source, given: Input, name: str) -> NDArray[np.object_]:
    if name not in source.cells.columns:
        there = shorten(source.cells.columns, limit=12) or "none"
        msg = f"{given.name}: obs has no column {name!r}.{nearest(name, source.cells.columns)} Columns: {there}."
        raise UsageError(msg)
    with reading(f"{given.name}: obs/{name}"):
        return source.cells.text(name)


def make_reference(
    side: Side, labels: NDArray[np.object_], groups: Texts | None, label_map: LabelMap | None
) -> Reference:
    """The cells of `side` that have a label and a vector, labels renamed by the map.

    Raises
    ------
    InputError
        None is left, each has a label of its own, or the map names no label that is there.
    """
    texts = np.array(["" if label is None else str(label) for label in labels], np.str_)
    labelled = is_labelled(labels)
    if label_map is not None:
        texts = _renamed(texts, labelled, label_map)
    named = labelled & is_labelled(texts)
    there = np.isfinite(side.vectors).all(axis=1)
    grouped = np.ones(len(texts), bool) if groups is None else groups != ""
    kept = np.flatnonzero(named & there & grouped)
    if not len(kept):
        msg = f"{side.given.name}: no cell has a label and a vector{'' if groups is None else ' and a group'}."
        raise InputError(msg)
    if 1 < len(kept) == len(np.unique(texts[kept])):
        msg = f"{side.given.name}: every cell has a label of its own. Give another --label-key."
        raise InputError(msg)
    reasons = {
        "without a label": ~labelled,
        "left out by the label map": labelled & ~named,
        "without a vector": named & ~there,
        "without a group": named & there & ~grouped,
    }
    left_out = {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
    return Reference(
        texts[kept],
        np.ascontiguousarray(side.vectors[kept]),
        None if groups is None else groups[kept],
        kept,
        left_out,
    )


def _renamed(labels: Texts, labelled: NDArray[np.bool_], label_map: LabelMap) -> Texts:
    """Labels after the map; what it does not name stays as it is, what it maps to nothing becomes empty."""
    if isinstance(label_map, Mapping):
        name, new_names = "label_map", {plain_label(old): new for old, new in label_map.items()}
    else:
        name, new_names = str(label_map), {old: new for (_, old), new in read_label_map(label_map, form=FORM).items()}
    kinds, codes = np.unique(labels, return_inverse=True)
    plain = [plain_label(str(kind)) for kind in kinds]
    if not set(plain) & set(new_names):
        there = shorten(np.unique(labels[labelled]).tolist(), limit=12)
        msg = f"{name}: names none of the labels of the reference ({there})."
        raise InputError(msg)
    renamed = [new_names.get(word, str(kind)) for word, kind in zip(plain, kinds, strict=True)]
    return np.array(renamed, np.str_)[codes]

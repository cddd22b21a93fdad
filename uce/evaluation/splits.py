"""Which cells are held out together: whole datasets, assays or donors; never cells at random, unless that is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.evaluation.cells import Cells, Texts
from uce.evaluation.context import Settings
from uce.evaluation.results import NotPossible

Kind = Literal["dataset", "assay", "donor", "batch", "random"]
Mask = NDArray[np.bool_]

FOLDS = 5
_EACH_ALONE = {"dataset": 10, "assay": 10, "donor": FOLDS, "batch": FOLDS}  # up to so many, each is a fold of its own
_SHARED_CELLS = 0.5  # cells of a label that occurs in two groups or more, at least


@dataclass(frozen=True, eq=False)
class Split:
    """Every cell is held out once, with all cells of its group.

    Attributes
    ----------
    kind
        What is held out.
    folds
        (cells,) number of the fold that a cell is tested in.
    judged
        (cells,) whether it is tested at all: a cell whose counts also occur in another fold is only trained on.
    groups
        (cells,) the groups that folds are made of.
    units
        (cells,) the smallest independent groups known, for intervals and inner splits: donors, if there are any.
    title
        For the heading of every table that rests on it.
    watermark
        Whether the scores are too good to be quoted: cells of one donor are on both sides.
    notes
        Why a better split was not possible, and what was left out.
    """

    kind: Kind
    folds: NDArray[np.int64]
    judged: Mask
    groups: Texts
    units: Texts
    title: str
    watermark: bool = False
    notes: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """The words that every score of a random split carries; else ""."""
        return "RANDOM SPLIT: cells of one donor may be on both sides" if self.watermark else ""

    def __post_init__(self) -> None:
        pairs = np.unique(np.stack([self.groups, self.folds.astype(np.str_)]), axis=1)
        if pairs.shape[1] > len(np.unique(self.groups)):
            raise AssertionError("a group is on both sides of the split")

    def __iter__(self) -> Iterator[tuple[Mask, Mask]]:
        """(cells to fit on, cells to judge) of every fold, as masks."""
        for fold in np.unique(self.folds):
            held_out = self.folds == fold
            yield ~held_out, held_out & self.judged


def split_of(cells: Cells, settings: Settings) -> Split:
    """The best split that these cells allow, see `make_split`.

    Raises
    ------
    NotPossible
        There is one label, or nothing to hold out.
    """
    if len(np.unique(cells.labels)) < 2:
        raise NotPossible("all cells have one label; two are needed")
    return make_split(
        cells.labels,
        datasets=cells.datasets,
        assays=cells.assays,
        groups=cells.groups,
        batches=cells.batches,
        counts=cells.counts,
        random_split=settings.random_split,
        seed=settings.seed,
    )


def make_split(
    labels: Texts,
    *,
    datasets: Texts | None = None,
    assays: Texts | None = None,
    groups: Texts | None = None,
    batches: Texts | None = None,
    counts: csr_matrix | None = None,
    random_split: bool = False,
    seed: int = 0,
) -> Split:
    """Hold out datasets, else assays, else donors (`groups`), else batches: the first that can serve.

    A key can serve if it has two groups, and labels that occur in two of them cover half the cells: a classifier cannot
    know a label that is held out altogether, as where every donor is a cell line with a name of its own.

    Parameters
    ----------
    labels
        (cells,) text.
    counts
        (cells, columns), to find cells with the same counts on both sides of a fold.
    random_split
        Split cells at random, within labels, where no key can serve; watermarked.

    Raises
    ------
    NotPossible
        No key can serve; with the reason for each.
    """
    keys: dict[Kind, Texts | None] = {
        "dataset": datasets,
        "assay": _apart(assays, groups),
        "donor": groups,
        "batch": batches,
    }
    reasons: list[str] = []
    for kind, key in keys.items():
        reason = _unfit(kind, labels, key)
        if reason is None and key is not None:
            folds = grouped_folds(labels, key, alone=_EACH_ALONE[kind])
            judged, notes = _without_copies(folds, counts)
            title = _title(kind, int(folds.max()) + 1, len(np.unique(key)), donors_known=groups is not None)
            units = key if groups is None else groups
            return Split(kind, folds, judged, key, units, title, notes=(*reasons, *notes))
        if key is not None:
            reasons.append(str(reason))
    why = "; ".join(reasons) or "there is no column of datasets, assays, donors or batches"
    if not random_split:
        msg = f"no independent group to hold out: {why}. Name a column of donors with at least two that share labels"
        raise NotPossible(f"{msg}, or allow a random split, which is marked")
    return _random(labels, seed, counts, (*reasons,))


def _unfit(kind: str, labels: Texts, key: Texts | None) -> str | None:
    """Why a column cannot be held out by, in words; None if it can."""
    if key is None:
        return f"no {_several(kind)} are known"
    if len(np.unique(key)) < 2:
        return f"there is one {kind} only"
    pairs = np.unique(np.stack([labels, key]), axis=1)[0]
    names, times = np.unique(pairs, return_counts=True)
    shared = names[times > 1]
    if len(shared) < 2 or np.isin(labels, shared).mean() < _SHARED_CELLS:
        return f"{len(shared)} of {len(names)} labels occur in more than one {kind}, the others could not be learned"
    return None


def _apart(assays: Texts | None, groups: Texts | None) -> Texts | None:
    """Assays, those that share a donor joined into one: a donor must not be on both sides."""
    if assays is None or groups is None:
        return assays
    from scipy.sparse.csgraph import connected_components

    names, codes = np.unique(assays, return_inverse=True)
    donors = np.unique(groups, return_inverse=True)[1]
    links = csr_matrix((np.ones(len(codes)), (codes, donors)))
    part = connected_components(links @ links.T, directed=False)[1]
    joined = [" + ".join(names[part == p]) for p in range(part.max() + 1)]
    return np.asarray(np.asarray(joined)[part[codes]])


def _title(kind: Kind, n_folds: int, n_groups: int, *, donors_known: bool) -> str:
    what = f"each {kind} held out in turn" if n_folds == n_groups else f"{n_folds} folds of held-out {_several(kind)}"
    doubt = "one donor is on both sides" if donors_known else "donors are not known, so one may be on both sides"
    warning = f"; {doubt}" if kind == "batch" else ""
    return f"{what} ({n_groups} {_several(kind)}){warning}"


def _random(labels: Texts, seed: int, counts: csr_matrix | None, reasons: tuple[str, ...]) -> Split:
    order = np.random.default_rng(seed).permutation(len(labels))
    folds = np.empty(len(labels), np.int64)
    # Dealt out in turn, label after label: every fold gets its share of each.
    folds[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    judged, notes = _without_copies(folds, counts)
    parts = np.char.add("random part ", folds.astype(np.str_))
    title = "RANDOM split of cells: cells of one donor are on both sides, the scores measure memory"
    return Split("random", folds, judged, parts, parts, title, watermark=True, notes=(*reasons, *notes))


def grouped_folds(labels: Texts, groups: Texts, *, folds: int = FOLDS, alone: int = FOLDS) -> NDArray[np.int64]:
    """(cells,) fold of every cell, whole groups together.

    Each group is a fold if there are at most `alone` of them; else there are `folds` folds with about the same share of
    every label (scikit-learn's `StratifiedGroupKFold`).
    """
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) <= alone:
        return codes.astype(np.int64)
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    chosen = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class in y")
        # A label with fewer cells than folds says nothing about how to deal groups out.
        kinds, kind, times = np.unique(labels, return_inverse=True, return_counts=True)
        known = kind if times.max() >= folds else np.zeros_like(kind)
        for number, (_, test) in enumerate(StratifiedGroupKFold(folds).split(kinds[kind], known, groups)):
            chosen[test] = number
    return np.unique(chosen, return_inverse=True)[1].astype(np.int64)


def _without_copies(folds: NDArray[np.int64], counts: csr_matrix | None) -> tuple[Mask, tuple[str, ...]]:
    judged = np.ones(len(folds), dtype=bool)
    if counts is None:
        return judged, ("copies of a cell were not looked for: the counts are not at hand",)
    same = np.unique(count_keys(counts), return_inverse=True)[1]
    first = np.full(same.max() + 1, -1)
    first[same] = folds
    split = np.unique(same[first[same] != folds])
    judged = ~np.isin(same, split)
    left_out = int((~judged).sum())
    return judged, (f"{left_out} cells have the counts of a cell in another fold and are not judged",) * (left_out > 0)


def count_keys(counts: csr_matrix) -> NDArray[np.uint64]:
    """(cells,) 64-bit hash of every row: equal for equal counts, in whatever order and with whatever zeros stored."""
    sorted_counts = counts.copy()
    sorted_counts.sum_duplicates()
    sorted_counts.eliminate_zeros()
    ends, columns = sorted_counts.indptr, sorted_counts.indices.astype("<i8")
    values = sorted_counts.data.astype("<f8")
    digests = (
        blake2b(columns[a:b].tobytes() + values[a:b].tobytes(), digest_size=8).digest()
        for a, b in pairwise(ends.tolist())
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _several(kind: str) -> str:
    return "batches" if kind == "batch" else f"{kind}s"

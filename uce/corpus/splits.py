"""Training, validation or test: by dataset or by donor, never by cell, as a pure function of names and a salt."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from uce.corpus.manifest import DatasetRow
from uce.errors import UsageError
from uce.genes.catalogue import canonical_species

TRAIN, BY_DONOR = "train", "by donor"
SPLITS = (TRAIN, "validation", "test")


@dataclass(frozen=True)
class SplitRule:
    """How cells are assigned where the manifest does not say it.

    Attributes
    ----------
    by
        "dataset" (sisters of one study stay together) or "donor".
    validation, test
        Shares of the datasets or donors, 0 to 1.
    held_out
        Species of which nothing may be trained on.
    salt
        Another text gives another assignment.
    """

    by: str = "dataset"
    validation: float = 0.05
    test: float = 0.05
    held_out: tuple[str, ...] = ()
    salt: str = "uce"

    def __post_init__(self) -> None:
        if self.by not in ("dataset", "donor"):
            msg = f"splits by {self.by!r}: dataset or donor."
            raise UsageError(msg)
        if min(self.validation, self.test) < 0 or self.validation + self.test > 1:
            msg = f"shares of validation {self.validation:g} and test {self.test:g}: from 0, and 1 together at most."
            raise UsageError(msg)
        object.__setattr__(self, "held_out", tuple(sorted(canonical_species(name) for name in self.held_out)))

    def drawn(self, name: str) -> str:
        """The split of a study or donor of this name."""
        digest = hashlib.sha256(f"{self.salt}\n{name}".encode()).digest()
        point = int.from_bytes(digest[:8], "big") / 2**64
        if point < self.test:
            return "test"
        return "validation" if point < self.test + self.validation else TRAIN


def dataset_split(row: DatasetRow, rule: SplitRule) -> str:
    """The split of a dataset: of a held-out species "test", else as its row says, else by the rule, or "by donor"."""
    if row.species in rule.held_out:
        return row.split if row.split and row.split != TRAIN else "test"
    if row.split:
        return row.split
    return BY_DONOR if rule.by == "donor" else rule.drawn(row.study or row.name)


@dataclass(frozen=True)
class Assignment:
    """The splits of the cells of one dataset.

    Attributes
    ----------
    split
        Of all of them, or "by donor".
    donors
        Donor -> split; empty where the dataset is split as a whole.
    """

    split: str
    donors: Mapping[str, str] = field(default_factory=dict)

    def codes(self, donors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """(cells,) places in `SPLITS` of the cells of these donors."""
        names, which = np.unique(donors.astype(str), return_inverse=True)
        return np.array([SPLITS.index(self.donors.get(name, self.split)) for name in names.tolist()])[which]


def assign(row: DatasetRow, donors: Sequence[str], rule: SplitRule) -> Assignment:
    """The splits of a dataset with these donors; one that names none is split as a whole, whatever the rule says."""
    split = dataset_split(row, rule)
    if split != BY_DONOR:
        return Assignment(split)
    if not donors:
        return Assignment(rule.drawn(row.study or row.name))
    return Assignment(split, {donor: donor_split(row, donor, rule) for donor in donors})


def donor_split(row: DatasetRow, donor: str, rule: SplitRule) -> str:
    """The split of one donor of a dataset that is split by donor; donors of one study are one person under one name."""
    return rule.drawn(f"{row.study or row.name}\n{donor}")


def split_record(assignments: Mapping[str, Assignment], rule: SplitRule) -> dict[str, dict[str, object]]:
    """What `splits/main.json` holds: the rule, and the lists of datasets and donors that came of it."""
    datasets = {
        split: sorted(name for name, own in assignments.items() if own.split == split) for split in (*SPLITS, BY_DONOR)
    }
    by_donor = {name: dict(own.donors) for name, own in assignments.items() if own.donors}
    return {
        "rule": {
            "by": rule.by,
            "validation": rule.validation,
            "test": rule.test,
            "salt": rule.salt,
            "held_out_species": list(rule.held_out),
        },
        "datasets": dict(datasets),
        "donors": dict(by_donor),
    }

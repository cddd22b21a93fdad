"""Splits by dataset or donor: functions of names, sisters together, what the manifest says goes first."""

from dataclasses import replace

import numpy as np
import pytest

from uce.corpus.manifest import DatasetRow
from uce.corpus.splits import BY_DONOR, SPLITS, Assignment, SplitRule, assign, dataset_split, donor_split, split_record
from uce.errors import UsageError

ROW = DatasetRow(2, "one", "one.h5ad", "homo_sapiens")
HALF = SplitRule(validation=0.25, test=0.25)


def test_what_the_manifest_says_wins() -> None:
    assert {dataset_split(replace(ROW, split=split), HALF) for split in ("train", "validation", "test")} == {
        "train",
        "validation",
        "test",
    }


def test_datasets_are_spread_by_the_shares() -> None:
    drawn = [dataset_split(replace(ROW, name=f"d{i}"), HALF) for i in range(4000)]
    assert abs(drawn.count("test") / 4000 - 0.25) < 0.03
    assert abs(drawn.count("validation") / 4000 - 0.25) < 0.03


def test_sisters_of_one_study_stay_together() -> None:
    assert len({dataset_split(replace(ROW, name=f"d{i}", study="GSE1"), HALF) for i in range(50)}) == 1


def test_another_salt_gives_another_assignment() -> None:
    rows = [replace(ROW, name=f"d{i}") for i in range(50)]
    assert [dataset_split(row, HALF) for row in rows] != [dataset_split(row, replace(HALF, salt="b")) for row in rows]


def test_nothing_of_a_held_out_species_is_trained_on() -> None:
    rule = replace(HALF, held_out=("human",), test=0.0, validation=0.0)
    assert dataset_split(ROW, rule) == "test"
    assert dataset_split(replace(ROW, split="validation"), rule) == "validation"
    assert dataset_split(replace(ROW, species="mus_musculus"), rule) == "train"


def test_a_split_by_donor_lists_every_donor() -> None:
    rule = replace(HALF, by="donor")
    donors = [f"p{i}" for i in range(60)]
    rows = [ROW, replace(ROW, name="two", split="test")]
    record = split_record({row.name: assign(row, donors, rule) for row in rows}, rule)
    assert record["datasets"] == {"train": [], "validation": [], "test": ["two"], BY_DONOR: ["one"]}
    assert record["donors"] == {"one": {donor: donor_split(ROW, donor, rule) for donor in donors}}
    assert set(record["donors"]["one"].values()) == {"train", "validation", "test"}  # type: ignore[attr-defined]


def test_a_donor_of_two_datasets_of_a_study_has_one_split() -> None:
    rule = replace(HALF, by="donor")
    sisters = [replace(ROW, name=name, study="GSE1") for name in ("one", "two")]
    assert all(len({donor_split(row, f"p{i}", rule) for row in sisters}) == 1 for i in range(30))


def test_a_dataset_without_donors_is_split_as_a_whole() -> None:
    rule = replace(HALF, by="donor")
    assert {assign(replace(ROW, name=f"d{i}"), [], rule).split for i in range(30)} == set(SPLITS)
    assert assign(replace(ROW, split="test"), ["p1"], rule) == Assignment("test")


def test_cells_are_of_the_split_of_their_donor() -> None:
    assignment = Assignment(BY_DONOR, {"a": "train", "b": "test", "c": "validation"})
    codes = assignment.codes(np.array(["b", "a", "c", "b"], dtype=object))
    assert [SPLITS[code] for code in codes] == ["test", "train", "validation", "test"]
    assert [SPLITS[code] for code in Assignment("validation").codes(np.array(["", ""]))] == ["validation"] * 2


@pytest.mark.parametrize("options", [{"by": "cell"}, {"test": 0.7, "validation": 0.7}, {"test": -0.1}])
def test_rules_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SplitRule(**options)  # type: ignore[arg-type]


def test_the_assignment_is_frozen() -> None:
    assert [HALF.drawn(f"d{i}") for i in range(8)] == [
        "test",
        "train",
        "validation",
        "validation",
        "train",
        "train",
        "test",
        "validation",
    ]

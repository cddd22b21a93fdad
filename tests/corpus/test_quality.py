"""Filters of cells: thresholds by technology, each cell counted once, each filter switchable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.corpus.quality import CELL_FILTERS, CellFacts, QualityRules, judge_cells, why_not_dataset
from uce.errors import UsageError


def facts(**columns: object) -> CellFacts:
    """Five sound cells, with columns replaced."""
    usual = {
        "genes": [800, 900, 1000, 1100, 1200],
        "counts": [2000, 2200, 2400, 2600, 2800],
        "mito": [20] * 5,
        "matched": [1900, 2000, 2200, 2400, 2600],
    }
    arrays = {
        name: np.array(values, dtype=np.int64)
        for name, values in (usual | {k: v for k, v in columns.items() if k in usual}).items()
    }
    masks = {name: np.array(values) for name, values in columns.items() if name not in usual}
    return CellFacts(**arrays, **masks)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "assay", "filter_name"),
    [
        ({"genes": [199, 900, 1000, 1100, 1200]}, "10x 3' v3", "min_genes"),
        (
            {"counts": [499, 2200, 2400, 2600, 2800], "matched": [400, 2000, 2200, 2400, 2600], "mito": [0] * 5},
            "10x 3' v3",
            "min_counts",
        ),
        ({"mito": [401, 20, 20, 20, 20]}, "10x 3' v3", "max_mito"),
        ({"mito": [101, 20, 20, 20, 20]}, "10x snRNA v3", "max_mito"),
        ({"matched": [999, 2000, 2200, 2400, 2600]}, "10x 3' v3", "matched"),
        ({"counts": [2000, 2200, 2400, 2600, 2_000_000], "matched": [1900, 2000, 2200, 2400, 1_900_000]}, "", "mad"),
        ({"genes": [999, 1100, 1200, 1300, 1400]}, "Smart-seq2", "min_genes"),
        ({"expression": [False, True, True, True, True]}, "10x", "expression"),
        ({"primary": [False, True, True, True, True]}, "10x", "primary"),
        ({"doublet": [True, False, False, False, False]}, "10x", "doublets"),
        ({"matched": [0, 2000, 2200, 2400, 2600]}, "10x", "empty"),
    ],
)
def test_each_filter_removes_its_cell_and_counts_it(
    changes: dict[str, list[object]], assay: str, filter_name: str
) -> None:
    keep, removed = judge_cells(facts(**changes), assay, QualityRules())
    assert keep.sum() == 4
    assert {name for name, count in removed.items() if count} == {filter_name}
    if filter_name != "empty":
        kept, counted = judge_cells(facts(**changes), assay, QualityRules(off=(filter_name,)))
        assert kept.all()
        assert filter_name not in counted


def test_full_length_methods_need_no_counts_and_more_genes() -> None:
    cells = facts(genes=[1500] * 5, counts=[300] * 5, matched=[300] * 5, mito=[0] * 5)
    assert judge_cells(cells, "Fluidigm C1 SMARTer", QualityRules())[0].all()
    assert not judge_cells(cells, "10x 3' v2", QualityRules())[0].any()


def test_nuclei_may_be_told_by_the_file() -> None:
    cells = facts(mito=[150] * 5)
    assert judge_cells(cells, "10x 3' v3", QualityRules())[0].all()
    assert not judge_cells(cells, "10x 3' v3", QualityRules(), nuclei=True)[0].any()


@given(st.integers(0, 10_000), st.sets(st.sampled_from(CELL_FILTERS)))
def test_kept_and_removed_cells_add_up(seed: int, off: set[str]) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 5000, 40)
    cells = CellFacts(
        random.integers(0, 2500, 40),
        counts,
        (counts * random.random(40) * 0.4).astype(np.int64),
        (counts * random.random(40)).astype(np.int64),
        primary=random.random(40) < 0.9,
        doublet=random.random(40) < 0.1,
    )
    keep, removed = judge_cells(cells, "10x", QualityRules(off=tuple(off)))
    assert keep.sum() + sum(removed.values()) == 40
    assert not off & set(removed)


@pytest.mark.parametrize(
    ("assay", "genes", "reason"),
    [
        ("10x 3' v3", 20_000, ""),
        ("10x multiome (GEX + ATAC)", 20_000, ""),
        ("10x scATAC-seq", 20_000, "assay"),
        ("Visium Spatial Gene Expression", 20_000, "assay"),
        ("MERFISH", 20_000, "assay"),
        ("10x 3' v3", 999, "panel"),
    ],
)
def test_a_dataset_of_another_kind_is_left_out(assay: str, genes: int, reason: str) -> None:
    assert why_not_dataset(assay, genes, 0.1, QualityRules()).startswith(reason)
    assert bool(why_not_dataset(assay, genes, 0.1, QualityRules())) is bool(reason)
    assert why_not_dataset(assay, genes, 0.1, QualityRules(off=("assay", "panel"))) == ""


def test_names_that_fit_only_without_their_case_are_of_another_species() -> None:
    assert why_not_dataset("10x", 9000, 0.9, QualityRules()).startswith("case: ")
    assert why_not_dataset("10x", 9000, 0.9, QualityRules(off=("case",))) == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"off": ("min_gene",)}, "no filter 'min_gene'. Did you mean min_genes"),
        ({"max_mito": 20.0}, "from 0 to 1"),
        ({"min_matched": -0.1}, "from 0 to 1"),
        ({"mad": 0.0}, "above 0"),
        ({"max_cells": 0}, "above 0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        QualityRules(**options)  # type: ignore[arg-type]

"""What a user may get wrong with `uce annotate`: one clear line before any work, and nothing lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import uce
from uce.annotation.reference import make_reference
from uce.annotation.sources import Input, Side
from uce.errors import InputError, OutputExistsError
from uce.evaluation.counts import CountsOptions

VECTORS = np.eye(4, dtype=np.float32)


def side() -> Side:
    return Side(Input("ref.h5ad", "reference", CountsOptions()), VECTORS, {}, "h5ad", new=False)


def test_a_reference_that_cannot_teach_is_refused_with_the_reason() -> None:
    types = np.array(["a", "a", "b", "b"], dtype=object)
    with pytest.raises(InputError, match="every cell has a label of its own"):
        make_reference(side(), np.array(["a", "b", "c", "d"], dtype=object), None, None)
    with pytest.raises(InputError, match="no cell has a label and a vector and a group"):
        make_reference(side(), types, np.array([""] * 4), None)
    assert len(make_reference(side(), types, None, None).labels) == 4


def test_a_label_map_is_looked_at_before_the_work_in_its_own_words(
    make_cells: Callable[..., ad.AnnData], tmp_path: Path
) -> None:
    (tmp_path / "map.csv").write_text("a,b\n1,2\n")
    cells = make_cells(10, 300)
    with pytest.raises(InputError, match=r"no column label among a, b\. The form is from,to"):
        uce.annotate(cells, reference=cells, label_key="kind", label_map=tmp_path / "map.csv", quiet=True)
    assert not cells.obsm


def test_vectors_of_others_are_not_replaced_in_memory(make_cells: Callable[..., ad.AnnData], tiny_folder: Path) -> None:
    cells = make_cells(60, 600, seed=4)
    query, reference = cells[:20].copy(), cells[20:].copy()
    mine = np.ones((20, 3), np.float32)
    query.obsm["X_uce"] = mine
    query.uns["uce"] = "mine too"
    options: dict[str, Any] = {"reference": reference, "label_key": "kind", "model": tiny_folder, "pca": False}
    with pytest.raises(OutputExistsError, match=r"obsm\['X_uce'\] was not made by this model"):
        uce.annotate(query, **options, quiet=True)
    np.testing.assert_array_equal(query.obsm["X_uce"], mine)
    assert not [name for name in query.obs if name.startswith("uce_")]
    uce.annotate(query, **options, overwrite=True, quiet=True)
    assert query.obsm["X_uce"].shape == (20, 16)
    assert set(query.uns["uce"]) == {"X_uce"}


def test_a_file_with_other_things_where_records_are_is_labelled(
    make_cells: Callable[..., ad.AnnData], tiny_folder: Path, tmp_path: Path
) -> None:
    cells = make_cells(60, 600, seed=4)
    cells.uns["uce"] = "something else"
    cells.write_h5ad(tmp_path / "cells.h5ad")
    options: dict[str, Any] = {"label_key": "kind", "model": tiny_folder, "pca": False, "pictures": False}
    done = uce.annotate_file(
        tmp_path / "cells.h5ad", tmp_path / "out.h5ad", reference=tmp_path / "cells.h5ad", **options, quiet=True
    )
    assert set(ad.read_h5ad(done.path).uns["uce"]) == {"X_uce"}

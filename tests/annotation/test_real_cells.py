"""Real skin of six people: four label the other two."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import uce

LABEL = "cell_type_coarse"


@pytest.fixture(scope="module")
def skin(shared: Path) -> tuple[ad.AnnData, ad.AnnData]:
    """Query (two donors) and reference (four), every other cell, embedded."""
    cells = ad.read_h5ad(shared / "data/cells/human_skin_ctcl.h5ad")[::2].copy()
    uce.embed(cells, species="human", quiet=True)
    asked = cells.obs["donor"].isin(sorted(cells.obs["donor"].unique())[::3]).to_numpy()
    return cells[asked].copy(), cells[~asked].copy()


def annotated(
    skin: tuple[ad.AnnData, ad.AnnData], reference: ad.AnnData | None = None, **options: object
) -> ad.AnnData:
    query = skin[0].copy()
    known = skin[1] if reference is None else reference
    uce.annotate(query, reference=known, label_key=LABEL, group_key="donor", quiet=True, **options)
    return query


def test_new_donors_get_their_labels_and_a_confidence_that_holds(skin: tuple[ad.AnnData, ad.AnnData]) -> None:
    query = annotated(skin)
    right = query.obs["uce_best_label"].astype(str) == query.obs[LABEL].astype(str)
    assert right.mean() > 0.9
    assert abs(query.obs["uce_confidence"].mean() - right.mean()) < 0.05
    facts = query.uns["uce_annotate"]
    assert facts["held_out"]["ece"] < 0.05
    assert facts["pca"]["agreement"] > 0.8
    assert {"macro_f1", "accuracy"} == set(facts["pca"]["ours"]) == set(facts["pca"]["pca"])


@pytest.mark.parametrize("label", ["T_cell", "keratinocyte"])
def test_a_type_that_the_reference_lacks_is_mostly_unknown(skin: tuple[ad.AnnData, ad.AnnData], label: str) -> None:
    query = annotated(skin, skin[1][skin[1].obs[LABEL] != label].copy(), pca=False)
    missing = (query.obs[LABEL] == label).to_numpy()
    assert query.obs["uce_unknown"][missing].mean() > 0.5
    assert query.obs["uce_unknown"][~missing].mean() < 0.25


def test_labels_dealt_at_random_are_unknown(skin: tuple[ad.AnnData, ad.AnnData]) -> None:
    dealt = skin[1].copy()
    dealt.obs[LABEL] = np.random.default_rng(0).permutation(dealt.obs[LABEL].astype(str))
    query = annotated(skin, dealt, pca=False)
    assert query.obs["uce_confidence"].mean() < 0.5
    assert query.obs["uce_unknown"].mean() > 0.5

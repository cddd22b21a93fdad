"""Principal components beside the model, and markers: planted counts give back what was planted."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from uce.annotation.beside import compare, marker_table
from uce.annotation.labelling import label_cells
from uce.annotation.reference import make_reference
from uce.annotation.sources import Input, Side
from uce.evaluation.counts import CountsOptions
from uce.genes.collection import load_gene_table


def side(role: str, kinds: np.ndarray, species: str = "human", rows: slice = slice(0, 300), seed: int = 0) -> Side:
    """Cells of three kinds with 20 loud genes each, and vectors that say nothing."""
    table = load_gene_table(species)
    names = table.ids[rows]
    rates = np.full((3, len(names)), 0.3)
    for kind in range(3):
        rates[kind, 20 * kind : 20 * kind + 20] = 8
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(rng.poisson(rates[kinds]).astype(np.float32))
    adata = ad.AnnData(
        counts, obs=pd.DataFrame(index=[f"c{i}" for i in range(len(kinds))]), var=pd.DataFrame(index=names)
    )
    vectors = rng.standard_normal((len(kinds), 8)).astype(np.float32)
    record = {"species": {table.species: table.sha256}, "gene_vectors": table.encoder}
    return Side(Input(adata, role, CountsOptions()), vectors, record, "AnnData", new=False)


def test_components_find_what_vectors_do_not() -> None:
    kinds, asked = np.arange(120) % 3, np.arange(30) % 3
    reference, query = side("reference", kinds, seed=1), side("query", asked, seed=2)
    labels = np.array([f"kind {kind}" for kind in kinds], dtype=object)
    donors = np.array([f"donor {i // 30}" for i in range(120)])
    found = label_cells(query.vectors, make_reference(reference, labels, donors, None))
    beside = compare(found, query, reference, seed=0)
    assert not isinstance(beside, str)
    assert (beside.labels == np.array([f"kind {kind}" for kind in asked])).all()
    assert beside.facts["pca"]["macro_f1"] == 1
    assert beside.facts["ours"]["macro_f1"] < 0.6
    assert beside.facts["genes"] == 300
    assert len(beside.markers) == 15


def test_without_a_common_gene_the_reason_is_told() -> None:
    kinds = np.arange(60) % 3
    reference, query = side("reference", kinds), side("query", kinds, rows=slice(300, 600))
    labels = np.array([f"kind {kind}" for kind in kinds], dtype=object)
    found = label_cells(query.vectors, make_reference(reference, labels, None, None))
    assert "no gene in common" in str(compare(found, query, reference, seed=0))


def test_markers_are_the_loud_genes_and_are_missed_where_they_are_missing() -> None:
    labels = np.repeat(["a", "b", "few"], [20, 20, 3])
    counts = np.zeros((49, 4), np.float32)
    counts[:20, 0] = counts[20:40, 1] = 5
    counts[:, 3] = 1
    counts[43:46, 0] = 5  # three query cells called a that are, and three that are not
    table = marker_table(sparse.csr_matrix(counts), labels, np.repeat("a", 6), np.array(["g0", "g1", "g2", "g3"]))
    first = table.set_index("label").loc["a"]
    assert first["gene"] == "g0"
    np.testing.assert_allclose([first["reference"], first["query"]], [1, 0.5])
    assert np.isnan(first["other_query"])
    assert "few" not in set(table["label"])

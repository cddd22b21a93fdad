"""Genes as a result: the vectors of the table, behind the first layer, and as means in the context of cells."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import uce
from uce.cells.sentences import write_sentences
from uce.cli.main import main
from uce.errors import InputError, ModelError, UsageError
from uce.gene_embedding import ContextSums, group_keys
from uce.genes.collection import load_gene_table
from uce.genes.vocabulary import build_vocabulary, to_ranks

if TYPE_CHECKING:
    from uce.model.checkpoint import Model

ROUNDING = 1e-6


@pytest.fixture(scope="module")
def cells(make_cells: Callable[..., ad.AnnData]) -> ad.AnnData:
    return make_cells(cells=50, genes=900, seed=3)


@pytest.fixture(scope="module")
def averaged(tiny_model: "Model") -> Callable[..., ad.AnnData]:
    """`uce.gene_embeddings` of human cells by the tiny model, in silence."""

    def run(cells: ad.AnnData | Path | None, **options: Any) -> ad.AnnData:
        return uce.gene_embeddings("human", cells=cells, model=tiny_model, quiet=True, **options)

    return run


@pytest.fixture(scope="module")
def grouped(cells: ad.AnnData, averaged: Callable[..., ad.AnnData]) -> ad.AnnData:
    return averaged(cells, group_by="kind")


def contexts(genes: ad.AnnData) -> dict[str, np.ndarray]:
    return {key: genes.obsm[key] for key in genes.obsm if key.startswith("X_context")}


def assert_same(one: ad.AnnData, other: ad.AnnData, *, atol: float) -> None:
    assert contexts(one).keys() == contexts(other).keys()
    for key, values in contexts(one).items():
        np.testing.assert_allclose(values, other.obsm[key], rtol=0, atol=atol)
    assert one.obs.equals(other.obs)


def repeated(cells: ad.AnnData, count: int) -> ad.AnnData:
    return ad.AnnData(
        cells.X[np.arange(count) % cells.n_obs], obs=pd.DataFrame(index=[f"c{i}" for i in range(count)]), var=cells.var
    )


def by_hand(cells: ad.AnnData, model: "Model", *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (genes, dim) and numbers of cells (genes,), cell by cell and token by token in float64."""
    table = load_gene_table("human")
    vocabulary = build_vocabulary(table, model.specials)
    rows = {symbol: row for row, symbol in enumerate(table.symbols.tolist())}
    columns = np.array([rows[name] for name in cells.var_names])
    ranked = to_ranks(sparse.csr_matrix(cells.X, dtype=np.float64), columns, vocabulary)
    drawn = write_sentences(ranked, vocabulary.gene_chromosomes, vocabulary.gene_keys, rule=model.rule, seed=seed)
    sums, counts = np.zeros((len(table), model.config.dim)), np.zeros(len(table), int)
    row_of_rank = np.argsort(vocabulary.ranks)
    for padded, length in zip(drawn.tokens, drawn.lengths, strict=True):
        tokens = padded[:length]
        x = model.encoder.project(torch.from_numpy(vocabulary.vectors[tokens])) + model.encoder.positions[:length]
        for block in model.encoder.blocks:
            x = block(x[None])[0]
        states = x.double().numpy()
        for token in set(tokens[tokens >= vocabulary.first_gene].tolist()):
            row = row_of_rank[token - vocabulary.first_gene]
            sums[row] += states[tokens == token].mean(axis=0)
            counts[row] += 1
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan), counts


def test_without_cells_a_gene_has_the_vector_of_the_table_and_its_projection(
    averaged: Callable[..., ad.AnnData], tiny_model: "Model"
) -> None:
    table, genes = load_gene_table("human"), averaged(None)
    assert genes.obs_names.tolist() == table.ids.tolist()
    assert list(genes.obs) == ["symbol", "chromosome", "start", "origin", "proteins"]
    assert genes.obs["symbol"].tolist() == table.symbols.tolist()
    np.testing.assert_array_equal(genes.X, table.vectors)
    projected = tiny_model.encoder.project(torch.from_numpy(table.vectors)).numpy()
    np.testing.assert_allclose(genes.obsm["X_projected"], projected, rtol=0, atol=1e-5)
    assert list(genes.obsm) == ["X_projected"]
    assert genes.uns["uce"]["model_sha256"] == tiny_model.sha256
    assert genes.uns["uce"]["species"] == {"homo_sapiens": table.sha256}


def test_the_nearest_gene_of_a_chain_of_the_t_cell_receptor_is_another(averaged: Callable[..., ad.AnnData]) -> None:
    genes = averaged(None)
    unit = genes.X / np.linalg.norm(genes.X, axis=1, keepdims=True)
    cosines = unit @ unit[genes.obs["symbol"] == "CD3E"][0]
    assert set(genes.obs["symbol"].iloc[np.argsort(-cosines)[:3]]) == {"CD3E", "CD3D", "CD3G"}


@pytest.mark.parametrize("seed", [0, 5])
def test_three_cells_averaged_by_hand(
    cells: ad.AnnData, averaged: Callable[..., ad.AnnData], tiny_model: "Model", seed: int
) -> None:
    expected, counts = by_hand(cells[:3], tiny_model, seed=seed)
    genes = averaged(cells[:3].copy(), seed=seed)
    assert {1, 2} <= set(counts.tolist())
    assert genes.obs["n_cells"].tolist() == counts.tolist()
    np.testing.assert_allclose(genes.obsm["X_context"], expected, rtol=0, atol=1e-5)
    assert genes.obsm["X_context"].dtype == np.float32


def test_a_gene_in_no_sentence_has_no_context(grouped: ad.AnnData, cells: ad.AnnData) -> None:
    absent = ~grouped.obs["symbol"].isin(cells.var_names).to_numpy()
    assert not grouped.obs["n_cells"][absent].any()
    missing = np.isnan(grouped.obsm["X_context"])
    assert (missing.all(axis=1) == (grouped.obs["n_cells"] == 0)).all()
    assert (missing.all(axis=1) == missing.any(axis=1)).all()


def test_the_mean_over_all_is_the_weighted_mean_of_the_groups(grouped: ad.AnnData) -> None:
    keys = grouped.uns["uce"]["groups"]["key"]
    weights = np.stack([grouped.obs[f"n_cells:{key}"] for key in keys])
    means = np.nan_to_num(np.stack([grouped.obsm[f"X_context:{key}"] for key in keys])).astype(np.float64)
    total = weights.sum(axis=0)
    assert grouped.obs["n_cells"].tolist() == total.tolist()
    expected = (weights[:, :, None] * means).sum(axis=0)[total > 0] / total[total > 0, None]
    np.testing.assert_allclose(grouped.obsm["X_context"][total > 0], expected, rtol=0, atol=ROUNDING)


def test_a_gene_differs_between_groups(grouped: ad.AnnData) -> None:
    one, other = grouped.obsm["X_context:kind 0"], grouped.obsm["X_context:kind 1"]
    both = ~np.isnan(one[:, 0]) & ~np.isnan(other[:, 0])
    assert both.sum() > 100
    assert np.abs(one - other)[both].max(axis=1).min() > 1e-3


def test_choosing_a_label_gives_the_mean_of_its_group(
    cells: ad.AnnData, grouped: ad.AnnData, averaged: Callable[..., ad.AnnData]
) -> None:
    genes = averaged(cells, where="kind=kind 1")
    np.testing.assert_allclose(genes.obsm["X_context"], grouped.obsm["X_context:kind 1"], rtol=0, atol=ROUNDING)
    assert genes.uns["uce"]["cells_averaged"] == int((cells.obs["kind"] == "kind 1").sum())
    both = averaged(cells, where="kind=kind 1", group_by="kind")
    assert list(contexts(both)) == ["X_context", "X_context:kind 1"]


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_does_not_matter(
    cells: ad.AnnData, grouped: ad.AnnData, averaged: Callable[..., ad.AnnData], batch_size: int
) -> None:
    assert_same(averaged(cells, group_by="kind", batch_size=batch_size), grouped, atol=ROUNDING)


def test_order_of_cells_does_not_matter(
    cells: ad.AnnData, grouped: ad.AnnData, averaged: Callable[..., ad.AnnData]
) -> None:
    order = np.random.default_rng(0).permutation(cells.n_obs)
    assert_same(averaged(cells[order].copy(), group_by="kind"), grouped, atol=ROUNDING)


def test_a_file_and_the_object_in_memory_give_the_same(
    cells: ad.AnnData, grouped: ad.AnnData, averaged: Callable[..., ad.AnnData], tmp_path: Path
) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert_same(averaged(tmp_path / "cells.h5ad", group_by="kind"), grouped, atol=0)


def test_cells_are_read_block_by_block_and_only_where_some_are_chosen(
    cells: ad.AnnData, averaged: Callable[..., ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    from uce.cells.counts import Counts

    many = repeated(cells, 2500)
    many.obs["part"] = np.where(np.arange(2500) < 2100, "first", "last")
    last = averaged(many[2100:].copy())
    ranges, read = [], Counts.read
    monkeypatch.setattr("uce.gene_embedding.stream_gene_states", lambda counts, _reader: ranges.append(counts) or [])
    averaged(many)
    assert [counts.shape[0] for counts in ranges] == [1024, 1024, 452]
    monkeypatch.undo()
    monkeypatch.setattr(Counts, "read", lambda self, start, stop: ranges.append(start) or read(self, start, stop))
    ranges.clear()
    genes = averaged(many, where="part=last")
    assert ranges.count(1024) == 0
    assert_same(genes, last, atol=ROUNDING)
    parts = averaged(many, group_by="part")
    np.testing.assert_allclose(parts.obsm["X_context:last"], last.obsm["X_context"], rtol=0, atol=ROUNDING)


def test_cells_without_a_count_are_in_no_mean(
    cells: ad.AnnData, grouped: ad.AnnData, averaged: Callable[..., ad.AnnData]
) -> None:
    empty = ad.AnnData(sparse.csr_matrix((4, cells.n_vars), dtype=np.float32), var=cells.var)
    empty.obs_names, empty.obs["kind"] = [f"e{i}" for i in range(4)], "none"
    more = ad.concat([cells, empty])
    more.obs.loc["e0", "kind"] = None
    genes = averaged(more, group_by="kind")
    for key in ("none", "unknown"):
        assert not genes.obs[f"n_cells:{key}"].any()
        assert np.isnan(genes.obsm[f"X_context:{key}"]).all()
    np.testing.assert_allclose(genes.obsm["X_context"], grouped.obsm["X_context"], rtol=0, atol=ROUNDING)
    assert (genes.uns["uce"]["cells_chosen"], genes.uns["uce"]["cells_averaged"]) == (54, 50)


def test_any_label_can_be_written_and_is_recorded(
    cells: ad.AnnData, averaged: Callable[..., ad.AnnData], tmp_path: Path
) -> None:
    odd = cells.copy()
    labels = ["T/NK", "T_NK", "a\nb", ".", "αβ T"]
    odd.obs["label"] = np.array(labels)[np.arange(odd.n_obs) % 5]
    averaged(odd, group_by="label").write_h5ad(tmp_path / "genes.h5ad")
    genes = ad.read_h5ad(tmp_path / "genes.h5ad")
    groups = genes.uns["uce"]["groups"]
    assert dict(zip(groups["label"], groups["key"], strict=True)) == {
        ".": ".",
        "T/NK": "T_NK",
        "T_NK": "T_NK_2",
        "a\nb": "a_b",
        "αβ T": "αβ T",
    }
    assert groups["cells"].tolist() == [10] * 5
    assert set(contexts(genes)) == {"X_context"} | {f"X_context:{key}" for key in groups["key"]}
    expected = averaged(odd, where="label=T_NK").obsm["X_context"]
    np.testing.assert_allclose(genes.obsm["X_context:T_NK_2"], expected, rtol=0, atol=ROUNDING)


@given(labels=st.lists(st.text(max_size=4), unique=True, max_size=12))
def test_group_keys_are_plain_and_never_alike(labels: list[str]) -> None:
    keys = group_keys(labels)
    assert len(set(keys)) == len(labels)
    assert all(key.isprintable() and "/" not in key for key in keys)


@settings(deadline=None, max_examples=40)
@given(
    genes=st.lists(st.lists(st.integers(-1, 4), min_size=6, max_size=6), min_size=1, max_size=7),
    cut=st.integers(0, 7),
    seed=st.integers(0, 99),
)
def test_sums_do_not_depend_on_how_cells_are_batched(genes: list[list[int]], cut: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks = np.array(genes)
    groups, states = rng.integers(2, size=len(ranks)), rng.standard_normal((*ranks.shape, 3)).astype(np.float32)
    together, apart, expected = (ContextSums(2, 5, 3) for _ in range(3))
    together.add(groups, ranks, states)
    for part in (slice(None, cut), slice(cut, None)):
        apart.add(groups[part], ranks[part], states[part])
    for cell, row in enumerate(ranks):
        for gene in set(row.tolist()) - {-1}:
            expected.states[groups[cell], gene] += states[cell, row == gene].astype(np.float64).mean(axis=0)
            expected.cells[groups[cell], gene] += 1
    for found in (together, apart):
        np.testing.assert_allclose(found.states, expected.states, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(found.cells, expected.cells)


def test_equal_runs_give_equal_results_with_no_path_and_no_clock(
    cells: ad.AnnData, averaged: Callable[..., ad.AnnData], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    cells.write_h5ad(tmp_path / "a" / "cells.h5ad")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    one, other = (averaged(tmp_path / name, group_by="kind") for name in ("cells.h5ad", "a/cells.h5ad"))
    assert_same(one, other, atol=0)
    texts = [json.dumps(genes.uns["uce"], default=np.ndarray.tolist) for genes in (one, other)]
    assert texts[0] == texts[1]
    assert "cells.h5ad" not in texts[0]
    record = one.uns["uce"]
    assert (record["seed"], record["group_by"], record["where"], record["cells"]) == (0, "kind", "", 50)
    assert record["gene_vectors"] == "orthogroups-v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": "kinds"}, r"obs has no column 'kinds'. Did you mean kind\?"),
        ({"where": "kinds=kind 1"}, r"obs has no column 'kinds'. Did you mean kind\?"),
        ({"where": "kind=kind1"}, r"no cell has kind1 in obs column 'kind'. Did you mean kind 1\?"),
        ({"where": "kind=x\x1b[2J"}, r"no cell has x\\x1b\[2J in obs column 'kind'. There are: kind 0, kind 1, kind 2"),
        ({"where": "kind 1"}, "--where kind 1: give COLUMN=VALUE, such as cell_type=B"),
        ({"batch_size": -1}, "--batch-size -1: must be a whole number"),
        ({"seed": -1}, "--seed -1: must be a whole number"),
        ({"min_coverage": 2}, "--min-coverage 2: must be a share"),
        ({"layer": "count"}, "no layer 'count'"),
    ],
)
def test_options_that_do_not_fit_the_cells_are_refused(
    cells: ad.AnnData, averaged: Callable[..., ad.AnnData], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        averaged(cells, **options)


def test_options_about_cells_need_cells_and_a_species_is_needed_without_them(
    averaged: Callable[..., ad.AnnData], tiny_model: "Model"
) -> None:
    with pytest.raises(UsageError, match="--group-by kind: chooses among cells"):
        averaged(None, group_by="kind")
    with pytest.raises(UsageError, match="--where kind=B: chooses among cells"):
        averaged(None, where="kind=B")
    with pytest.raises(UsageError, match="no species: without cells it cannot be found"):
        uce.gene_embeddings(model=tiny_model)


def test_more_groups_than_the_memory_holds_are_refused(
    cells: ad.AnnData, averaged: Callable[..., ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = repeated(cells, 600)
    named.obs["name"] = named.obs_names
    monkeypatch.setattr("uce.gene_embedding.memory_bytes", lambda device: 4e9)
    with pytest.raises(UsageError, match="--group-by: 600 groups take 3 GB of memory"):
        averaged(named, group_by="name")


def test_the_species_is_found_from_the_cells_and_checked_against_them(cells: ad.AnnData, tiny_model: "Model") -> None:
    ids = dict(zip(load_gene_table("human").symbols, load_gene_table("human").ids, strict=True))
    named = cells.copy()
    named.var_names = [str(ids[name]) for name in cells.var_names]
    found = uce.gene_embeddings(cells=named, model=tiny_model, quiet=True)
    assert list(found.uns["uce"]["species"]) == ["homo_sapiens"]
    with pytest.raises(InputError, match="--species mouse"):
        uce.gene_embeddings("mouse", cells=named, model=tiny_model, quiet=True)


def test_a_species_without_a_table_is_refused(tiny_model: "Model") -> None:
    with pytest.raises(ModelError, match="no gene table of"):
        uce.gene_embeddings("felis_catus", model=tiny_model)


@pytest.fixture
def here(cells: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    cells.write_h5ad("cells.h5ad")
    return tmp_path


def test_the_command_writes_genes_and_says_where(
    here: Path, grouped: ad.AnnData, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gene-embeddings", "cells.h5ad", "--species", "human", "--model", str(tiny_folder), "-o", "genes.h5ad"]
    assert main([*command, "--group-by", "kind"]) == 0
    said = capsys.readouterr()
    assert said.out == "genes.h5ad\n"
    assert "species: homo_sapiens" in said.err
    assert "genes, from 50 cells" in said.err
    np.testing.assert_array_equal(ad.read_h5ad("genes.h5ad").obsm["X_context"], grouped.obsm["X_context"])
    before = Path("genes.h5ad").read_bytes()
    assert main(command) == 5
    assert "genes.h5ad exists" in capsys.readouterr().err
    assert Path("genes.h5ad").read_bytes() == before
    assert main([*command, "--overwrite", "--quiet", "--where", "kind=kind 2", "--batch-size", "7"]) == 0
    assert capsys.readouterr() == ("genes.h5ad\n", "")
    assert list(contexts(ad.read_h5ad("genes.h5ad"))) == ["X_context"]


def test_the_command_needs_no_cells(here: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gene-embeddings", "--species", "yeast", "--model", str(tiny_folder), "-o", "genes.h5ad"]) == 4
    assert "no gene table of" in capsys.readouterr().err
    assert main(["gene-embeddings", "--species", "mouse", "--model", str(tiny_folder), "-o", "genes.h5ad"]) == 0
    assert list(ad.read_h5ad("genes.h5ad").obsm) == ["X_projected"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["cells.h5ad", "-o", "genes.h5ad", "--group-by", "typ"], 2, "obs has no column 'typ'"),
        (["cells.h5ad", "-o", "cells.h5ad", "--overwrite"], 2, "output and input are one file"),
        (["-o", "genes.h5ad"], 2, "no species"),
        (["cells.h5ad", "-o", "nowhere/genes.h5ad"], 6, "nowhere: no such folder"),
        (["nothing.h5ad", "-o", "genes.h5ad"], 3, "nothing.h5ad"),
    ],
)
def test_a_refused_command_writes_nothing(
    here: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    before = Path("cells.h5ad").read_bytes()
    assert main(["gene-embeddings", *words, "--model", str(tiny_folder)]) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert [path.name for path in here.iterdir()] == ["cells.h5ad"]
    assert Path("cells.h5ad").read_bytes() == before

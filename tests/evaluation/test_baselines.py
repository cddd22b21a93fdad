"""Baselines: what they are fitted on, what they keep, what they destroy, and how they say that they cannot be had."""

import builtins
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack

from uce.evaluation.baselines import BASELINES, corpus_pca, hvg, mean_genes, pca, scvi, shuffled_genes, untrained
from uce.evaluation.baselines.harmony import mix_batches
from uce.evaluation.baselines.variable_genes import variable_genes
from uce.evaluation.cells import Cells, log_cp10k
from uce.evaluation.results import NotPossible

if TYPE_CHECKING:
    from anndata import AnnData

    from uce.model.checkpoint import Model

ROOT = Path(__file__).resolve().parents[2]
KINDS = 3


def planted(cells: int = 120, genes: int = 400, *, seed: int = 0, batch: float = 0.0) -> Cells:
    """Three kinds of cells that differ in 60 genes; two batches that differ in 60 others by a factor exp(`batch`)."""
    rng = np.random.default_rng(seed)
    kinds, batches = rng.integers(KINDS, size=cells), rng.integers(2, size=cells)
    rates = np.tile(np.random.default_rng(9).gamma(0.5, 1.0, genes), (cells, 1))
    for kind in range(KINDS):
        rates[np.ix_(kinds == kind, np.arange(20 * kind, 20 * kind + 20))] += 3
    rates[:, 100:160] *= np.exp(batch * batches)[:, None]
    return Cells(
        "planted",
        np.array([f"c{i}" for i in range(cells)], dtype=object),
        np.array([f"kind {k}" for k in kinds]),
        batches=np.array([f"batch {b}" for b in batches]),
        counts=csr_matrix(rng.poisson(rates).astype(np.float64)),
    )


def agreement(vectors: np.ndarray, labels: np.ndarray, *, k: int = 10) -> float:
    """Share of the nearest other cells with the cell's own label."""
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((labels[np.argsort(distances, axis=1)[:, :k]] == labels[:, None]).mean())


def reading(data: "AnnData", model: "Model") -> Cells:
    import torch

    from uce.engines import Settings
    from uce.evaluation.reading import Columns, read_cells

    computing = Settings(torch.device("cpu"), "fp32")
    return read_cells(data, Columns("kind"), model=model, computing=computing).cells


@pytest.fixture(scope="module")
def read(make_cells: Callable[..., "AnnData"], tiny_model: "Model") -> Cells:
    """Simulated cells of three kinds, with a small untrained model made ready for them."""
    return reading(make_cells(cells=60), tiny_model)


# What the axes are


@pytest.mark.parametrize(("cells", "genes"), [(40, 12), (12, 40)])
def test_components_are_those_of_the_singular_value_decomposition(cells: int, genes: int) -> None:
    spread = np.linspace(1, 12, genes)
    values = (np.random.default_rng(0).normal(size=(cells, genes)) * spread).astype(np.float32)
    fit = np.arange(cells) < cells - 2
    ours = pca.principal_components(values, fit, 5)
    centred = (values - values[fit].mean(axis=0)).astype(np.float64)
    axes = np.linalg.svd(centred[fit], full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs(ours), np.abs(centred @ axes.T), atol=2e-3)


@pytest.mark.parametrize("genes", [6, 60])
def test_axes_along_which_cells_do_not_differ_are_left_out(genes: int) -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(30, 2)) @ rng.normal(size=(2, genes))).astype(np.float32)
    assert pca.principal_components(values, np.ones(30, dtype=bool)).shape == (30, 2)
    with pytest.raises(NotPossible, match="do not differ"):
        pca.principal_components(np.ones((30, genes), np.float32), np.ones(30, dtype=bool))


@pytest.mark.parametrize(("cells", "genes", "dim"), [(10, 400, 9), (120, 30, 30), (120, 400, 50)])
def test_few_cells_or_genes_give_fewer_components(cells: int, genes: int, dim: int) -> None:
    data = planted(cells, 400)
    data = replace(data, counts=data.need_counts()[:, :genes])
    vectors = pca.embed(data, None, 0)
    assert vectors.shape == (cells, dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_values_are_not_scaled_to_unit_variance() -> None:
    spread = pca.embed(planted(), None, 0).std(axis=0)
    assert spread[0] > 3 * spread[-1]
    assert (np.diff(spread) <= 1e-4).all()


def test_components_keep_the_kinds_of_cells_and_genes_do_too() -> None:
    data = planted()
    assert agreement(pca.embed(data, None, 0), data.labels) > 0.9
    assert hvg.embed(data, None, 0).shape[1] <= 2000
    assert agreement(hvg.embed(data, None, 0), data.labels) > 0.9


def test_components_do_not_depend_on_the_order_of_genes() -> None:
    data = planted()
    order = np.random.default_rng(3).permutation(400)
    moved = replace(data, counts=data.need_counts()[:, order].tocsr())
    np.testing.assert_allclose(pca.embed(data, None, 0), pca.embed(moved, None, 0), atol=1e-3)


# Which genes


def test_variable_genes_are_those_that_vary() -> None:
    rng = np.random.default_rng(0)
    rates, varied = np.tile(np.linspace(1, 8, 300), (200, 1)), np.arange(0, 300, 15)
    rates[:, varied] *= np.where(np.arange(200) < 100, 0.1, 1.9)[:, None]
    chosen = variable_genes(log_cp10k(csr_matrix(rng.poisson(rates).astype(np.float64))), 20)
    assert len(chosen) == 20
    assert np.isin(chosen, varied).mean() > 0.8


def test_genes_without_counts_are_never_chosen_and_all_others_are_where_there_are_few() -> None:
    data = planted(50, 400)
    counts = data.need_counts().tolil()
    counts[:, 7] = 0
    chosen = variable_genes(log_cp10k(counts.tocsr()))
    assert 7 not in chosen
    assert len(chosen) == np.count_nonzero(np.asarray(counts.sum(axis=0)))


# Fitted on the training cells alone


@pytest.mark.parametrize("name", ["pca", "hvg"])
def test_cells_that_are_held_out_cannot_change_the_fit(name: str) -> None:
    data = planted(160, 3000)  # more than 2,000 genes, so that there is a choice
    train = np.arange(160) < 100
    counts = data.need_counts().copy()
    other = csr_matrix(np.random.default_rng(4).poisson(5.0, size=(60, 3000)).astype(np.float64))
    changed = replace(data, counts=csr_matrix(np.vstack([counts[:100].toarray(), other.toarray()])))
    before, after = (BASELINES[name].embed(cells, train, 0) for cells in (data, changed))
    np.testing.assert_array_equal(before[train], after[train])
    assert not np.allclose(before[~train], after[~train])
    whole = BASELINES[name].embed(data, None, 0)
    assert whole.shape != before.shape or not np.allclose(whole[train], before[train])


def test_every_baseline_is_there_and_fitted_ones_are_those_that_look_at_the_mask(read: Cells) -> None:
    half = np.arange(len(read)) % 2 == 0
    for name, baseline in BASELINES.items():
        if name in ("scvi", "harmony"):
            assert baseline.transductive
            continue
        same = np.array_equal(baseline.embed(read, None, 0), baseline.embed(read, half, 0), equal_nan=True)
        assert same is not baseline.fitted, name


def test_baselines_that_draw_depend_on_the_seed_and_the_others_do_not(read: Cells) -> None:
    for name, baseline in BASELINES.items():
        if name not in ("scvi", "harmony"):
            first, again, other = (baseline.embed(read, None, seed) for seed in (0, 0, 1))
            np.testing.assert_array_equal(first, again)
            assert np.array_equal(first, other) is not baseline.random, name


# Harmony


def test_harmony_mixes_planted_batches_and_keeps_the_kinds() -> None:
    data = planted(240, batch=1.5)
    assert data.batches is not None
    before, after = pca.embed(data, None, 0), BASELINES["harmony"].embed(data, None, 0)
    assert agreement(before, data.batches) > 0.8
    assert agreement(after, data.batches) < 0.65
    assert agreement(after, data.labels) > 0.9
    assert after.shape == before.shape
    assert after.dtype == np.float32


def test_harmony_gives_the_same_for_a_seed_and_works_on_a_handful_of_cells() -> None:
    data = planted(12)
    assert data.batches is not None
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    first, again = (mix_batches(vectors, data.batches, 0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (12, 4)


def test_harmony_that_gives_its_result_the_other_way_round_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    import harmonypy

    class Turned:
        def __init__(self, vectors: np.ndarray, *_: Any, **__: Any) -> None:
            self.Z_corr = vectors.T

    monkeypatch.setattr(harmonypy, "run_harmony", Turned)
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_array_equal(mix_batches(vectors, np.array(list("ababababa")), 0), vectors)
    with pytest.raises(NotPossible, match="either way round"):
        mix_batches(vectors[:4], np.array(list("abab")), 0)


def test_harmony_needs_two_batches() -> None:
    data = planted(30)
    with pytest.raises(NotPossible, match="--batch-key"):
        BASELINES["harmony"].embed(replace(data, batches=None), None, 0)
    with pytest.raises(NotPossible, match="there is one"):
        BASELINES["harmony"].embed(replace(data, batches=np.full(30, "a")), None, 0)


# What is not installed, not there, or too little


@pytest.mark.parametrize(("name", "package", "extra"), [("scvi", "scvi", "scvi"), ("harmony", "harmonypy", "eval")])
def test_a_package_that_is_missing_is_named_with_the_way_to_install_it(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(wanted: str, *rest: Any, **named: Any) -> ModuleType:
        if wanted.partition(".")[0] == package:
            raise ImportError(package)
        return found(wanted, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotPossible, match=rf"pip install 'uce\[{extra}\]'"):
        BASELINES[name].embed(planted(30), None, 0)


@pytest.mark.parametrize("name", list(BASELINES))
def test_without_counts_there_is_no_baseline_and_the_reason_is_told(name: str) -> None:
    data = replace(planted(30), counts=None, why_no_counts="the file holds logarithms")
    with pytest.raises(NotPossible, match=r"logarithms|needs a model"):
        BASELINES[name].embed(data, None, 0)


@pytest.mark.parametrize("name", ["mean-genes", "shuffled-genes", "corpus-pca", "untrained"])
def test_without_a_model_there_are_no_gene_vectors(name: str) -> None:
    with pytest.raises(NotPossible, match="no model was asked for"):
        BASELINES[name].embed(planted(30), None, 0)


def test_two_cells_are_too_few_to_fit_on() -> None:
    with pytest.raises(NotPossible, match="at least 3 cells"):
        pca.embed(planted(30), np.arange(30) < 2, 0)
    with pytest.raises(NotPossible, match="no counts"):
        pca.embed(replace(planted(30), counts=csr_matrix((30, 400))), None, 0)


# scVI


class FakeScvi(ModuleType):
    """What is used of scvi-tools: its result is drawn from the global generators, as training is."""

    def __init__(self) -> None:
        super().__init__("scvi")
        self.settings = type("Settings", (), {"seed": property(fset=lambda _, seed: np.random.seed(seed))})()
        self.calls: list[Any] = []
        calls = self.calls

        class Model:
            def __init__(self, data: "AnnData", **options: Any) -> None:
                calls.append((data, options))

            @staticmethod
            def setup_anndata(data: "AnnData", **options: Any) -> None:
                calls.append(options)

            def train(self, **options: Any) -> None:
                import warnings

                calls.append(options)
                warnings.warn("few workers", UserWarning, stacklevel=1)

            def get_latent_representation(self) -> np.ndarray:
                return np.random.normal(size=(calls[1][0].n_obs, 30))

        self.model = type("model", (), {"SCVI": Model})


def test_scvi_follows_the_recipe_and_leaves_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeScvi()
    monkeypatch.setitem(__import__("sys").modules, "scvi", fake)
    data = planted(40, 2500)
    random.seed(5)
    np.random.seed(5)
    expected = np.random.RandomState(5).normal()
    first, again = (scvi.embed(data, None, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.random.normal() == expected
    assert first.shape == (40, 30)
    assert first.dtype == np.float32
    setup, (given, options), training = fake.calls[:3]
    assert setup == {"batch_key": "batch"}
    assert given.n_vars <= 2000
    assert (given.X.toarray() % 1 == 0).all()  # counts, not logarithms
    assert given.obs["batch"].tolist() == data.batches.tolist()  # type: ignore[union-attr]
    assert options == {"n_latent": 30, "n_layers": 2, "gene_likelihood": "nb"}
    assert training["max_epochs"] == 200
    assert training["early_stopping"]


def test_scvi_wants_counts_in_every_cell() -> None:
    counts = planted(40).need_counts().tolil()
    counts[3] = 0
    with pytest.raises(NotPossible, match="each with counts"):
        scvi.train_scvi(counts.tocsr(), None, 0)


def test_scvi_itself() -> None:
    pytest.importorskip("scvi")
    data = planted(60)
    vectors = scvi.train_scvi(data.need_counts(), data.batches, 0, epochs=3)
    assert vectors.shape == (60, 30)
    assert np.isfinite(vectors).all()


# Means of gene vectors


def test_the_mean_of_gene_vectors_by_hand() -> None:
    counts = csr_matrix([[1.0, 3.0, 0.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    vectors = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32)
    mean = mean_genes.mean_vectors(counts, vectors)
    weights = np.log1p([2500.0, 7500.0])
    expected = np.array([weights[0], 2 * weights[1]])
    np.testing.assert_allclose(mean[0], expected / np.linalg.norm(expected), rtol=1e-5)
    np.testing.assert_allclose(mean[1], np.sqrt([0.5, 0.5]), rtol=1e-5)
    assert np.isnan(mean[2]).all()


def test_gene_vectors_are_the_models_own_in_the_order_of_the_counts(read: Cells) -> None:
    table = read.need_reader().match.table
    vocabulary = read.need_reader().vocabulary
    np.testing.assert_array_equal(mean_genes.gene_vectors(read)[vocabulary.ranks], table.vectors)
    mean = mean_genes.embed(read, None, 0)
    assert mean.shape == (60, table.dim)
    np.testing.assert_allclose(np.linalg.norm(mean, axis=1), 1, rtol=1e-5)


def test_shuffled_vectors_destroy_what_the_vectors_say() -> None:
    """Two kinds of cells use different genes every time; only the vectors know which genes are alike."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=80)
    counts = np.zeros((80, 1000))
    for cell, kind in enumerate(kinds):
        counts[cell, 500 * kind + rng.choice(500, 20, replace=False)] = 1
    vectors = rng.normal(size=(1000, 16)).astype(np.float32)
    vectors[500:] += 3 * rng.normal(size=16).astype(np.float32)
    labels = kinds.astype(str)
    shuffled = vectors[np.random.default_rng(1).permutation(1000)]
    assert agreement(mean_genes.mean_vectors(csr_matrix(counts), vectors), labels) > 0.9
    assert agreement(mean_genes.mean_vectors(csr_matrix(counts), shuffled), labels) < 0.65


def test_shuffled_genes_have_the_same_vectors_dealt_out(read: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    dealt = {}
    monkeypatch.setattr(
        shuffled_genes, "mean_vectors", lambda counts, vectors: dealt.setdefault("vectors", vectors)[: counts.shape[0]]
    )
    shuffled_genes.embed(read, None, 0)
    own = mean_genes.gene_vectors(read)
    assert not np.array_equal(dealt["vectors"], own)
    np.testing.assert_array_equal(np.sort(dealt["vectors"][:, 0]), np.sort(own[:, 0]))


# The untrained network


def test_an_untrained_copy_has_other_weights_and_leaves_torch_as_it_was(tiny_model: "Model") -> None:
    import torch

    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    copies = [untrained.untrained(tiny_model, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = (dict(copy.encoder.named_parameters()) for copy in copies)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert not any(parameter.requires_grad for parameter in first.values())
    assert not copies[0].encoder.training
    assert copies[0].rule == tiny_model.rule


def test_untrained_vectors_are_those_of_an_embedding_with_these_weights(read: Cells) -> None:
    from uce.engines import embed_cells, prepare_reader

    reader = read.need_reader()
    fresh = prepare_reader(untrained.untrained(reader.model, 4), reader.match, reader.settings)
    expected = embed_cells(read.need_counts(), fresh).vectors
    vectors = untrained.embed(read, None, 4)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert not np.allclose(vectors, embed_cells(read.need_counts(), reader).vectors, atol=1e-3)


# Principal components of the corpus


def test_corpus_components_by_hand() -> None:
    names = np.array([f"g{i:03d}" for i in range(150)])
    rng = np.random.default_rng(0)
    fitted = corpus_pca.CorpusPca(
        names, rng.normal(size=150).astype(np.float32), rng.normal(size=(150, 4)).astype(np.float32), {}
    )
    counts = csr_matrix(rng.poisson(1.0, size=(5, 160)).astype(np.float64))
    groups = np.concatenate([names[:120], names[:10], np.full(10, ""), np.full(20, "elsewhere")])
    vectors = corpus_pca.project(counts, groups, fitted)
    dense = counts.toarray()
    summed = dense[:, :120].copy()
    summed[:, :10] += dense[:, 120:130]
    total = summed.sum(axis=1) + dense[:, 140:].sum(axis=1)
    logs = np.log1p(1e4 * summed / total[:, None])
    np.testing.assert_allclose(vectors, (logs - fitted.mean[:120]) @ fitted.axes[:120], rtol=1e-3, atol=1e-2)


def test_corpus_components_do_not_depend_on_the_order_of_columns(
    make_cells: Callable[..., "AnnData"], tiny_model: "Model", read: Cells
) -> None:
    data = make_cells(cells=60)
    turned = data[:, np.random.default_rng(1).permutation(data.n_vars)].copy()
    first, again = (corpus_pca.embed(cells, None, 0) for cells in (read, reading(turned, tiny_model)))
    np.testing.assert_allclose(first, again, atol=1e-3)
    assert first.shape == (60, 50)
    assert agreement(first, read.labels) > 0.6


def test_a_gene_that_is_there_without_counts_is_not_a_gene_that_is_missing(
    make_cells: Callable[..., "AnnData"], tiny_model: "Model", read: Cells
) -> None:
    data = make_cells(cells=60)
    fitted = corpus_pca.load_corpus_pca()
    table = read.need_reader().match.table
    symbol = next(s for s in table.symbols[np.isin(table.ids, fitted.groups)] if s and s not in set(data.var_names))
    import anndata as ad

    wider = ad.AnnData(hstack([data.X, csr_matrix((60, 1), dtype=np.float32)]).tocsr(), obs=data.obs)
    wider.var_names = [*data.var_names, symbol]
    with_zeros = corpus_pca.embed(reading(wider, tiny_model), None, 0)
    group = int(np.searchsorted(fitted.groups, table.ids[table.symbols == symbol][0]))
    moved = with_zeros - corpus_pca.embed(read, None, 0)
    np.testing.assert_allclose(moved, np.tile(-fitted.mean[group] * fitted.axes[group], (60, 1)), atol=1e-3)


def test_orthologues_are_in_one_group() -> None:
    from uce.genes.collection import load_gene_table

    human, mouse = load_gene_table("human"), load_gene_table("mouse")
    groups = dict(zip(mouse.symbols.tolist(), corpus_pca.orthogroups(mouse).tolist(), strict=True))
    ids = dict(zip(human.symbols.tolist(), human.ids.tolist(), strict=True))
    for theirs, ours in (("Cd4", "CD4"), ("Pax6", "PAX6"), ("Ins1", "INS"), ("Ins2", "INS")):
        assert groups[theirs] == ids[ours]
    own = corpus_pca.orthogroups(human)
    assert set(own[own != ""]) <= set(human.ids)
    np.testing.assert_array_equal(own[own != ""], human.ids[own != ""])


def test_a_species_without_groups_is_told_so() -> None:
    from uce.genes.collection import load_gene_table

    table = replace(load_gene_table("human"), species="saccharomyces_cerevisiae")
    with pytest.raises(NotPossible, match="orthogroups"):
        corpus_pca.orthogroups(table)
    with pytest.raises(NotPossible, match="only 0 genes"):
        corpus_pca.project(csr_matrix(np.ones((2, 3))), np.array(["a", "", "b"]), corpus_pca.load_corpus_pca())


def test_the_bundled_components_come_from_the_training_datasets_alone() -> None:
    import csv

    fitted = corpus_pca.load_corpus_pca()
    with (ROOT / "data_manifests" / "training_cells.csv").open(encoding="utf-8") as stream:
        roles = {row["dataset"]: row["role"] for row in csv.DictReader(stream)}
    assert {roles[name] for name in fitted.facts["datasets"]} == {"train"}
    assert fitted.axes.shape == (len(fitted.groups), 50)
    assert len(np.unique(fitted.groups)) == len(fitted.groups) == 3000
    np.testing.assert_allclose(fitted.axes.T @ fitted.axes, np.eye(50), atol=2e-3)
    assert len(fitted.facts["corpus_sha256"]) == 64


# How the components of the corpus are fitted


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import build_corpus_pca

    return build_corpus_pca


def logs(build: ModuleType, values: np.ndarray, groups: list[str], name: str = "set") -> Any:
    return build.Logs(name, csr_matrix(values), np.array(groups))


def test_the_fit_is_that_of_all_cells_where_all_measured_the_same(build: ModuleType) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(50, 6)) * np.arange(1, 7) + shift for shift in (0, 3)]
    groups = list("abcdef")
    fitted = build.fit([logs(build, part, groups) for part in parts], "hash", n_groups=6, dim=3)
    together = np.concatenate(parts)
    np.testing.assert_allclose(fitted.mean, together.mean(axis=0), rtol=1e-4)
    expected = np.linalg.svd(together - together.mean(axis=0), full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(np.sum(fitted.axes.T * expected, axis=1)), 1, atol=1e-4)
    assert fitted.facts["datasets"] == {"set": 50}


def test_a_large_dataset_does_not_count_by_its_cells(build: ModuleType) -> None:
    small, large = np.full((100, 2), 1.0), np.full((10_000, 2), 0.0)
    mean, _ = build.moments([logs(build, small, ["a", "b"]), logs(build, large, ["a", "b"])], np.array(["a", "b"]))
    np.testing.assert_allclose(mean, 10 / 110)


def test_groups_that_a_dataset_lacks_have_the_mean_of_the_others_there(build: ModuleType) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(5, 1, size=(100, 3)), rng.normal(2, 1, size=(100, 2))
    fitted = build.fit(
        [logs(build, first, ["a", "b", "c"]), logs(build, second, ["a", "b"])], "hash", n_groups=3, dim=3
    )
    assert fitted.groups.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(fitted.mean[2], first[:, 2].mean(), rtol=1e-5)
    filled = np.concatenate([first, np.column_stack([second, np.full(100, first[:, 2].mean())])])
    expected = np.linalg.svd(filled - filled.mean(axis=0), full_matrices=False)[2]
    np.testing.assert_allclose(np.abs(np.sum(fitted.axes.T * expected, axis=1)), 1, atol=1e-4)


def test_what_is_written_is_read_again_without_pickle(build: ModuleType, tmp_path: Path) -> None:
    fitted = corpus_pca.CorpusPca(
        np.array(["a", "b"]), np.ones(2, np.float32), np.eye(2, dtype=np.float32), {"split": "train"}
    )
    build.save(fitted, tmp_path / "one.npz")
    build.save(fitted, tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as content:
        assert content["groups"].tolist() == ["a", "b"]
        assert str(content["facts"]) == '{"split": "train"}'


def test_a_corpus_is_read_with_its_training_cells_alone(
    build: ModuleType, make_cells: Callable[..., "AnnData"], tmp_path: Path
) -> None:
    from uce.corpus.build import build_corpus
    from uce.corpus.quality import SWITCHES, QualityRules
    from uce.training.corpus import open_corpus
    from uce.training.settings import DataSettings

    for name, seed in (("one", 0), ("two", 1), ("held", 2)):
        make_cells(cells=80, seed=seed).write_h5ad(tmp_path / f"{name}.h5ad")
    manifest = tmp_path / "cells.csv"
    manifest.write_text(
        "dataset_id,path,species,assay,split\n"
        + "".join(
            f"{name},{name}.h5ad,human,10x,{'validation' if name == 'held' else 'train'}\n"
            for name in ("one", "two", "held")
        )
    )
    build_corpus(manifest, tmp_path / "corpus", folder=tmp_path, rules=QualityRules(off=SWITCHES))
    corpus = open_corpus(DataSettings(corpus=str(tmp_path / "corpus"), split="train"))
    read = [build.read_logs(dataset, corpus) for dataset in corpus.datasets]
    fitted = build.fit(read, corpus.sha256)
    assert fitted.facts["datasets"] == {"one": 80, "two": 80}
    assert all(len(data.groups) == data.values.shape[1] for data in read)
    assert len(read[0].groups) < 1200

"""Two views of a cell share no gene, all cells of a part have the same panels, and sizes are log-uniform."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from uce.errors import UsageError
from uce.training.corpus import Corpus
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.views import ViewBatch, draw_panels
from uce.training.settings import PretrainConfig

from .conftest import batch_of, cells_of

Configure = Callable[..., PretrainConfig]
SETTINGS = ContrastiveSettings(panel_least=0.1, fewest_genes=5)
VIEWS = ["panels", "thin", "panels+thin", "draws"]


def _shown(batch: ViewBatch, corpus: Corpus) -> list[set[int]]:
    """Ranks of the genes in each sentence."""
    ranks = batch.vectors - corpus.datasets[0].vocabulary.first_gene  # the same in all datasets
    return [set(ranks[tokens[keep]]) - set(range(-9, 0)) for tokens, keep in zip(batch.tokens, batch.keep, strict=True)]


@pytest.mark.parametrize("view", VIEWS)
def test_views_with_panels_share_no_gene_and_show_only_genes_of_the_cell(
    corpus: Corpus, make_config: Configure, view: str
) -> None:
    config = make_config(objective=replace(SETTINGS, view=view))
    for part in range(10):
        batch = batch_of(corpus, config, part)
        cells = cells_of(corpus, config, part)
        shown = _shown(batch, corpus)
        first, second = shown[:32], shown[32:]
        if "panels" in view:
            # Not of one cell and not of two: the panels are those of the part.
            assert not set.union(*first) & set.union(*second)
        else:
            assert any(one & two for one, two in zip(first, second, strict=True))
        for cell, (one, two) in enumerate(zip(first, second, strict=True)):
            assert one | two <= set(cells.counts[cell].indices)
        assert np.array_equal(batch.cells, cells.rows)


def test_the_number_of_genes_is_that_of_the_panel_before_any_draw(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(objective=replace(SETTINGS, view="panels"), draws=5000)
    config = replace(config, rule=replace(config.rule, max_tokens=8000))
    batch = batch_of(corpus, config, 0)
    assert batch.genes.tolist() == [len(shown) for shown in _shown(batch, corpus)]


@pytest.mark.parametrize("view", VIEWS)
def test_processes_share_the_views_one_process_would_make(corpus: Corpus, make_config: Configure, view: str) -> None:
    config = make_config(objective=replace(SETTINGS, view=view))
    for part in range(3):
        whole = batch_of(corpus, config, part)
        shares = [batch_of(corpus, config, part, rank=rank, world=2) for rank in range(2)]
        for rank, share in enumerate(shares):
            assert np.array_equal(whole.cells[rank::2], share.cells)
            assert np.array_equal(whole.valid[rank::2], share.valid)
            for view_number in range(2):
                mine = slice(32 * view_number + rank, 32 * (view_number + 1), 2)
                theirs = slice(16 * view_number, 16 * (view_number + 1))
                assert np.array_equal(whole.genes[mine], share.genes[theirs])
                for one, two in zip(_words(whole)[mine], _words(share)[theirs], strict=True):
                    assert np.array_equal(one, two)


def _words(batch: ViewBatch) -> list[np.ndarray]:
    return [batch.vectors[tokens[keep]] for tokens, keep in zip(batch.tokens, batch.keep, strict=True)]


def test_the_sizes_of_panels_are_log_uniform_and_only_measured_genes_are_in_them() -> None:
    measured = np.arange(20_000) % 5 > 0
    shares = []
    for seed in range(400):
        panels = draw_panels(np.random.default_rng(seed), measured, least=0.02)
        assert not (panels.sum(axis=0) > measured).any()
        first, second = panels.sum(axis=1)
        least, left = np.log(320), np.log(16_000 - first)
        shares.append(((np.log(first) - least) / (np.log(15_680) - least), (np.log(second) - least) / (left - least)))
    one, two = np.array(shares).T
    assert kstest(one, "uniform").pvalue > 0.01
    assert kstest(two, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.15


@pytest.mark.parametrize("genes", [1, 2, 3, 10])
def test_a_dataset_of_few_genes_has_panels_too(genes: int) -> None:
    for seed in range(20):
        panels = draw_panels(np.random.default_rng(seed), np.arange(12) < genes, least=0.5)
        assert panels.sum() <= genes
        assert panels.sum(axis=0).max() <= 1
        assert panels[:, genes:].sum() == 0


def test_thinned_views_are_shallower_and_not_thinned_alike(corpus: Corpus, make_config: Configure) -> None:
    genes = {}
    for view in ("draws", "thin"):
        config = make_config(objective=replace(SETTINGS, view=view))
        genes[view] = batch_of(corpus, config, 0).genes.reshape(2, 32)
    assert np.array_equal(genes["draws"][0], genes["draws"][1])
    assert (genes["thin"] <= genes["draws"]).all()
    assert abs(np.corrcoef(genes["thin"] / genes["draws"])[0, 1]) < 0.5


def test_cells_with_few_genes_in_a_view_take_no_part(corpus: Corpus, make_config: Configure) -> None:
    for part in range(4):
        config = make_config(objective=SETTINGS)
        fewer = batch_of(corpus, config, part).genes.reshape(2, 32).min(axis=0)
        least = int(np.median(fewer)) + 1
        config = make_config(objective=replace(SETTINGS, fewest_genes=least))
        batch = batch_of(corpus, config, part)
        assert np.array_equal(batch.valid, fewer >= least)
        assert 0 < batch.valid.sum() < 32
    assert batch.keep.any(axis=1).all()


@pytest.mark.parametrize(
    ("form", "accumulate", "across"),
    [
        ("clip", 1, [True] * 4),
        ("ntxent", 1, [True, True, False, False]),
        ("ntxent", 2, [True] * 4 + [False] * 2),  # counted in updates, not in their parts
    ],
)
def test_the_first_updates_have_the_clip_form(
    corpus: Corpus, make_config: Configure, form: str, accumulate: int, across: list[bool]
) -> None:
    config = make_config(objective=replace(SETTINGS, form=form, clip_steps=2), accumulate=accumulate)
    assert [bool(batch_of(corpus, config, part).across) for part in range(len(across))] == across


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"panel_least": 0.6}, r"objective\.panel_least = 0\.6; a number from 1e-06 to 0\.5"),
        ({"thin_least": 0.0}, r"objective\.thin_least = 0\.0"),
        ({"fewest_genes": 0}, r"objective\.fewest_genes = 0"),
        ({"log_scale": 5.0}, r"objective\.log_scale = 5\.0; a number from 0 to 4\.6"),
        ({"log_scale": float("nan")}, r"objective\.log_scale = nan"),
        ({"cache_cells": -1}, r"objective\.cache_cells = -1"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ContrastiveSettings(**values)  # type: ignore[arg-type]


def test_a_run_that_cannot_work_is_refused(make_config: Configure) -> None:
    with pytest.raises(UsageError, match=r"batch_size / accumulate = 1: .* 2 or more are needed"):
        make_config(objective=SETTINGS, batch_size=8, accumulate=8)
    with pytest.raises(UsageError, match=r"data\.thinning = 0\.3: .* set it to 0"):
        make_config(objective=SETTINGS, data=replace(make_config().data, thinning=0.3))

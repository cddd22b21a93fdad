"""The health of an embedding: what it measures, and that a planted collapse is caught."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

import uce
from uce import jobs
from uce.health import effective_rank, examine, mean_cosine, noise_share

if TYPE_CHECKING:
    from anndata import AnnData

    from uce.model.checkpoint import Model


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def healthy(rng: np.random.Generator, cells: int = 200) -> np.ndarray:
    return unit(rng.standard_normal((cells, 16)))


def judge(vectors: np.ndarray, **changes: object) -> "object":
    facts = {"genes_covered": 0.9, "counts_covered": 0.97, "cells": len(vectors), "cells_without_vector": 0}
    return examine(vectors, **{**facts, **changes})


def test_mean_cosine_is_that_of_all_pairs(rng: np.random.Generator) -> None:
    vectors = healthy(rng, 40)
    pairs = cosine_similarity(vectors)[np.triu_indices(40, 1)]
    assert mean_cosine(vectors) == pytest.approx(pairs.mean(), abs=1e-6)


def test_effective_rank_counts_directions(rng: np.random.Generator) -> None:
    # Two points per axis, opposite to each other: exactly as many equal directions as axes.
    axes = np.concatenate([np.eye(5), -np.eye(5)]).astype(np.float32)
    assert effective_rank(axes) == pytest.approx(5.0)
    assert effective_rank(np.ones((10, 4), np.float32) / 2) == 1.0


def test_noise_is_a_share_of_the_spread_between_cells(rng: np.random.Generator) -> None:
    vectors = healthy(rng, 30)
    assert noise_share(vectors, vectors, spread=1.0) == pytest.approx(0.0, abs=1e-6)
    other = healthy(rng, 30)
    assert noise_share(vectors, other, spread=1 - mean_cosine(vectors)) == pytest.approx(1.0, abs=0.15)


def test_too_few_cells_give_no_number_and_no_warning() -> None:
    health = judge(np.ones((1, 4), np.float32) / 2)
    assert np.isnan(health.mean_cosine)
    assert health.ok


def test_a_sound_embedding_is_healthy(rng: np.random.Generator) -> None:
    vectors = healthy(rng)
    assert judge(vectors, draws=(vectors[:20], vectors[:20])).ok


def test_a_planted_collapse_is_named_with_its_causes(rng: np.random.Generator) -> None:
    health = judge(unit(np.ones((100, 16)) + 0.02 * rng.standard_normal((100, 16))))
    assert not health.ok
    assert "the cells hardly differ" in str(health)
    assert "another protein encoder" in health.warnings[0]


def test_few_counts_covered_are_named(rng: np.random.Generator) -> None:
    health = judge(healthy(rng), counts_covered=0.6)
    assert "only 60% of the counts" in health.warnings[0]


def test_noisy_draws_are_named(rng: np.random.Generator) -> None:
    health = judge(healthy(rng), draws=(healthy(rng, 50), healthy(rng, 50)))
    assert "--replicates" in health.warnings[0]


def test_many_cells_without_a_vector_are_named(rng: np.random.Generator) -> None:
    health = judge(healthy(rng), cells=300, cells_without_vector=100)
    assert "100 of 300 cells" in health.warnings[0]


@pytest.mark.parametrize(("cells", "twice"), [(5, 5), (200, 8), (640, 20), (2500, 64)])
def test_few_cells_are_drawn_twice_and_never_more_than_a_share(
    cells: int,
    twice: int,
    make_cells: Callable[..., "AnnData"],
    tiny_model: "Model",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    real = jobs.embed_rows
    monkeypatch.setattr(
        jobs, "embed_rows", lambda counts, *a, **k: seen.append(counts.shape[0]) or real(counts, *a, **k)
    )
    uce.embed(make_cells(cells=cells, genes=200), model=tiny_model, species="human", min_coverage=0)
    assert seen == [twice]

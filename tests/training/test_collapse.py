"""What the log says of the spread of vectors, and which runs it doubts."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from uce.training.objectives.collapse import doubts, effective_rank, kernel, told_by_length
from uce.training.objectives.contrastive import ContrastiveObjective, ContrastiveSettings

CELLS, WIDTH = 128, 64


def _random(width: int = WIDTH, *, seed: int = 0) -> Tensor:
    return normalize(torch.randn(2 * CELLS, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def _fields(vectors: Tensor, *, step: int, genes: Tensor | None = None) -> dict[str, object]:
    objective = ContrastiveObjective(ContrastiveSettings())
    batch = {
        "cells": torch.arange(CELLS),
        "valid": torch.ones(CELLS, dtype=torch.bool),
        "genes": torch.full((2 * CELLS,), 100) if genes is None else genes,
        "across": torch.tensor(True),
    }
    sums = objective.compare_vectors(vectors, batch)
    return objective.fields({name: value.detach().double() for name, value in sums.items()}, step=step)


def test_a_collapsed_run_is_suspect_in_each_way_and_a_fresh_one_is_not() -> None:
    constant = _random()[:1].expand(2 * CELLS, -1)
    said = " ".join(_fields(constant, step=1001)["suspect"])  # type: ignore[call-overload]
    assert "uniformity -0.00 is above -1" in said
    assert "effective rank 1.0 is below 5" in said
    assert "loss 4.852 is that of guessing" in said
    assert "suspect" not in _fields(constant, step=100)


def test_a_flat_run_is_suspect() -> None:
    flat = torch.cat([_random(2), torch.zeros(2 * CELLS, WIDTH - 2)], dim=1)
    found = _fields(flat, step=500)
    assert found["effective_rank"] == pytest.approx(2, abs=0.02)
    assert any("few directions" in doubt for doubt in found["suspect"])  # type: ignore[attr-defined]


def test_random_vectors_are_not_suspect() -> None:
    found = _fields(_random(), step=500)
    assert "suspect" not in found
    assert found["uniformity"] == pytest.approx(-3.88, abs=0.03)
    assert found["alignment"] == pytest.approx(2, abs=0.05)
    assert found["recall_chance"] == pytest.approx(1 / CELLS)
    assert found["recall"] < 5 / CELLS
    assert 40 < found["effective_rank"] <= WIDTH
    assert found["temperature"] == pytest.approx(math.exp(-3.0))


def test_cells_found_at_once_are_a_shortcut() -> None:
    found = _fields(_random()[:CELLS].repeat(2, 1), step=50)
    assert found["recall"] == 1
    assert found["alignment"] == pytest.approx(0, abs=1e-5)
    assert any("so early" in doubt for doubt in found["suspect"])  # type: ignore[attr-defined]


def test_depth_that_gives_cells_away_is_named_whatever_the_sizes_of_the_panels() -> None:
    depth = torch.arange(CELLS) * 40 + 1000
    found = _fields(_random(), step=500, genes=torch.cat([depth, depth // 4]))
    assert found["recall_length"] > 0.4
    assert any("number of genes alone" in doubt for doubt in found["suspect"])  # type: ignore[attr-defined]
    shuffled = depth[torch.randperm(CELLS, generator=torch.Generator().manual_seed(0))]
    assert _fields(_random(), step=500, genes=torch.cat([depth, shuffled]))["recall_length"] < 5 / CELLS


def test_equal_lengths_are_a_guess_among_all() -> None:
    candidates, positive = torch.ones(4, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)
    told = told_by_length(torch.zeros(4), torch.zeros(4), positive, candidates)
    assert told.tolist() == [0.25] * 4


@pytest.mark.parametrize(("width", "uniformity"), [(16, -3.51), (64, -3.88), (128, -3.94), (512, -3.98)])
def test_uniformity_on_the_sphere_is_the_known_one(width: int, uniformity: float) -> None:
    vectors = _random(width)
    others = ~torch.eye(2 * CELLS, dtype=torch.bool)
    assert float(kernel(vectors @ vectors.T, others).mean().log()) == pytest.approx(uniformity, abs=0.02)


def test_the_effective_rank_of_equal_directions_is_their_number() -> None:
    scatter = torch.diag(torch.tensor([3.0] * 6 + [0.0] * 10))
    assert effective_rank(scatter) == pytest.approx(6)
    assert effective_rank(torch.zeros(4, 4)) == pytest.approx(1)


def test_a_doubt_needs_its_step() -> None:
    fine = {"uniformity": -3.0, "effective_rank": 30.0, "loss": 3.0, "loss_chance": 4.85}
    fine |= {"recall": 0.5, "recall_chance": 0.01, "recall_length": 0.02}
    assert doubts(fine, step=5000) == []
    assert doubts({**fine, "loss": 4.84}, step=1000) == []
    assert len(doubts({**fine, "loss": 4.84}, step=1001)) == 1
    assert len(doubts({**fine, "recall": 0.995}, step=200)) == 1
    assert doubts({**fine, "recall": 0.995}, step=201) == []

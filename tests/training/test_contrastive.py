"""The contrastive loss: closed forms, who is told from whom, and gradients in parts that are those of one graph."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from uce.training.corpus import Corpus
from uce.training.objectives import base
from uce.training.objectives.contrastive import ContrastiveObjective, ContrastiveSettings
from uce.training.optimizer import build_optimizer
from uce.training.settings import OptimizerSettings, PretrainConfig
from uce.training.trainee import Trainee

from .conftest import tensors_of

CELLS = 8
Configure = Callable[..., PretrainConfig]


def _batch(*, across: bool = False, cells: int = CELLS) -> dict[str, Tensor]:
    return {
        "cells": torch.arange(cells),
        "valid": torch.ones(cells, dtype=torch.bool),
        "genes": torch.randint(50, 500, (2 * cells,), generator=torch.Generator().manual_seed(1)),
        "across": torch.tensor(across),
    }


def _vectors(seed: int = 0, *, cells: int = CELLS) -> Tensor:
    drawn = torch.randn(2 * cells, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(drawn, dim=1)


def _sums(vectors: Tensor, batch: dict[str, Tensor], *, log_scale: float = 3.0) -> dict[str, Tensor]:
    objective = ContrastiveObjective(ContrastiveSettings(log_scale=log_scale)).double()
    return objective.compare_vectors(vectors, batch)


def _loss(vectors: Tensor, batch: dict[str, Tensor], *, log_scale: float = 3.0) -> float:
    sums = _sums(vectors, batch, log_scale=log_scale)
    return float((sums["loss"] / sums["views"]).detach())


@pytest.mark.parametrize(("across", "candidates"), [(True, CELLS), (False, 2 * CELLS - 1)])
def test_constant_vectors_cost_the_log_of_the_candidates(across: bool, candidates: int) -> None:
    constant = _vectors()[:1].expand(2 * CELLS, -1)
    sums = _sums(constant, _batch(across=across))
    assert float((sums["loss"] / sums["views"]).detach()) == pytest.approx(math.log(candidates), abs=1e-9)
    assert float(sums["loss_chance"] / sums["views"]) == pytest.approx(math.log(candidates), abs=1e-6)


@pytest.mark.parametrize(("across", "others"), [(True, CELLS - 1), (False, 2 * CELLS - 2)])
def test_orthogonal_cells_have_a_closed_form(across: bool, others: int) -> None:
    vectors = torch.eye(CELLS, dtype=torch.float64).repeat(2, 1)
    expected = math.log(1 + others * math.exp(-math.exp(1.5)))
    assert _loss(vectors, _batch(across=across), log_scale=1.5) == pytest.approx(expected, abs=1e-7)


def test_the_clip_form_is_the_mean_of_both_directions() -> None:
    one, two = _vectors().chunk(2)
    logits, right = math.exp(3.0) * one @ two.T, torch.arange(CELLS)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2
    assert _loss(_vectors(), _batch(across=True)) == pytest.approx(float(expected), abs=1e-6)


def test_second_views_of_other_cells_cost_what_they_must() -> None:
    turned = torch.eye(CELLS, dtype=torch.float64)
    vectors = torch.cat([turned, turned.roll(1, dims=0)])
    scale = math.exp(3.0)
    expected = scale + math.log(1 + (CELLS - 1) * math.exp(-scale))  # the right one at cosine 0, a wrong one at 1
    assert _loss(vectors, _batch(across=True)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("across", [True, False])
def test_the_order_of_cells_and_of_views_does_not_matter(across: bool) -> None:
    vectors, batch = _vectors(), _batch(across=across)
    order = torch.randperm(CELLS, generator=torch.Generator().manual_seed(2))
    both = torch.cat([order, order + CELLS])
    moved = {**batch, "genes": batch["genes"][both]}
    swapped = {**batch, "genes": batch["genes"].roll(CELLS)}
    straight = _sums(vectors, batch)
    for other in (_sums(vectors[both], moved), _sums(vectors.roll(CELLS, dims=0), swapped)):
        for name in straight:
            torch.testing.assert_close(other[name], straight[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("across", [True, False])
def test_cells_that_take_no_part_might_as_well_not_be_there(across: bool) -> None:
    vectors, batch = _vectors().requires_grad_(), _batch(across=across)
    batch["valid"][[2, 5]] = False
    sums = _sums(vectors, batch)
    (gradient,) = torch.autograd.grad(sums["loss"], vectors)
    there = batch["valid"].repeat(2)
    assert (gradient[~there] == 0).all()
    assert (gradient[there] != 0).any(dim=1).all()
    fewer = {**_batch(across=across, cells=CELLS - 2), "genes": batch["genes"][there]}
    alone = _sums(vectors[there].detach(), fewer)
    for name in sums.keys() - {"skipped"}:
        torch.testing.assert_close(sums[name].detach(), alone[name].detach())
    assert float(sums["skipped"]) == 2


def test_a_batch_in_which_no_cell_takes_part_is_no_mishap() -> None:
    vectors, batch = _vectors().requires_grad_(), _batch()
    batch["valid"][:] = False
    objective = ContrastiveObjective(ContrastiveSettings()).double()
    sums = objective.compare_vectors(vectors, batch)
    (gradient,) = torch.autograd.grad(objective.loss(sums, batch), vectors)
    assert (gradient == 0).all()
    totals = {name: value.detach() for name, value in sums.items()}
    assert all(math.isfinite(value) for value in objective.fields(totals, step=1).values())


def test_a_cell_drawn_twice_is_not_told_from_itself() -> None:
    vectors, batch = _vectors(), _batch()
    twice = vectors.clone()
    twice[[1, CELLS + 1]] = twice[[0, CELLS]]
    batch["cells"][1] = 0
    without = {**_batch(cells=CELLS - 1), "genes": batch["genes"][[*range(1, 8), *range(9, 16)]]}
    once = _sums(twice[[*range(1, 8), *range(9, 16)]], without)
    # Both copies are seen by others, so only their own losses can be compared with a batch that has one.
    assert _sums(twice, batch)["loss_chance"] == pytest.approx(4 * math.log(13) + 12 * math.log(15), rel=1e-6)
    assert float(once["loss_chance"]) == pytest.approx(14 * math.log(13), rel=1e-6)
    apart = _sums(twice, _batch())
    assert _sums(twice, batch)["loss"] < apart["loss"] - 4 * math.log(2) + 1e-6


def test_the_temperature_is_learned_limited_and_not_decayed() -> None:
    objective = ContrastiveObjective(ContrastiveSettings()).double()
    optimizer = build_optimizer(objective, OptimizerSettings(lr=0.1, weight_decay=0.5))
    assert [group["weight_decay"] for group in optimizer.param_groups if group["params"]] == [0.0]
    with torch.no_grad():
        objective.log_scale.fill_(5.0)
    objective.constrain()
    sums = objective.compare_vectors(_vectors(), _batch())
    assert float(sums["scale"] / sums["views"]) == pytest.approx(math.log(100))
    # And from the limit there is a way back: random vectors want it less sharp.
    objective.loss(sums, _batch()).backward()
    optimizer.step()
    objective.constrain()
    assert objective.log_scale.tolist() == pytest.approx([math.log(100) - 0.1], abs=1e-6)


def _gradients(trainee: Trainee, batch: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    return list(torch.autograd.grad(trainee.objective.loss(trainee(batch), batch), list(trainee.parameters())))


def _trainee(corpus: Corpus, config: PretrainConfig) -> tuple[Trainee, dict[str, Tensor]]:
    torch.manual_seed(0)
    batch = tensors_of(corpus, config, 0)
    return Trainee(config).double(), {
        name: value.double() if value.is_floating_point() else value for name, value in batch.items()
    }


def test_gradients_in_parts_are_those_of_one_graph_also_under_dropout(
    corpus: Corpus, make_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ContrastiveSettings(panel_least=0.1, fewest_genes=5, clip_steps=0, cache_cells=7)
    config = make_config(objective=settings)
    config = replace(config, model=replace(config.model, dropout=0.3))
    trainee, batch = _trainee(corpus, config)
    parts = _gradients(trainee, batch)
    monkeypatch.setattr(base, "checkpoint", lambda encode, *values, use_reentrant: encode(*values))
    for part, whole in zip(parts, _gradients(trainee, batch), strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-10, atol=1e-14)


def test_parts_are_the_whole_and_keep_one_part_in_memory(corpus: Corpus, make_config: Configure) -> None:
    kept, losses = [], []
    for parts in (0, 4):
        settings = ContrastiveSettings(panel_least=0.1, fewest_genes=5, cache_cells=parts)
        trainee, batch = _trainee(corpus, make_config(objective=settings))
        saved = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            losses.append(trainee(batch)["loss"].detach())
        kept.append(saved)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=0)
    assert kept[1] < kept[0] / 10

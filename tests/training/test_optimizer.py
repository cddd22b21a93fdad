"""The learning rate is a function of the step, matrices alone are decayed, averages forget the start."""

import math

import pytest
import torch
from torch import nn

from uce.errors import UsageError
from uce.training.optimizer import Average, build_optimizer, learning_rate, set_learning_rate
from uce.training.settings import OptimizerSettings

SETTINGS = OptimizerSettings(lr=2e-3, warmup=10, final=0.1)


def test_the_learning_rate_rises_linearly_and_falls_as_a_half_cosine() -> None:
    rates = [learning_rate(step, steps=111, settings=SETTINGS) for step in range(111)]
    assert rates[:10] == pytest.approx([2e-4 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2e-3)
    assert rates[60] == pytest.approx(2e-3 * (0.1 + 0.9 / 2))
    assert rates[110] == pytest.approx(2e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_shortest_runs_have_a_learning_rate() -> None:
    for steps in (1, 5, 10, 11):
        rates = [learning_rate(step, steps=steps, settings=SETTINGS) for step in range(steps)]
        assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert learning_rate(0, steps=1, settings=OptimizerSettings(lr=1.0, warmup=0)) == 1.0


def test_only_matrices_are_decayed() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    decayed, plain = build_optimizer(module, SETTINGS).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0 < decayed["weight_decay"]


def test_every_group_has_the_learning_rate_of_the_step() -> None:
    optimizer = build_optimizer(nn.Linear(3, 4), SETTINGS)
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_an_average_forgets_the_random_start_and_settles_on_the_mean() -> None:
    weight = nn.Parameter(torch.full((2,), 100.0))
    average = Average([("w", weight)], memory=0.9)
    for step in range(400):
        with torch.no_grad():
            weight.fill_(1.0 if step % 2 else 3.0)
        average.update([("w", weight)], step=step)
    torch.testing.assert_close(average.values["w"], torch.full((2,), 2.0), atol=0.06, rtol=0)


@pytest.mark.parametrize("values", [{"lr": 0.0}, {"lr": math.nan}, {"warmup": -1}, {"beta2": 1.0}, {"final": 2.0}])
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(UsageError, match=f"optimizer.{name} = "):
        OptimizerSettings(**values)  # type: ignore[arg-type]

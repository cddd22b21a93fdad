"""What is said of curves whose truth is known; the published point beside it."""

import numpy as np
import pytest

from uce.scaling.fits import Floats, gain, predict
from uce.scaling.planted import TRUTHS, Truth, planted_table, try_truth
from uce.scaling.saturation import corrected_point, published_point
from uce.scaling.verdicts import Verdict, judge, reached_at, t_interval, unit_interval

SIZES = 500 * 2.0 ** np.arange(8)
X = SIZES / SIZES[0]


def rising(slope: float, *, noise: float = 1e-3, seeds: int = 4) -> Floats:
    return 0.6 + slope * np.log2(X) + noise * np.random.default_rng(0).standard_normal((seeds, len(X)))


def plateau(*, noise: float = 1e-3, seeds: int = 4) -> Floats:
    return 0.8 - 0.1 / X + noise * np.random.default_rng(1).standard_normal((seeds, len(X)))


def test_a_steady_rise_is_still_growing_also_below_the_margin() -> None:
    for slope in (0.02, 0.003):
        said = judge(SIZES, rising(slope), floor=0.5)
        assert said.word == "still growing"
        assert said.lower <= slope <= said.upper
        assert said.n95 is None


def test_a_plateau_is_saturated_and_says_where() -> None:
    said = judge(SIZES, plateau(), floor=0.55)
    assert said.word == "saturated"
    assert said.choice is not None
    assert said.choice.shape == "plateau"
    assert said.n95 == pytest.approx(8 * 500, rel=0.2)  # 0.1 / x is 5 % of 0.8 - 0.55 at x = 8
    assert corrected_point(SIZES, plateau(), said, floor=0.55) in (2000.0, 4000.0, 8000.0)


def test_the_margin_decides() -> None:
    level = 0.7 + 2e-3 * np.random.default_rng(0).standard_normal((4, len(X)))
    assert judge(SIZES, level, floor=0.5).word == "saturated"
    assert judge(SIZES, level, floor=0.5, margin=1e-5).word == "undetermined"


def test_a_falling_curve_has_no_point_of_saturation() -> None:
    said = judge(SIZES, rising(-0.01), floor=0.4)
    assert said.word == "saturated"
    assert said.told == "saturated (falls)"
    assert corrected_point(SIZES, rising(-0.01), said, floor=0.4) is None


def test_noise_and_few_runs_are_undetermined() -> None:
    noisy = rising(0.0, noise=0.05)
    assert judge(SIZES, noisy, floor=0.5).word == "undetermined"
    few = judge(SIZES, rising(0.02, seeds=2), floor=0.5)
    assert (few.word, few.choice) == ("undetermined", None)
    assert "2 seeds" in few.why
    assert judge(SIZES[:4], rising(0.02)[:, :4], floor=0.5).choice is None


def test_a_seed_with_one_missing_run_takes_part_and_one_with_more_does_not() -> None:
    scores = rising(0.02, seeds=4)
    scores[0, 2] = np.nan
    assert judge(SIZES, scores, floor=0.5).word == "still growing"
    scores[0, 3:6] = np.nan
    assert "1 seeds have too few runs" in judge(SIZES, scores, floor=0.5).why


def test_a_size_without_any_run_is_no_point() -> None:
    scores = plateau()
    scores[:, 3] = np.nan
    said = judge(SIZES, scores, floor=0.55)
    assert said.word == "saturated"
    assert corrected_point(SIZES, scores, said, floor=0.55) in (2000.0, 8000.0)


def test_of_a_study_without_a_run_nothing_is_said() -> None:
    nothing = np.full((4, 8), np.nan)
    said = judge(SIZES, nothing, floor=0.5)
    assert said.word == "undetermined"
    assert np.isnan(published_point(SIZES, nothing))
    assert corrected_point(SIZES, nothing, said, floor=0.5) is None


def test_the_interval_over_seeds_is_students() -> None:
    low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)


def test_units_are_drawn_together_in_all_seeds_and_sizes() -> None:
    slopes = np.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    units = np.stack([np.log2(X)[:, None] * slopes] * 3)
    found = unit_interval(("log",), X, units, seed=0)
    assert found is not None
    drawn = np.random.default_rng(5).choice(slopes, (20_000, 6)).mean(axis=1)
    np.testing.assert_allclose(found, np.quantile(drawn, [0.025, 0.975]), atol=1.5e-3)
    assert found == unit_interval(("log",), X, units, seed=0)
    assert unit_interval(("log",), X, units[..., :4], seed=0) is None


def test_nothing_is_said_beyond_four_times_the_largest_size() -> None:
    slow = predict("plateau", np.array([0.9, 0.3, 0.05]), X)
    assert reached_at(X, np.stack([slow] * 3), floor=0.3) is None
    assert reached_at(X, np.stack([0.7 - 0.1 / X] * 3), floor=0.9) is None  # the plateau is below the untrained


def test_the_published_point_is_that_of_the_best_run() -> None:
    scores = np.array([[0.6, 0.7, 0.8, 0.8], [0.77, 0.7, 0.8, 0.81]])
    assert published_point(np.array([1.0, 10, 50, 100]), scores) == 1.0
    scores[1, 0] = np.nan
    assert published_point(np.array([1.0, 10, 50, 100]), scores) == 50.0


def test_the_corrected_point_needs_a_verdict() -> None:
    for word in ("still growing", "undetermined"):
        assert corrected_point(SIZES, plateau(), Verdict(word, ""), floor=0.5) is None  # type: ignore[arg-type]


PLANTED = {(truth.name, truth.noise, len(truth.sizes)): truth for truth in TRUTHS}


def truth(name: str, noise: float, sizes: int = 8) -> Truth:
    return next(one for key, one in PLANTED.items() if key[0].startswith(name) and key[1:] == (noise, sizes))


@pytest.mark.parametrize(("name", "noise"), [("log-linear from 0.80, +0.015", 0.005), ("log-linear from 0.60", 0.005)])
def test_growth_without_end_is_called_saturated_by_the_published_point_alone(name: str, noise: float) -> None:
    outcome = try_truth(truth(name, noise, 6), repeats=60)
    assert outcome.published >= 0.9
    assert outcome.corrected <= 0.1
    assert outcome.growing >= 0.7


def test_a_true_plateau_is_found_within_a_step() -> None:
    outcome = try_truth(truth("plateau 0.80 - 0.10 x^-1", 0.01), repeats=60)
    assert outcome.saturated >= 0.95
    assert outcome.near >= 0.95


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        scores = 0.6 + 0.01 * np.log2(X) + 0.02 * random.standard_normal((3, len(X)))
        slopes = gain("log", np.stack([[0, slope, 0] for slope in np.polyfit(np.log(X), scores.T, 1)[0]]), X[-1])
        low, high = t_interval(slopes)
        held += low <= 0.01 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_the_table_has_a_row_for_each_truth() -> None:
    table = planted_table(TRUTHS[:2], repeats=3).splitlines()
    assert len(table) == 4
    assert all(line.count("|") == table[0].count("|") for line in table)

"""The picture of a run: of any log, whatever is in it."""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from uce.training.curves import draw_curves


def _log(run: Path, lines: list[dict[str, Any]]) -> Path:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def _masked(step: int) -> dict[str, Any]:
    measured = {"valid_excess": 0.05, "valid_loss": 0.5, "valid_loss_gene_only": 0.55, "probe_f1": 0.6}
    return {
        "step": step,
        "excess": 0.1 * step,
        "loss": 0.5 / step,
        "loss_gene_only": 0.6,
        "loss_rates": None if step == 3 else 0.61,
        **(measured | {"probe_f1_baseline": 0.5, "probe": {"kept": 0.6}} if step % 2 == 0 else {}),
        "suspect": ["what looks wrong"],
        "lr": 1e-3,
        "grad_norm": float(step),
        "cells_per_second": 10.0,
        "tokens_per_second": 1000,
        "padding": 0.1,
        "mfu": 0.3,
        "seconds": 1.0,
        "seconds_left": 2.0,
    }


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        saved.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def test_what_belongs_together_is_in_one_panel_and_validation_beside_training(
    tmp_path: Path, figures: list[Figure]
) -> None:
    assert draw_curves(_log(tmp_path, [_masked(step) for step in range(1, 7)])) == tmp_path / "curves.png"
    panels = {axes.get_title(loc="left"): axes for axes in figures[0].axes}
    assert list(panels) == ["excess", "loss", "probe", "lr", "grad_norm", "cells_per_second", "shares"]
    drawn = {title: {line.get_label(): line for line in axes.lines} for title, axes in panels.items()}
    assert {"loss", "loss_gene_only", "loss_rates"} < set(drawn["loss"])
    assert len(drawn["loss"]) == 5
    assert set(drawn["probe"]) == {"probe_f1", "probe_f1_baseline"}
    assert set(drawn["shares"]) == {"padding", "mfu"}
    training, validation = panels["excess"].lines
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert training.get_color() == validation.get_color()
    np.testing.assert_allclose(training.get_xydata(), [(step, 0.1 * step) for step in range(1, 7)])
    assert validation.get_xdata().tolist() == [2, 4, 6]
    assert np.isnan(drawn["loss"]["loss_rates"].get_ydata()).tolist() == [step == 3 for step in range(1, 7)]


def test_the_picture_is_a_png_with_content_and_the_users_own_pictures_are_left_alone(tmp_path: Path) -> None:
    before = mpl.rcParams.copy(), mpl.get_backend(auto_select=False)
    (tmp_path / "curves.png").write_bytes(b"of before")
    draw_curves(_log(tmp_path, [_masked(step) for step in range(1, 4)]))
    assert (mpl.rcParams.copy(), mpl.get_backend(auto_select=False)) == before
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 1000
    assert 0.01 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_another_objective_needs_no_word_here(tmp_path: Path, figures: list[Figure]) -> None:
    names = ["found", "loss", "found_chance", "spread", "valid_found", "valid_only"]
    draw_curves(_log(tmp_path, [{"step": step} | dict.fromkeys(names, 0.5) for step in (1, 2)]))
    panels = {axes.get_title(loc="left"): [line.get_label() for line in axes.lines] for axes in figures[0].axes}
    assert list(panels) == ["found", "loss", "spread", "only"]
    assert panels["found"][::2] == ["found", "found_chance"]
    assert panels["only"] == ["valid_only"]


@pytest.mark.parametrize("text", [None, "", "\n", "no json\n", '{"loss": 1}\n', '{"step": 1, "loss": null}\n', "[1]\n"])
def test_where_nothing_was_logged_there_is_no_picture(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert draw_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()


def test_a_long_log_is_thinned_to_means(tmp_path: Path, figures: list[Figure]) -> None:
    draw_curves(_log(tmp_path, [{"step": step, "loss": step % 10} for step in range(8000)]))
    (line,) = figures[0].axes[0].lines
    assert len(line.get_xdata()) == 800
    np.testing.assert_allclose(line.get_ydata(), 4.5)
    np.testing.assert_allclose(line.get_xdata(), np.arange(800) * 10 + 4.5)


_NUMBERS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e9, 1e9) | st.just(math.nan)
_NAMES = st.sampled_from(
    ["loss", "loss_chance", "valid_loss", "valid_", "grad_norm", "lr", "mfu", "", "_", "$x$", "ü y"]
)


@example([{"_": 0.0, "": 1.0}])
@example([{"$\\x$": 0.0}])
@settings(deadline=None, max_examples=25)
@given(st.lists(st.dictionaries(_NAMES, _NUMBERS | st.text(max_size=3) | st.lists(_NUMBERS), max_size=5), max_size=4))
def test_any_log_is_drawn_or_passed_over(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    run = _log(tmp_path_factory.mktemp("run"), [line | {"step": step} for step, line in enumerate(lines)])
    drawn = draw_curves(run)
    assert drawn is None or drawn.read_bytes().startswith(b"\x89PNG")

"""TensorBoard and Weights & Biases beside the log: what reaches them, and what a missing package is told."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.utils import LoggerType

from uce.errors import UsageError
from uce.training import tracking
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.records import Metrics
from uce.training.settings import PretrainConfig, RunSettings
from uce.training.tracking import check_trackers, flat_config, start_trackers, tracker_settings

Configure = Callable[..., PretrainConfig]


def test_a_tracker_that_is_not_installed_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(())
    check_trackers(("tensorboard",))
    monkeypatch.setattr(tracking, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"names wandb, which is not installed: pip install 'uce\[wandb\]'"):
        check_trackers(("wandb",))


@pytest.mark.parametrize("changes", [{}, {"objective": ContrastiveSettings()}, {"limits": ("a", "b")}])
def test_a_configuration_is_flat_and_has_no_path(make_config: Configure, changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    flat = flat_config(replace(config, data=replace(config.data, corpus="/home/of/someone")))
    assert all(isinstance(value, int | float | str) for value in flat.values())
    assert flat["optimizer.lr"] == 1e-3
    assert flat["objective.name"] == config.objective.name
    assert flat["limits"] == ("a, b" if changes.get("limits") else "")
    assert "/home" not in json.dumps(flat)


def test_no_tracker_is_started_unless_named(make_config: Configure, tmp_path: Path) -> None:
    config = make_config()
    accelerator = Accelerator(**tracker_settings(config, tmp_path))
    start_trackers(accelerator, config, tmp_path, step=0)
    Metrics(tmp_path, accelerator.log).write({"step": 1, "loss": 0.5})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


def _life(config: PretrainConfig, run: Path, *, done: int, until: int, shift: float) -> None:
    """A process of a run: it has `done` updates behind it and logs those up to `until`."""
    accelerator = Accelerator(**tracker_settings(config, run))
    start_trackers(accelerator, config, run, step=done)
    metrics = Metrics(run, lambda numbers, step: accelerator.log(numbers, step=step))
    for step in range(done + 1, until + 1):
        metrics.write({"step": step, "loss": step + shift, "probe": {"kept": 0.5}, "suspect": ["no number"], "x": None})
    for tracker in accelerator.trackers:
        tracker.finish()


def test_the_curves_of_tensorboard_do_not_double_back_when_a_run_goes_on(
    make_config: Configure, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(run=RunSettings(trackers=("tensorboard",)))
    _life(config, tmp_path, done=0, until=6, shift=0.0)
    _life(config, tmp_path, done=4, until=8, shift=0.25)
    (folder,) = (tmp_path / "trackers").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "probe/kept"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        *((step, float(step)) for step in range(1, 5)),
        *((step, step + 0.25) for step in range(5, 9)),
    ]
    # The settings are stored once, in a folder of their own.
    (settings,) = folder.glob("*/hparams.yml")
    assert "optimizer.lr: 0.001" in settings.read_text()


def test_wandb_gets_name_group_settings_and_lines(
    make_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Run:
        log = staticmethod(lambda values, step: told.append((step, values)))
        finish = staticmethod(lambda: told.append("finished"))

    module = ModuleType("wandb")
    module.init = lambda **settings: told.append(settings) or Run()  # type: ignore[attr-defined]
    module.config = type("Settings", (), {"update": lambda _self, values, **_: told.append(values)})()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType.WANDB])
    config = make_config(run=RunSettings(trackers=("wandb",)))
    _life(config, tmp_path, done=0, until=1, shift=0.0)
    settings, values, line, end = told
    assert settings == {"project": "uce", "name": "toy", "group": "toy", "dir": str(tmp_path / "trackers")}
    assert values == flat_config(config)
    assert line == (1, {"loss": 1.0, "probe/kept": 0.5})
    assert end == "finished"

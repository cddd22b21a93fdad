"""Trackers beside `metrics.jsonl`: TensorBoard and Weights & Biases, through Accelerate. None unless named."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.config import config_to_dict
from uce.errors import UsageError
from uce.training.records import flatten

if TYPE_CHECKING:
    from accelerate import Accelerator

    from uce.training.settings import PretrainConfig

_PROJECT = "uce"


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed: Accelerate would leave them out without a word.

    Raises
    ------
    UsageError
        Naming what installs it.
    """
    for name in names:
        if find_spec(name) is None:
            msg = f"run.trackers names {name}, which is not installed: pip install 'uce[{name}]', or leave it out."
            raise UsageError(msg)


def tracker_settings(config: "PretrainConfig", run: Path) -> dict[str, Any]:
    """What `Accelerator` has to be told: which trackers, and that their files go to `trackers/` of the run."""
    return {"log_with": list(config.run.trackers) or None, "project_dir": str(run / "trackers")}


def start_trackers(accelerator: "Accelerator", config: "PretrainConfig", run: Path, *, step: int) -> None:
    """Start the trackers of a run that has done `step` updates; `accelerator.log` then reaches them.

    TensorBoard drops what it was told of later updates, which are done again. Weights & Biases cannot take lines
    back, so there a run that goes on is another one, in the same group. `WANDB_MODE=offline` is honoured by wandb.
    """
    if config.run.trackers and accelerator.is_main_process:
        folder = run / "trackers"
        folder.mkdir(exist_ok=True)
        accelerator.init_trackers(
            _PROJECT,
            config=None if step else flat_config(config),
            init_kwargs={
                "tensorboard": {"purge_step": step + 1},
                "wandb": {"name": config.name, "group": config.name, "dir": str(folder)},
            },
        )


def flat_config(config: "PretrainConfig") -> dict[str, int | float | str | bool]:
    """A configuration as trackers take it: no nesting, no list, no None; and no path, which may leave the machine."""
    flat = flatten(config_to_dict(config))
    del flat["data.corpus"]
    return {key: value if isinstance(value, int | float | str) else _text(value) for key, value in flat.items()}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

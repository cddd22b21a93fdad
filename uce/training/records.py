"""What a run writes down beside its weights, and whether a folder may be continued."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.config import config_to_dict, read_config
from uce.errors import OutputExistsError, UsageError
from uce.files import atomic_path
from uce.training.settings import PretrainConfig

if TYPE_CHECKING:
    from uce.training.corpus import Corpus


def describe(config: PretrainConfig, corpus: "Corpus", step: int) -> dict[str, Any]:
    """What the card says. No path and no clock, so that equal runs write equal folders."""
    return {
        "summary": config.summary,
        "limits": list(config.limits),
        "licence": config.licence,
        "objective": config_to_dict(config.objective),
        "seed": config.seed,
        "training": {
            "steps": step,
            "batch_size": config.batch_size,
            "cells_shown": step * config.batch_size,
            "draws": config.draws,
            "late_draws": f"{config.late_draws} after {config.late_from:.0%} of the steps",
            "thinning": config.data.thinning,
            "precision": config.precision,
            "averaged_weights": config.ema,
            "optimizer": asdict(config.optimizer),
        },
        "trained_on": [{"dataset": dataset.name, **dataset.facts} for dataset in corpus.datasets],
        "not_trained_on": list(corpus.not_read),
    }


def check_run(config: PretrainConfig, run: Path, target: Path) -> None:
    """Refuse a folder that holds a finished run or one of another configuration."""
    if target.exists():
        msg = f"{target} exists: the run in {run} is finished. Choose another --output."
        raise OutputExistsError(msg)
    if not (run / "config.yaml").is_file():
        return
    try:
        there = read_config(PretrainConfig, run / "config.yaml")
    except UsageError as error:
        msg = f"{error} This version of uce cannot continue the run; choose another --output."
        raise UsageError(msg) from error
    if there == config:
        return
    ours = _flat(config_to_dict(config))
    theirs = _flat(config_to_dict(there))
    # An objective of another name has other settings.
    changed = next(key for key in ours if key not in theirs or ours[key] != theirs[key])
    msg = (
        f"{run}: holds a run with {changed} = {theirs.get(changed)!r}, not {ours[changed]!r}. "
        "Choose another --output, or the same settings to continue."
    )
    raise UsageError(msg)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def cut_log(run: Path, *, step: int) -> None:
    """Take back the lines of updates that will be done again."""
    path = run / "log.jsonl"
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut by a crash

"""Snapshots of a run: a model folder that embeds, with all that continues the run in `training/`. No pickle.

`training/state.safetensors` holds weights, heads and optimizer, `training/state.json` the step and the hash of the
former. A snapshot is written under another name and renamed when it is complete, so one that carries a final name is
whole; the hash finds those that were damaged later.
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uce.files import atomic_path, sha256_file, shorten, write_json

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8,})")
_WEIGHTS, _AVERAGE, _OPTIMIZER = "weights.", "average.", "optimizer."
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """How far a run is: everything of its state that is no tensor. Order and draws are functions of the step."""

    step: int  # updates done
    seconds: float = 0.0  # spent on them, in all processes that worked on this run one after the other


def pack(
    module: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """All tensors of a run under flat names, `optimizer.<parameter>.exp_avg` and the like."""
    tensors = {_WEIGHTS + name: tensor for name, tensor in module.state_dict().items()}
    tensors |= {_AVERAGE + name: tensor for name, tensor in (average or {}).items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{name}.{key}"] = torch.as_tensor(value)
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def unpack(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor] | None = None,
) -> None:
    """Put the tensors of `pack` back, in place."""
    module.load_state_dict(_below(tensors, _WEIGHTS))
    if average is not None:
        for name, value in _below(tensors, _AVERAGE).items():
            average[name].copy_(value)
    for name, parameter in module.named_parameters():
        moments = {key: tensors.get(f"{_OPTIMIZER}{name}.{key}") for key in _MOMENTS}
        if moments["step"] is not None:
            optimizer.state[parameter] = {
                # AdamW keeps its counter of steps on the CPU wherever the parameter is.
                key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                for key, value in moments.items()
                if value is not None
            }


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def add_state(folder: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write `training/` into a model folder that does not carry its final name yet."""
    inner = folder / "training"
    inner.mkdir()
    with atomic_path(inner / "state.safetensors") as temporary:
        save_file(tensors, temporary)
    facts = {"step": progress.step, "seconds": progress.seconds, "sha256": sha256_file(inner / "state.safetensors")}
    write_json(inner / "state.json", facts)


def snapshot_path(run: Path, step: int) -> Path:
    """Where the snapshot after `step` updates is."""
    return run / "checkpoints" / f"step-{step:08d}"


def newest_snapshot(run: Path) -> tuple[Path, Progress] | None:
    """The newest whole snapshot of a run, or None. Damaged ones are passed over with a warning that names them."""
    for folder in reversed(_snapshots(run)):
        problem = _problem(folder)
        if problem is None:
            facts = json.loads((folder / "training" / "state.json").read_text(encoding="utf-8"))
            return folder, Progress(step=int(facts["step"]), seconds=float(facts["seconds"]))
        log.warning("%s: %s; continuing from an older snapshot.", folder, problem)
    return None


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a snapshot."""
    tensors: dict[str, Tensor] = load_file(folder / "training" / "state.safetensors")
    return tensors


def rotate(run: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` snapshots, and what interrupted writes left behind."""
    for folder in _snapshots(run)[:-keep]:
        shutil.rmtree(folder)
    for leftover in (run / "checkpoints").glob(".step-*.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _snapshots(run: Path) -> list[Path]:
    found = [path for path in (run / "checkpoints").glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _problem(folder: Path) -> str | None:
    """What keeps a snapshot from being used, or None."""
    weights = folder / "training" / "state.safetensors"
    try:
        facts: dict[str, Any] = json.loads((folder / "training" / "state.json").read_text(encoding="utf-8"))
        if missing := sorted({"step", "seconds", "sha256"} - set(facts)):
            return f"state.json lacks {shorten(missing)}"
        return None if sha256_file(weights) == facts["sha256"] else "state.safetensors is damaged"
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        return f"cannot be read ({type(error).__name__})"

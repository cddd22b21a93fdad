"""Snapshots of a run: a model folder that embeds, with all that continues the run in `training/`. No pickle.

`training/state.safetensors` holds weights, averages and the optimizer's moments, `training/state.json` how far the run
is. `manifest.json` is written last and has size and SHA-256 of every file: a folder it does not fit was cut short or
damaged, whatever its name says. Tensors are whole ones, so a run goes on in another number of processes, and under
another way to share the model among them.
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from uce.errors import ModelError, StorageError, UsageError
from uce.files import atomic_path, printable, sha256_file, shorten, write_json

log = logging.getLogger(__name__)

FORMAT, VERSION = "uce-snapshot", 1
_MANIFEST, _STATE, _PROGRESS = "manifest.json", "training/state.safetensors", "training/state.json"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Progress:
    """How far a run is: everything of its state that is no tensor. Order and draws are functions of the step."""

    step: int  # updates done
    seconds: float = 0.0  # spent on them, in all processes that worked on this run one after the other
    corpus: str = ""  # SHA-256 of the corpus they were done with
    world: int = 1  # processes that did the last of them; with another number, sums round otherwise
    start: str = ""  # SHA-256 of the model it began from, "" where weights were drawn


def add_state(folder: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write `training/` into a model folder that does not carry its final name yet.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    (folder / "training").mkdir()
    try:
        with atomic_path(folder / _STATE) as temporary:
            save_file(tensors, temporary)
    except SafetensorError as error:
        why = printable(str(error), limit=120)
        msg = f"{folder / _STATE}: cannot be written ({why}). Free some space; the snapshots before it are whole."
        raise StorageError(msg) from error
    write_json(folder / _PROGRESS, asdict(progress))


def seal(folder: Path) -> None:
    """Write `manifest.json`, which vouches for every file of a snapshot. The last thing before it gets its name."""
    paths = {name: folder / name for name in _files(folder)}
    files = {name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for name, path in paths.items()}
    write_json(folder / _MANIFEST, {"format": FORMAT, "version": VERSION, "files": files})


def _files(folder: Path) -> list[str]:
    """Names of the files below `folder` but the manifest's."""
    below = sorted(folder.rglob("*"))
    if strange := [path.name for path in below if path.is_symlink() or not (path.is_dir() or path.is_file())]:
        msg = f"{shorten(strange)} is a link or another thing that is no file"
        raise ModelError(msg)
    names = [path.relative_to(folder).as_posix() for path in below if path.is_file()]
    return [name for name in names if name != _MANIFEST]


def snapshot_path(run: Path, step: int) -> Path:
    """Where the snapshot after `step` updates is."""
    return run / "checkpoints" / f"step-{step:08d}"


def newest_snapshot(run: Path, *, step: int | None = None) -> tuple[Path, Progress] | None:
    """The newest whole snapshot of a run, or None. Damaged ones are passed over with a warning that says why.

    All bytes are read. One process should look, and tell the others.

    Parameters
    ----------
    step
        Only the snapshot after so many updates.

    Raises
    ------
    UsageError
        There is none of that step, or it is damaged.
    """
    if step is not None:
        return _snapshot_of(run, step)
    for folder in reversed(_snapshots(run)):
        try:
            return folder, _verified(folder)
        except ModelError as error:
            log.warning("%s: %s; looking for an older snapshot.", folder, error)
    return None


def _snapshot_of(run: Path, step: int) -> tuple[Path, Progress]:
    there = [str(_step(folder)) for folder in _snapshots(run)]
    if str(step) not in there:
        msg = f"{run}: no snapshot after {step} updates. There is {shorten(there, limit=20) or 'none'}."
        raise UsageError(msg)
    folder = snapshot_path(run, step)
    try:
        return folder, _verified(folder)
    except ModelError as error:
        msg = f"{folder}: {error}. Choose another of {shorten(there, limit=20)}."
        raise UsageError(msg) from error


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a snapshot."""
    tensors: dict[str, Tensor] = load_file(folder / _STATE)
    return tensors


def rotate(run: Path, *, keep: int, keep_every: int = 0, whole: Path | None = None) -> None:
    """Remove old snapshots and what interrupted writes left behind. To be called when a new one is complete.

    Those that stay: the newest `keep`, those after a multiple of `keep_every` updates (0: no others), and in any case
    the newest whole one.

    Parameters
    ----------
    whole
        The newest, where it is known to be whole: to see that takes as long as reading it.
    """
    snapshots = _snapshots(run)
    kept = {*snapshots[-keep:], *(path for path in snapshots if keep_every and _step(path) % keep_every == 0)}
    if whole is not None:
        kept.add(whole)
    elif newest := newest_snapshot(run):
        kept.add(newest[0])
    for folder in snapshots:
        if folder not in kept:
            # Under another name first: no half of a snapshot ever has the name of a whole one.
            folder.rename(folder.with_name(f".{folder.name}.tmp-{uuid4().hex[:8]}"))
    _clear(run)


def set_aside(run: Path, *, after: int) -> None:
    """Begin after `after` updates: later snapshots, from which the run does not come any more, get another name.

    What interrupted writes left behind is removed: it may be what fills the disk.
    """
    for folder in _snapshots(run):
        if _step(folder) > after:
            aside = folder.rename(folder.with_name(f"{folder.name}.aside-{uuid4().hex[:8]}"))
            log.warning("%s is now %s, as the run goes on from step %d.", folder, aside.name, after)
    _clear(run)


def _clear(run: Path) -> None:
    for leftover in [*run.glob(".*.tmp-*"), *(run / "checkpoints").glob(".*.tmp-*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink()


def _snapshots(run: Path) -> list[Path]:
    found = [path for path in (run / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _verified(folder: Path) -> Progress:
    """How far the run was at a snapshot, or a ModelError that says what is wrong with it."""
    try:
        manifest = _read_object(folder / _MANIFEST)
        if (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            msg = f"{_MANIFEST} is not of {FORMAT} {VERSION}"
            raise ModelError(msg)
        _check_files(folder, manifest["files"])
        facts = _read_object(folder / _PROGRESS)
        progress = Progress(
            int(facts["step"]),
            float(facts["seconds"]),
            str(facts["corpus"]),
            int(facts["world"]),
            str(facts.get("start", "")),  # older runs had none
        )
    except ModelError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"cannot be read ({type(error).__name__}: {printable(str(error))})"
        raise ModelError(msg) from error
    if snapshot_path(Path(), progress.step).name != folder.name:
        msg = f"holds what was after {progress.step} updates"
        raise ModelError(msg)
    return progress


def _check_files(folder: Path, listed: Mapping[str, Mapping[str, Any]]) -> None:
    found = {name: (folder / name).stat().st_size for name in _files(folder)}
    problems = [f"{name} is missing" for name in listed if name not in found]
    problems += [f"{name} does not belong to it" for name in found if name not in listed]
    problems = problems or [
        f"{name} has {found[name]:,} bytes, not {facts['size']:,}"
        for name, facts in listed.items()
        if found[name] != facts["size"]
    ]
    problems = problems or [
        f"{name} has changed" for name, facts in listed.items() if sha256_file(folder / name) != facts["sha256"]
    ]
    if problems:
        raise ModelError(shorten(problems))


def _read_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        msg = f"{path.name} holds no object"
        raise ModelError(msg)
    return content

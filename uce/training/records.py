"""What a run writes down beside its weights, and whether a folder may be continued."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.config import config_to_dict, read_config
from uce.errors import OutputExistsError, StorageError, UsageError
from uce.files import atomic_path
from uce.training.settings import PretrainConfig

if TYPE_CHECKING:
    from uce.training.corpus import Corpus

METRICS = "metrics.jsonl"  # of a run folder
# Of its lines: what says how the machine did, not what was learned.
_RATES = ("cells_per_second", "tokens_per_second", "mfu", "padding", "waiting")
BOOKKEEPING = ("step", "lr", "grad_norm", *_RATES, "seconds", "seconds_left")
_MEASURED = ("valid_", "probe")


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
            "parts_of_a_batch": config.accumulate,
            "cells_shown": step * config.batch_size,
            "draws": config.draws,
            "late_draws": f"{config.late_draws} after {config.late_from:.0%} of the steps",
            "balance": config.data.balance,
            "species_balance": config.data.species_balance,
            "thinning": config.data.thinning,
            "precision": config.precision,
            "averaged_weights": config.ema,
            "optimizer": asdict(config.optimizer),
            "corpus_sha256": corpus.sha256,
        },
        "trained_on": [{"dataset": dataset.name, **dataset.facts} for dataset in corpus.datasets],
        "not_trained_on": list(corpus.not_read),
    }


def check_run(config: PretrainConfig, run: Path, target: Path) -> None:
    """Refuse a folder that holds a finished run or one of another configuration.

    How a run is carried out (`run`) may change, and so may the places of the corpus and of the model it began from,
    which are known by their hashes.

    Raises
    ------
    OutputExistsError
        The run is finished, or the folder is a corpus or a model.
    UsageError
        Its configuration is another, which is said by the first key that differs, or one of another version.
    """
    if target.exists():
        msg = f"{target} exists: the run in {run} is finished. Choose another --output."
        raise OutputExistsError(msg)
    if other := [name for name in ("corpus.json", "config.json") if (run / name).is_file()]:
        what = "corpus" if other[0] == "corpus.json" else "model"
        msg = f"{run} holds {other[0]}, so it is a {what}. Choose another --output."
        raise OutputExistsError(msg)
    if (run / "config.yaml").is_file():
        check_settings(config, run)


def check_settings(config: PretrainConfig, run: Path) -> None:
    """Refuse a run, finished or not, that has another configuration.

    Raises
    ------
    UsageError
        As of `check_run`.
    """
    try:
        there = read_config(PretrainConfig, run / "config.yaml")
    except UsageError as error:
        msg = f"{error} This version of uce cannot continue the run; choose another --output."
        raise UsageError(msg) from error
    there = replace(there, run=config.run, data=replace(there.data, corpus=config.data.corpus))
    if there.start and config.start:
        there = replace(there, start=config.start)
    if there == config:
        return
    ours = flatten(config_to_dict(config))
    theirs = flatten(config_to_dict(there))
    # An objective of another name has other settings.
    changed = next(key for key in ours if key not in theirs or ours[key] != theirs[key])
    msg = (
        f"{run}: holds a run with {changed} = {theirs.get(changed)!r}, not {ours[changed]!r}. "
        "Choose another --output, or the same settings to continue."
    )
    raise UsageError(msg)


def flatten(values: dict[str, Any], *, by: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined with `by`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, by=by, prefix=f"{prefix}{key}{by}") if isinstance(value, dict) else {prefix + key: value}
    return flat


class Metrics:
    """`metrics.jsonl` of a run: a JSON object per line, with `step`, the updates done. Only one process writes it.

    Parameters
    ----------
    track
        (numbers by name, step): hands them on to trackers, see `uce.training.tracking`.
    """

    def __init__(self, run: Path, track: Callable[[dict[str, float], int], object] | None = None) -> None:
        self._path, self._track = run / METRICS, track

    def write(self, line: dict[str, Any]) -> None:
        """Append a line. Fractions keep six digits; what is not finite becomes null, as JSON has no word for it.

        Raises
        ------
        StorageError
            The disk is full, or the like.
        """
        clean = _strict(line)
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(clean, allow_nan=False) + "\n")
        except OSError as error:
            msg = f"{self._path}: cannot be written ({error.strerror}). Free some space, then run it again to continue."
            raise StorageError(msg) from error
        if self._track:
            numbers = {name: value for name, value in flatten(clean, by="/").items() if is_number(value)}
            self._track(numbers, numbers.pop("step"))

    def cut(self, step: int) -> None:
        """Take back the lines of updates that will be done again, and one that a crash cut short."""
        if self._path.is_file():
            kept = [line for line in read_metrics(self._path.parent) if line["step"] <= step]
            with atomic_path(self._path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of `metrics.jsonl` of a run that are whole; a crash may have cut one. None where there is no file."""
    path = run / METRICS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and is_number(content.get("step")):
            yield content


def read_curve(run: Path, *, last: float | None = None) -> dict[str, Any]:
    """How a run went, from its log: for every number of training the first, last, lowest and highest; and its seconds.

    Parameters
    ----------
    run
        Folder with `metrics.jsonl`. Where there is none, the curve is empty.
    last
        Step to read up to. None: all.
    """
    lines = _lines(run, last)
    if not lines:
        return {}
    curve: dict[str, Any] = {"logged": f"from step {lines[0]['step']} to {lines[-1]['step']}"}
    names = dict.fromkeys(key for line in lines for key in line)
    for name in names:
        values = [line[name] for line in lines if is_number(line.get(name))]
        if values and name not in BOOKKEEPING and not name.startswith(_MEASURED):
            curve[name] = {"first": values[0], "last": values[-1], "lowest": min(values), "highest": max(values)}
    seconds = [line["seconds"] for line in lines if is_number(line.get("seconds"))]
    return curve | ({"seconds": seconds[-1]} if seconds else {})


def read_validation(run: Path, *, last: float | None = None) -> dict[str, Any]:
    """What was measured last on cells that were not trained on, and after how many steps; empty where nothing was.

    Parameters
    ----------
    run, last
        As in `read_curve`.
    """
    for line in reversed(_lines(run, last)):
        measured = {name: value for name, value in line.items() if name.startswith(_MEASURED) and value is not None}
        if measured:
            return {"after_steps": line["step"], **measured}
    return {}


def _lines(run: Path, last: float | None) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run) if last is None or line["step"] <= last]


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are none."""
    # A comparison and not math.isfinite, which fails for whole numbers beyond all fractions.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value

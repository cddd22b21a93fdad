"""A run as a model folder to share: its weights without what continues the run, and a card filled from the run."""

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from uce.config import read_config
from uce.corpus.training_manifest import TrainingManifest
from uce.errors import InputError, ModelError, StorageError, UceError, UsageError
from uce.files import printable, shorten, user_folder
from uce.model.checkpoint import Model, load_model, save_again
from uce.model.folders import TRAINED_ON
from uce.training.corpus import open_corpus
from uce.training.records import METRICS, is_number, read_curve, read_validation
from uce.training.settings import PretrainConfig
from uce.training.start import open_start
from uce.training.state import newest_snapshot, snapshot_path
from uce.training.trained_on import write_manifest

log = logging.getLogger(__name__)

_MOST_SCORE_BYTES = 100_000


def export(
    run: str | Path,
    *,
    out: str | Path | None = None,
    step: int | None = None,
    name: str | None = None,
    scores: str | Path | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model of a run, or of one of its snapshots, as a model folder that stands alone.

    The card states what the run recorded (data, objective, settings, limits), and from its log how the losses went and
    how long it took. Equal runs and arguments give equal folders.

    Parameters
    ----------
    run
        Folder of `uce pretrain`; its finished model, or where there is none its newest whole snapshot. Or a snapshot,
        or any model folder.
    out
        The folder to write. None: one in the user's folder, where `load_model` finds it by name.
    step
        Take the snapshot after so many updates.
    name
        Of the model. None: the name of `out`, else that of the run.
    scores
        JSON file with an object, score -> value (numbers, text, or objects of such): the card's metrics.
    licence
        Of the weights, instead of what the run's configuration says.
    overwrite
        Replace a model folder.

    Returns
    -------
    The folder written.

    Raises
    ------
    UsageError
        There is no such run, it was written by another version, or a name or a place cannot be used.
    InputError
        The scores cannot be read.
    ModelError
        There is no whole snapshot, or none of that step.
    OutputExistsError, StorageError
        The folder is there already, or cannot be written.
    """
    source = _find(Path(run), step)
    target = _target(source, out, name)
    model = source.model
    info = _facts(source) | ({} if scores is None else {"metrics": read_scores(Path(scores))})
    if out is None:
        _make(target.parent)
    info |= {"licence": licence} if licence else {}
    folder = save_again(model, target, info=info, name=name, overwrite=overwrite)
    _add_manifest(source, folder)
    return folder


def _add_manifest(source: "_Source", folder: Path) -> None:
    """The training manifest of the source, or, for a snapshot, one made of its corpus where that is still at hand."""
    if source.model.folder and (there := source.model.folder / TRAINED_ON).is_dir():
        TrainingManifest.read(there).write(folder / TRAINED_ON)
        return
    training = source.model.info.get("training")
    try:
        config = _read_run(source.run)
        corpus = open_corpus(config.data)
        start = open_start(replace(config, start_heads=""), corpus, None)
    except UceError as error:
        log.info("%s: without a training manifest: %s", folder, error)
        return
    if isinstance(training, dict) and training.get("corpus_sha256") == corpus.sha256:
        write_manifest(folder, corpus, source.run, start)


@dataclass(frozen=True)
class _Source:
    """A model of a run, the folder of the run (or of the model, where it lies in none), and what the run was to be."""

    model: Model
    run: Path
    name: str | None = None
    planned: int | None = None


def _find(given: Path, step: int | None) -> _Source:
    if (given / "config.yaml").is_file():
        config = _read_run(given)
        return _Source(_model_of(given, config, step), given, config.name, config.steps)
    if not (given / "config.json").is_file():
        found = "neither a run (no config.yaml) nor a model (no config.json)" if given.is_dir() else "no such folder"
        msg = f"{given}: {found}. Give the folder that was --output of uce pretrain."
        raise UsageError(msg)
    if step is not None:
        msg = f"--step {step}: {given} is one model. Give the folder of its run."
        raise UsageError(msg)
    above = given.resolve().parent
    run = above.parent if above.name == "checkpoints" else above
    known = all((run / name).is_file() for name in ("config.yaml", METRICS))
    return _Source(load_model(given), run if known else given)


def _read_run(run: Path) -> PretrainConfig:
    try:
        return read_config(PretrainConfig, run / "config.yaml")
    except UsageError as error:
        way_out = f"Give one of its models: {run / 'checkpoints'}/step-..."
        msg = f"{error} This version of uce cannot read the run. {way_out}"
        raise UsageError(msg) from error


def _model_of(run: Path, config: PretrainConfig, step: int | None) -> Model:
    numbers = [path.name.removeprefix("step-") for path in run.glob("checkpoints/step-*")]
    steps = sorted(int(number) for number in numbers if number.isdecimal())
    if step is not None:
        if step not in steps:
            msg = f"--step {step}: {run} has no such snapshot. There is {shorten(list(map(str, steps))) or 'none'}."
            raise ModelError(msg)
        return load_model(snapshot_path(run, step))
    if (run / config.name / "config.json").is_file():
        return load_model(run / config.name)
    newest = newest_snapshot(run)
    for older in reversed(steps):
        try:
            if newest and older <= newest[1].step:
                return load_model(snapshot_path(run, older))
        except ModelError as error:
            log.warning("%s Taking an older snapshot.", error)
    msg = f"{run}: no whole snapshot; one is written every {config.run.snapshot_every} steps."
    raise ModelError(msg)


def _target(source: _Source, out: str | Path | None, name: str | None) -> Path:
    """The folder to write, which must not lie in the run: what it continues from, or takes for finished, is there."""
    chosen = name or (source.name if out is None else Path(out).resolve().name)
    if not chosen or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", chosen):
        msg = (
            f"--name {printable(chosen or '')}: letters, digits, '.', '_' and '-' are needed, a letter or digit first."
        )
        raise UsageError(msg)
    target = user_folder() / "models" / chosen if out is None else Path(out)
    if target.resolve().is_relative_to(source.run.resolve()):
        msg = f"{target}: lies in {source.run}. Choose an --output outside."
        raise UsageError(msg)
    return target


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: cannot be made ({error.strerror}). Point UCE_HOME at a folder of yours."
        raise StorageError(msg) from error


def _facts(source: _Source) -> dict[str, Any]:
    """What the card says of the model, with the course of its training."""
    info = dict(source.model.info)
    training = info.get("training")
    if not isinstance(training, dict):  # a model that was not trained here
        return info
    steps = training.get("steps")
    training = dict(training)
    if source.planned and steps != source.planned:
        log.warning("%s: exported as it was after %s of %d steps.", source.run, steps, source.planned)
        training["planned_steps"] = source.planned
    last = steps if is_number(steps) else None
    if curve := read_curve(source.run, last=last):
        training |= {"seconds": curve.pop("seconds")} if "seconds" in curve else {}
        info["curve"] = curve
    if validation := read_validation(source.run, last=last):
        info["validation"] = validation
    return info | {"training": training}


def read_scores(path: Path) -> dict[str, Any]:
    """Scores for a card.

    Raises
    ------
    InputError
        The file is missing, too large, or no JSON object with at least one score.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= _MOST_SCORE_BYTES else ""
        scores = json.loads(text, parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError):
        scores = None
    if not isinstance(scores, dict) or not scores:
        msg = f'{path}: not scores that can be read. A JSON object is needed, such as {{"macro-F1": 0.61}}.'
        raise InputError(msg)
    return scores


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(text)  # NaN and Infinity, which readers of JSON elsewhere refuse

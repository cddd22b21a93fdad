"""A model adapted to a user's cells, from a file to a model folder: `adapt` is all a user calls."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uce.adaptation.cells import CellsFile, HoldOut, UserCells, read_user_cells
from uce.adaptation.picture import draw_scores
from uce.adaptation.recipes import find_recipe
from uce.adaptation.scoring import Scores, score_held_out
from uce.adaptation.task import CELLS, SOURCE, START, Recipe, Task
from uce.embedding import DEFAULT_MODEL
from uce.errors import OutputExistsError, UsageError
from uce.evaluation.results import NotPossible
from uce.files import make_folder, printable, write_json
from uce.locks import lock
from uce.model.checkpoint import Model, load_model
from uce.progress import say
from uce.training.settings import check_name

RECORD, PICTURE, _LOCK = "adapt.json", "adapt.png", ".adapt.lock"  # of a run


@dataclass(frozen=True)
class Adapted:
    """What an adaptation came to.

    Attributes
    ----------
    model
        The model folder.
    scores
        Of the held-out cells; None where none were held out.
    picture
        Of the scores, likewise.
    """

    model: Path
    scores: Scores | None = None
    picture: Path | None = None


def adapt(
    cells: str | Path,
    *,
    out: str | Path,
    recipe: str,
    labels: str | None = None,
    model: str | Path = DEFAULT_MODEL,
    hold_out: Mapping[str, Sequence[str]] | None = None,
    source: str | Path | None = None,
    species: str | None = None,
    layer: str | None = None,
    gene_column: str | None = None,
    name: str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    quiet: bool = False,
) -> Adapted:
    """Fit a model further to the cells of a file, with or without their labels; the file stays as it is.

    Interrupted, the same call goes on where it was, to the same bytes.

    Parameters
    ----------
    cells
        Any file that :func:`uce.embed_file` takes, of one species.
    out
        Folder of the run; the model folder is made in it, and beside it what led to it.
    recipe
        `probe`, `lora` or `full` (which learn from labels), `contrastive` (which reads none), or `amt2` (which learns
        from the labels of `source`).
    labels
        Column of `obs` with the labels. Cells without one ("", "unknown", missing) are not learned from.
    model
        To begin from: a model folder, or the name of an installed one. It stays as it is.
    hold_out
        Cells to keep out of training, on which the model before and after is scored by labels: a column of `obs` and
        its values, such as ``{"donor": ["D1", "D2"]}``.
    source
        Labelled cells of another kind, for recipes that learn from these.
    species, layer, gene_column
        How counts and genes are found, as for :func:`uce.embed`.
    name
        Of the new model; that of the model and the recipe if left out.
    seed
        Of everything random.
    settings
        Changes of the training's configuration such as `steps=500`, see `uce.training.settings`.
    quiet
        No notes on stderr but the course of training.

    Returns
    -------
    Adapted
        With the model folder, and the scores where cells were held out.

    Raises
    ------
    UsageError
        An unknown recipe, a missing or needless option, or `out` holds another adaptation.
    InputError
        The cells cannot be read, or have fewer than two labels.
    ModelError
        There is no such model, or it reads other gene vectors.
    OutputExistsError
        The adaptation in `out` is finished.
    StorageError
        `out` cannot be written.

    Examples
    --------
    >>> import uce
    >>> done = uce.adapt("cells.h5ad", out="runs/mine", recipe="full", labels="cell_type")  # doctest: +SKIP
    >>> uce.embed(adata, model=done.model)                                                  # doctest: +SKIP
    """
    chosen = find_recipe(recipe)
    held = _hold_out(hold_out) if hold_out is not None else None
    _refuse_contradictions(chosen, labels, held, source)
    base = load_model(model)
    named = name or f"{base.name}-{recipe}"
    check_name(named)
    if named in (CELLS, SOURCE, START):
        msg = f"--name {named}: a folder of the run has that name. Choose another."
        raise UsageError(msg)
    file = CellsFile(Path(cells).resolve(), species, layer, gene_column)
    column = (labels or "") if chosen.labels == "cells" else ""
    user = read_user_cells(file, base, column=column, hold_out=held)
    other = read_user_cells(CellsFile(Path(source).resolve()), base, column=labels or "") if source else None
    task = Task(recipe, base, str(model), user, other, Path(out), named, seed, tuple(settings), quiet)
    plan = _plan(task)
    _check(task, plan)
    make_folder(task.out)
    with lock(task.out / _LOCK, wait=False):
        write_json(task.out / RECORD, {"plan": plan})
        folder = chosen.train(task)
        scores = _scored(task, load_model(folder)) if held else None
        drawn = draw_scores(scores, task.out / PICTURE, title=named) if scores else None
        write_json(task.out / RECORD, {"plan": plan, "scores": asdict(scores) if scores else None})
    return Adapted(folder, scores, drawn)


def _hold_out(given: Mapping[str, Sequence[str]]) -> HoldOut:
    for column, values in given.items():
        if column and values and len(given) == 1 and not isinstance(values, str):
            return HoldOut(column, tuple(map(str, values)))
    msg = f"--hold-out {printable(str(dict(given)))}: one column and its values are needed, such as donor=D1,D2."
    raise UsageError(msg)


def _refuse_contradictions(
    recipe: Recipe, labels: str | None, hold_out: HoldOut | None, source: str | Path | None
) -> None:
    if recipe.labels == "none" and labels is not None:
        msg = f"--labels {labels}: the recipe {recipe.name} reads no labels. Leave it out, or choose lora or probe."
        raise UsageError(msg)
    if recipe.labels != "none" and labels is None:
        msg = f"--recipe {recipe.name}: learns from labels; name their obs column with --labels."
        raise UsageError(msg)
    if (recipe.labels == "source") != (source is not None):
        way = "needs a labelled --source" if source is None else "takes no --source; leave it out"
        msg = f"--recipe {recipe.name}: {way}."
        raise UsageError(msg)
    if hold_out and recipe.labels != "cells":
        msg = f"--hold-out {hold_out.column}: held-out cells are scored by labels, which {recipe.name} does not read."
        raise UsageError(msg)


def _plan(task: Task) -> dict[str, Any]:
    """All that decides the result; paths do not."""
    held = task.cells.hold_out
    return {
        "recipe": task.recipe,
        "model": task.model.sha256,
        "cells": _facts(task.cells),
        "hold_out": {"column": held.column, "values": list(held.values)} if held else None,
        "source": _facts(task.source) if task.source else None,
        "name": task.name,
        "seed": task.seed,
        "settings": list(task.settings),
    }


def _facts(cells: UserCells) -> dict[str, str]:
    return {"fingerprint": cells.fingerprint, "species": cells.species, "labels": cells.column}


def _check(task: Task, plan: dict[str, Any]) -> None:
    """Refuse a folder that holds another adaptation, one that is finished, or something else."""
    record = task.out / RECORD
    if not record.is_file():
        if task.out.is_dir() and any(not path.name.startswith(_LOCK) for path in task.out.iterdir()):
            msg = f"{task.out}: holds something that is no adaptation. Choose another --output."
            raise OutputExistsError(msg)
        return
    try:
        there = json.loads(record.read_text(encoding="utf-8"))
        before = dict(there["plan"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"{record}: damaged ({type(error).__name__}). Choose another --output."
        raise UsageError(msg) from error
    # A run of training knows its own settings, and none has begun where one of them was misspelt.
    if changed := [key for key in plan if key != "settings" and before.get(key) != plan[key]]:
        msg = f"{task.out}: holds an adaptation with another {changed[0]}. Choose another --output."
        raise UsageError(msg)
    if "scores" in there and task.target.exists():
        msg = f"{task.target} exists: the adaptation is finished. Choose another --output."
        raise OutputExistsError(msg)


def _scored(task: Task, adapted: Model) -> Scores | None:
    try:
        scores = score_held_out(task.cells, task.model, adapted, seed=task.seed)
    except NotPossible as reason:
        say(f"{task.cells.file.path}: nothing is scored, as {reason}.", quiet=task.quiet)
        return None
    say(scores, quiet=task.quiet)
    return scores

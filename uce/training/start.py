"""What a run begins from instead of drawn weights: the encoder of a model and, where asked for, another run's heads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from uce.config import read_config
from uce.errors import UsageError
from uce.genes.kinds import plain_kind
from uce.model.checkpoint import Model, load_model
from uce.model.classifier import Classifier
from uce.training.packing import OBJECTIVE, below
from uce.training.settings import PretrainConfig
from uce.training.state import Progress, newest_snapshot, read_state

if TYPE_CHECKING:
    from uce.training.corpus import Corpus


@dataclass(frozen=True, eq=False)
class Start:
    """Weights that a run begins with.

    Attributes
    ----------
    name, sha256
        Of the model.
    encoder
        The state of its encoder.
    classifier
        That the model brings along, or None; an objective with the same labels begins with it.
    heads
        The state of the objective; None where it begins as usual.
    gene_tables
        Those that the model was trained with.
    parameters
        Names of the weights that are trained usually; `encoder` has buffers too.
    folder
        Of the model.
    """

    name: str
    sha256: str
    encoder: dict[str, Tensor]
    classifier: Classifier | None
    heads: dict[str, Tensor] | None
    gene_tables: tuple[dict[str, Any], ...]
    parameters: tuple[str, ...]
    folder: Path | None


def open_start(config: PretrainConfig, corpus: "Corpus", found: Progress | None) -> Start | None:
    """What `config.start` and `config.start_heads` name; None where they name nothing.

    Parameters
    ----------
    found
        How far the run is, if it goes on: it must have begun from the same weights.

    Raises
    ------
    ModelError
        There is no such model.
    UsageError
        It has another shape than `config.model` or reads other vectors than the corpus has; the run began from another
        model; the run to take heads from is not finished, or had another objective.
    """
    model = load_model(config.start) if config.start else None
    before, now = found.start if found else "", model.sha256 if model else ""
    if found and before != now:
        msg = f"start = {config.start!r}: is model {now[:12]}.. now, the run began from {before[:12]}... Give that one."
        raise UsageError(msg)
    if model is None:
        return None
    _check(model, config, corpus)
    # What goes on has its heads already.
    heads = _heads(config) if config.start_heads and not found else None
    names = tuple(name for name, _ in model.encoder.named_parameters())
    tables = tuple(model.gene_tables)
    state = model.encoder.state_dict()
    return Start(model.name, model.sha256, state, model.classifier, heads, tables, names, model.folder)


def _check(model: Model, config: PretrainConfig, corpus: "Corpus") -> None:
    place = f"start = {config.start!r}"
    ours, theirs = config.model.facts(), replace(model.config, dropout=config.model.dropout).facts()
    if changed := [name for name in ours | theirs if ours.get(name) != theirs.get(name)]:
        name = changed[0]
        msg = f"{place}: has {name} = {theirs.get(name)!r}, not model.{name} = {ours.get(name)!r}. Give its shape."
        raise UsageError(msg)
    if plain_kind(model.gene_encoder) != plain_kind(corpus.gene_encoder):
        msg = f"{place}: reads {model.gene_encoder} vectors, the corpus was built for {corpus.gene_encoder}."
        raise UsageError(msg)
    known, found = (
        {str(table["encoder_sha256"]) for table in tables if table.get("encoder_sha256")}
        for tables in (model.gene_tables, corpus.tables)
    )
    if known and found and not known & found:
        msg = f"{place}: its {model.gene_encoder} vectors are of other weights of the protein encoder than the corpus'."
        raise UsageError(msg)
    if model.chromosome_vectors or not np.array_equal(model.specials, corpus.specials):
        msg = f"{place}: brings vectors of CLS and chromosomes of its own, and training draws them. It can only embed."
        raise UsageError(msg)


def _heads(config: PretrainConfig) -> dict[str, Tensor]:
    run, place = Path(config.start_heads), f"start_heads = {config.start_heads!r}"
    there = read_config(PretrainConfig, run / "config.yaml")
    newest = newest_snapshot(run)
    if newest is None or newest[1].step != there.steps:
        msg = f"{place}: a finished run is needed, this one was not carried to its {there.steps} steps."
        raise UsageError(msg)
    if there.objective != config.objective:
        msg = f"{place}: was trained for {there.objective.name} with other settings; the objective must be the same."
        raise UsageError(msg)
    return below(read_state(newest[0]), OBJECTIVE)

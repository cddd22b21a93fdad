"""Labels without a reference: those of the classifier that a model brings along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import uce
from uce.annotation.labelling import UNKNOWN
from uce.annotation.results import Annotated, Outputs
from uce.annotation.running import Wishes
from uce.annotation.sources import Input, Side, one_side
from uce.annotation.writing import refuse_existing, write_h5ad
from uce.cells.counts import open_source
from uce.engines import Settings
from uce.errors import UsageError
from uce.files import atomic_path
from uce.model.checkpoint import Model, load_model
from uce.progress import say


@dataclass(frozen=True, eq=False)
class Classified:
    """Cells labelled by a classifier: their vectors, the columns for `obs` and the record for `uns`."""

    query: Side
    columns: dict[str, Any]
    facts: dict[str, Any]


def classify(
    query: Input, wishes: Wishes, *, model: str | Path | Model | None, settings: Settings, quiet: bool
) -> Classified:
    """Embed cells, and label them by the classifier of the model.

    Raises
    ------
    UsageError
        The model brings no classifier, none is named, or an option needs a reference.
    InputError, ModelError, OutputExistsError
        As for a reference.
    """
    needing = {"label-key": wishes.label_key, "group-key": wishes.group_key, "label-map": wishes.label_map}
    if named := [name for name, value in needing.items() if value]:
        msg = f"--{named[0]}: is of a labelled --reference, and there is none. Give one."
        raise UsageError(msg)
    loaded = model if model is None or isinstance(model, Model) else load_model(model)
    if loaded is None or loaded.classifier is None:
        found = "no --model" if loaded is None else f"{loaded.name} brings no classifier"
        msg = f"{found}: give a labelled --reference, or a --model that was adapted to labels with uce adapt."
        raise UsageError(msg)
    source = open_source(query.data, genome=query.options.genome)
    with source.stack:
        refuse_existing(query.name, source.cells.columns, wishes.key_added, overwrite=wishes.overwrite)
    side = one_side(query, loaded, settings=settings, key=wishes.key, overwrite=wishes.overwrite, quiet=quiet)
    columns, facts = _described(side, loaded, wishes.key_added)
    say(f"{query.name}: labelled by the classifier of {loaded.name}; a share is no probability here", quiet=quiet)
    return Classified(side, columns, facts)


def write_classified(found: Classified, paths: Outputs, wishes: Wishes) -> Annotated:
    """Write the cells with their columns, and the table of labels."""
    write_h5ad(paths.cells, found.query, found.columns, wishes.key_added, found.facts, key=wishes.key)
    with atomic_path(paths.summary) as temporary:
        found.facts["summary"].to_csv(temporary, sep="\t", index=False, float_format="%.4g")
    return Annotated(paths.cells, paths.summary, None, None, found.facts)


def _described(side: Side, model: Model, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns by name, and the record."""
    assert model.classifier is not None
    there = np.isfinite(side.vectors).all(axis=1)
    shares = model.classifier.probabilities(np.nan_to_num(side.vectors))
    order = np.argsort(-shares, axis=1, kind="stable")[:, :2]
    best, second = np.take_along_axis(shares, order, axis=1).T
    names = list(model.classifier.labels)
    kinds = np.array(names, dtype=object)
    labels, others = kinds[order[:, 0]], kinds[order[:, 1]]
    labels[~there] = others[~there] = None
    every = {
        "label": pd.Categorical(np.where(there, labels, UNKNOWN), categories=list(dict.fromkeys([*names, UNKNOWN]))),
        "best_label": pd.Categorical(labels, categories=names),
        "vote_share": np.where(there, best, np.nan),
        "label_2": pd.Categorical(others, categories=names),
        "margin": np.where(there, best - second, np.nan),
    }
    found = pd.DataFrame({"label": labels[there], "vote_share": best[there]}).groupby("label")["vote_share"]
    summary = found.agg(cells="size", mean_vote_share="mean").reindex(names)
    summary["cells"] = summary["cells"].fillna(0).astype(np.int64)
    summary.insert(1, "share", summary["cells"] / max(1, int(there.sum())))
    record = {name: str(side.record[name]) for name in ("model", "model_sha256", "gene_vectors", "precision")}
    facts = {
        "version": uce.__version__,
        "query": side.given.name,
        **record,
        "method": "classifier",
        "calibrated": False,
        "summary": summary.rename_axis("label").reset_index(),
    }
    return {f"{prefix}_{name}": column for name, column in every.items()}, facts

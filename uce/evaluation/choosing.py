"""Which embeddings and which model are judged, where the user leaves it open; and what is read for them."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.cells.counts import open_source
from uce.engines import Settings as Computing
from uce.errors import ModelError
from uce.evaluation.context import Settings
from uce.evaluation.counts import CountsOptions
from uce.evaluation.reading import Columns, Judged, read_cells
from uce.model.checkpoint import Model, load_model

if TYPE_CHECKING:
    from anndata import AnnData

DEFAULT_MODEL = "uce-mini"


def read_judged(
    data: "str | Path | AnnData",
    columns: Columns,
    *,
    embeddings: Sequence[str] | None,
    model: str | Path | Model | None,
    computing: Computing,
    options: CountsOptions,
    settings: Settings,
) -> Judged:
    """Decide which embeddings and which model are judged, and read what they need.

    Raises
    ------
    UsageError, InputError, ModelError
        As of `evaluate`.
    """
    keys, records = _keys_and_records(data, embeddings, options.genome)
    wanted = model is not None or not keys
    loaded, why_none = _model(model, keys, records)
    judged = read_cells(
        data,
        columns,
        keys=keys,
        model=loaded,
        computing=computing,
        options=options,
        need_model=wanted,
        max_cells=settings.max_cells,
        draws=settings.seeds,
        seed=settings.seed,
    )
    cells = judged.cells if loaded is not None else replace(judged.cells, why_no_reader=why_none)
    return replace(judged, cells=cells, embed=wanted)


def _keys_and_records(
    data: "str | Path | AnnData", embeddings: Sequence[str] | None, genome: str | None
) -> tuple[list[str], dict[str, Any]]:
    opened = open_source(data, genome=genome)
    with closing(opened.stack):
        if embeddings is None:
            embeddings = ["X_uce"] if "X_uce" in opened.obsm else []
        return list(dict.fromkeys(embeddings)), dict(opened.records())


def _model(model: str | Path | Model | None, keys: Sequence[str], records: dict[str, Any]) -> tuple[Model | None, str]:
    """The model that was asked for, else the one that made the first embedding, else the bundled one; or why none."""
    if isinstance(model, Model):
        return model, ""
    if model is not None or not keys:
        return load_model(model or DEFAULT_MODEL), ""
    recorded = next((str(records[key]["model"]) for key in keys if "model" in records.get(key, {})), DEFAULT_MODEL)
    try:
        return load_model(recorded), ""
    except ModelError as error:  # not installed here; what needs a model says so
        return None, str(error)

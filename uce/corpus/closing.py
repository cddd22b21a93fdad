"""The end of a build: tables, splits and report of what was written, and last the index."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uce import __version__
from uce.corpus.layout import SPLITS, TABLE, file_hashes, write_index, write_rows
from uce.corpus.manifest import DatasetRow
from uce.corpus.quality import QualityRules
from uce.corpus.report import write_report
from uce.corpus.splits import Assignment, SplitRule, split_record
from uce.corpus.store import RECORD, read_record
from uce.corpus.survey import Survey
from uce.errors import InputError
from uce.files import sha256_file, write_json
from uce.genes.tables import GeneTable


@dataclass(frozen=True)
class BuildSettings:
    """What decides the content of a corpus, beside the manifest."""

    encoder: str
    rules: QualityRules
    splits: SplitRule
    seed: int


@dataclass
class PlannedDataset:
    """What a build knows of one row of the manifest.

    Attributes
    ----------
    rows
        (kept,) rows of the file, in the order in which they are stored.
    assignment
        The splits of its cells.
    removed
        Filter -> cells it removed.
    error
        Why it cannot be in the corpus, "" where it can.
    """

    row: DatasetRow
    file: Path
    survey: Survey | None = None
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    assignment: Assignment = field(default_factory=lambda: Assignment(""))
    removed: dict[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Attributes
    ----------
    folder
        Of the corpus.
    datasets, cells
        How many are in it.
    written
        How many stores were written now; the others were there.
    failed
        Dataset -> why it is not in the corpus.
    """

    folder: Path
    datasets: int
    cells: int
    written: int
    failed: dict[str, str]


def gene_rows(table: GeneTable) -> list[dict[str, object]]:
    """The rows of `genes.csv`: what the columns of X are, in their order."""
    columns = (table.ids, table.symbols, table.chromosomes, table.starts)
    names = ("gene_id", "symbol", "chromosome", "start")
    return [dict(zip(names, gene, strict=True)) for gene in zip(*(column.tolist() for column in columns), strict=True)]


def finish_corpus(
    datasets: list[PlannedDataset], tables: dict[str, GeneTable], out: Path, settings: BuildSettings, *, written: int
) -> Built:
    """Write the tables, the splits, the report, and last the index.

    Raises
    ------
    InputError
        No dataset is left.
    """
    sound = [dataset for dataset in datasets if not dataset.error]
    stored = [dataset for dataset in sound if dataset.rows.size]
    failed = {dataset.row.name: dataset.error for dataset in datasets if dataset.error}
    if not stored:
        why = next(iter(failed.values()), "no cell passed the filters")
        msg = f"{out}: no dataset of the manifest can be used; the first: {why}"
        raise InputError(msg)
    records = {dataset.row.name: read_record(out / "data" / dataset.row.name) or {} for dataset in stored}
    write_rows(out / TABLE, [_table_row(dataset, records) for dataset in sound])
    write_json(
        out / SPLITS, split_record({dataset.row.name: dataset.assignment for dataset in stored}, settings.splits)
    )
    facts = {
        dataset.row.name: dataset.survey.facts | {"removed": dataset.removed, "kept": int(dataset.rows.size)}
        for dataset in sound
        if dataset.survey
    }
    write_report(out, facts, failed, settings.rules)
    totals = {name: sum(record[name] for record in records.values()) for name in ("cells", "entries", "counts")}
    used = sorted({dataset.row.species for dataset in stored})
    write_index(
        out,
        {
            "uce": __version__,
            "seed": settings.seed,
            "gene_encoder": settings.encoder,
            "species": {name: {"sha256": tables[name].sha256, "genes": len(tables[name])} for name in used},
            "rules": asdict(settings.rules),
            "totals": {"datasets": len(stored), **totals},
            "datasets": {name: sha256_file(out / "data" / name / RECORD) for name in records},
            "files": file_hashes(out, used),
            "failed": failed,
        },
    )
    return Built(out, len(stored), totals["cells"], written, failed)


def _table_row(dataset: PlannedDataset, records: dict[str, dict[str, Any]]) -> dict[str, object]:
    row, record = dataset.row, records.get(dataset.row.name, {})
    assert dataset.survey is not None
    facts = dataset.survey.facts
    return {
        "dataset_id": row.name,
        "path": row.path,
        "species": row.species,
        "split": dataset.assignment.split,
        "assay": facts["assay"],
        "tissue": row.tissue,
        "n_cells": facts["cells"],
        "n_kept": int(dataset.rows.size),
        "entries": record.get("entries", 0),
        "counts": record.get("counts", 0),
        "genes_measured": facts["genes_measured"],
        "weight": row.weight,
        "licence": row.licence,
        "study": row.study,
        "source_sha256": facts["source_sha256"],
        "left_out": facts["left_out"],
    }

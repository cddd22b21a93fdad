"""A manifest becomes a corpus: survey every dataset, decide which cells stay, write what changed, then the index."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from uce.corpus.closing import BuildSettings, Built, PlannedDataset, finish_corpus, gene_rows
from uce.corpus.duplicates import first_of_each
from uce.corpus.layout import BUILDING, INDEX, check_tables, read_index, write_rows
from uce.corpus.manifest import DatasetRow, read_manifest
from uce.corpus.quality import QualityRules
from uce.corpus.shards import need_zarr3
from uce.corpus.splits import SplitRule, assign
from uce.corpus.store import RECORD, UNFINISHED, need_store, read_record, relabel
from uce.corpus.survey import Survey, survey_dataset
from uce.corpus.workers import run_tasks
from uce.corpus.writing import StorePlan, cell_order, store_key, write_store
from uce.errors import InputError, OutputExistsError, UceError, UsageError
from uce.files import make_folder, shorten, write_json
from uce.genes.collection import load_gene_table
from uce.genes.kinds import BUNDLED_ENCODER
from uce.genes.tables import GeneTable
from uce.locks import lock
from uce.progress import say

RunTasks: TypeAlias = Callable[..., list[str]]


def build_corpus(
    manifest: str | Path,
    out: str | Path,
    *,
    folder: str | Path | None = None,
    encoder: str = BUNDLED_ENCODER,
    rules: QualityRules | None = None,
    splits: SplitRule | None = None,
    seed: int = 0,
    workers: int = 1,
    quiet: bool = True,
) -> Built:
    """Make or bring up to date the corpus of a manifest. What is there and still true is not made again.

    Each dataset is read twice: once to judge and hash its cells, once to write those that stay. With several workers
    call it under `if __name__ == "__main__":`.

    Parameters
    ----------
    manifest
        CSV with a row per dataset, see `uce.corpus.manifest`.
    out
        Folder of the corpus.
    folder
        Where the files of the manifest are; the folder of the manifest if left out.
    encoder
        Kind of the gene tables whose genes are the columns.
    seed
        Of the order of the cells inside each dataset.
    workers
        Processes, a dataset each; their number changes no byte.

    Raises
    ------
    InputError
        The manifest cannot be used, or no dataset of it.
    ModelError
        The corpus that is there was built with another gene table.
    OutputExistsError
        `out` holds something else than a corpus.
    StorageError
        `out` cannot be written, the disk is full, or another build runs there.
    UsageError
        zarr is too old, or `workers` is no number of processes.
    """
    need_zarr3()
    if workers < 1:
        msg = f"{workers} workers; 1 or more are needed."
        raise UsageError(msg)
    manifest, out = Path(manifest), Path(out)
    settings = BuildSettings(encoder, rules or QualityRules(), splits or SplitRule(), seed)
    rows, unused = read_manifest(manifest)
    _refuse_held_out(rows, settings.splits, manifest)
    if unused:
        say(f"{manifest}: columns that are not used: {shorten(unused, limit=20)}", quiet=quiet)
    _claim(out)
    with lock(out / ".lock", wait=False):
        tables, datasets = _prepare(rows, Path(folder or manifest.parent), encoder)
        _begin(out, tables, settings)
        run = partial(run_tasks, workers=workers, quiet=quiet)
        _survey_all(datasets, out, settings, run)
        _decide(datasets, settings)
        written = _write_all(datasets, out, settings, run)
        return finish_corpus(datasets, tables, out, settings, written=written)


def _refuse_held_out(rows: Sequence[DatasetRow], splits: SplitRule, manifest: Path) -> None:
    for row in rows:
        if row.species in splits.held_out and row.split == "train":
            msg = f"{manifest}: line {row.line}: {row.name} is for training, but its species {row.species} is held out."
            raise InputError(msg)


def _claim(out: Path) -> None:
    """Make the folder, or see that it is one of ours and can be written."""
    if out.exists() and not out.is_dir():
        msg = f"{out} is a file. Choose another folder with -o."
        raise OutputExistsError(msg)
    held = [path.name for path in out.iterdir() if not path.name.startswith(".lock")] if out.is_dir() else []
    ours = {INDEX, BUILDING} & set(held) or any(out.glob(f"data/*/{RECORD}"))
    if held and not ours:
        msg = f"{out} holds {shorten(sorted(held))} and is no corpus. Choose another folder with -o."
        raise OutputExistsError(msg)
    make_folder(out)


def _prepare(
    rows: Sequence[DatasetRow], folder: Path, encoder: str
) -> tuple[dict[str, GeneTable], list[PlannedDataset]]:
    """The gene tables there are, and the datasets, those without a table or file marked as failed."""
    tables: dict[str, GeneTable] = {}
    missing: dict[str, str] = {}
    for name in sorted({row.species for row in rows}):
        try:
            tables[name] = load_gene_table(name, encoder=encoder)
        except UceError as error:
            missing[name] = str(error)
    datasets = []
    for row in rows:
        try:
            datasets.append(PlannedDataset(row, row.file(folder), error=missing.get(row.species, "")))
        except UceError as error:
            datasets.append(PlannedDataset(row, folder, error=str(error)))
    return tables, datasets


def _begin(out: Path, tables: dict[str, GeneTable], settings: BuildSettings) -> None:
    """Compare with the corpus that is there, mark the build as begun, and clear what a killed writer left."""
    index = None
    with suppress(InputError):  # a damaged index vouches for nothing, and is written anew
        index = None if (out / BUILDING).is_file() or not (out / INDEX).is_file() else read_index(out)
    if index is not None:
        if index.content["gene_encoder"] != settings.encoder:
            kinds = f"{index.content['gene_encoder']}, not {settings.encoder}"
            msg = f"{out}: was built with gene tables of kind {kinds}. Choose another folder with -o."
            raise UsageError(msg)
        check_tables(index)
    write_json(out / BUILDING, {"gene_encoder": settings.encoder, "seed": settings.seed})
    for name in ("data", "surveys", "splits"):
        (out / name).mkdir(exist_ok=True)
    for left in (out / "data").glob(f"*{UNFINISHED}"):
        shutil.rmtree(left)
    for left in out.rglob(".*.tmp-*"):  # of writes that were cut short; we hold the lock, so nobody is writing
        left.unlink()
    for name, table in tables.items():
        write_rows(out / "species" / name / "genes.csv", gene_rows(table))


def _survey_all(datasets: list[PlannedDataset], out: Path, settings: BuildSettings, run: RunTasks) -> None:
    sound = [dataset for dataset in datasets if not dataset.error]
    paths = [out / "surveys" / f"{dataset.row.name}.npz" for dataset in sound]
    tasks = [
        (dataset.row, dataset.file, settings.encoder, settings.rules, path)
        for dataset, path in zip(sound, paths, strict=True)
    ]
    errors = run(survey_dataset, tasks, what="reading")
    for dataset, path, error in zip(sound, paths, errors, strict=True):
        dataset.error = error
        dataset.survey = None if error else Survey.load(path)


def _decide(datasets: list[PlannedDataset], settings: BuildSettings) -> None:
    """Which rows of each dataset are kept, in the order they are stored in."""
    rules = settings.rules
    surveyed = [(dataset, dataset.survey) for dataset in datasets if dataset.survey is not None]
    fresh = first_of_each([survey.hashes for _, survey in surveyed])
    for (dataset, survey), first in zip(surveyed, fresh, strict=True):
        dataset.removed = dict(survey.facts["removed"])
        rows = survey.rows
        if rules.uses("duplicates") and not survey.facts["left_out"]:
            dataset.removed["duplicates"] = int((~first).sum())
            rows = rows[first]
        kept = np.zeros(survey.facts["cells"], dtype=bool)
        kept[rows] = True
        order = cell_order(settings.seed, dataset.row.name, len(kept))
        order = order[kept[order]]
        if rules.uses("max_cells") and not survey.facts["left_out"]:
            dataset.removed["max_cells"] = max(0, len(order) - rules.max_cells)
            order = order[: rules.max_cells]
        dataset.rows = order
        dataset.assignment = assign(dataset.row, survey.facts["donors"], settings.splits)


def _write_all(datasets: list[PlannedDataset], out: Path, settings: BuildSettings, run: RunTasks) -> int:
    """Write the stores that are not there as they should be, to the last bit; returns how many those were."""
    kept = [dataset for dataset in datasets if dataset.survey is not None and dataset.rows.size]
    tasks = [(_plan(dataset, settings), out / "data" / dataset.row.name) for dataset in kept]
    faults = run(need_store, [(folder, plan.key) for plan, folder in tasks], what="checking")
    missing = [(dataset, task) for dataset, task, fault in zip(kept, tasks, faults, strict=True) if fault]
    errors = run(write_store, [task for _, task in missing], what="writing")
    for (dataset, _), error in zip(missing, errors, strict=True):
        dataset.error = error
    for plan, folder in tasks:
        if (record := read_record(folder)) is not None and not plan.assignment.donors:
            relabel(folder, record, plan.assignment.split)
    return errors.count("")


def _plan(dataset: PlannedDataset, settings: BuildSettings) -> StorePlan:
    assert dataset.survey is not None
    key = store_key(dataset.survey.key, dataset.rows, dataset.assignment)
    about = (dataset.row, dataset.file, settings.encoder, settings.rules, dataset.rows)
    return StorePlan(*about, dataset.assignment, key)

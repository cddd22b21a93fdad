"""A part of the training cells of a corpus as a corpus of its own, so that every tool works on it.

Cells of other splits stay as they are: what a model is judged on is the same for every subset.
"""

import hashlib
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uce import __version__
from uce.cells.stores import reading
from uce.corpus.choosing import SubsetRule, TrainingCells, first_cells, first_datasets, training_cells
from uce.corpus.layout import SPLITS, TABLE, CorpusIndex, file_hashes, read_json, write_index, write_rows
from uce.corpus.orders import Order
from uce.corpus.shards import Rows, ShardReader, read_obs_column, shard_sums, write_shard
from uce.corpus.splits import TRAIN
from uce.corpus.store import RECORD, read_record, write_record
from uce.errors import OutputExistsError, StorageError, UsageError
from uce.files import atomic_path, make_folder, sha256_file, write_json

_BLOCK = 4096  # cells read at a time


def subset_corpus(
    corpus: str | Path,
    out: str | Path,
    *,
    cells: int | None = None,
    datasets: int | None = None,
    rule: SubsetRule | None = None,
) -> Path:
    """Write a corpus of the first cells or datasets by a rule, beside all cells of other splits; returns `out`.

    Subsets of one rule are nested: a larger one holds every cell of a smaller one.

    Parameters
    ----------
    cells, datasets
        How many to take for training; one of the two. Datasets are taken whole, at random.

    Raises
    ------
    UsageError
        There are not so many, both or neither are given, or the rule names a dataset that is not there.
    InputError, ModelError
        The corpus, or a gene table that a sketch needs, cannot be read.
    OutputExistsError
        Something is there.
    StorageError
        It cannot be written.
    """
    out, rule = Path(out), rule or SubsetRule()
    if out.exists():
        msg = f"{out} exists. Choose another folder with -o."
        raise OutputExistsError(msg)
    pool = training_cells(corpus, rule.only)
    if (cells is None) == (datasets is None):
        msg = "how large is the subset? Give a number of cells or of datasets, one of them."
        raise UsageError(msg)
    chosen = first_cells(pool, rule, cells) if cells is not None else first_datasets(pool, rule, datasets or 0)
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        _write(pool, chosen, temporary, asdict(rule) | {"cells": int(chosen.sum()), "datasets": datasets})
    return out


def _write(pool: TrainingCells, chosen: npt.NDArray[np.bool_], out: Path, how: dict[str, Any]) -> None:
    """The corpus of the chosen cells at `out`, which is there under this name only when it is whole."""
    index = pool.index
    ends = np.cumsum([shard.cells for shard in pool.shards])
    parts = np.split(chosen, ends[:-1])
    rows = {(shard.dataset, shard.file): np.flatnonzero(part) for shard, part in zip(pool.shards, parts, strict=True)}
    records = {}
    for name in sorted(index.stores):
        kept = {file: rows.get((name, file), np.zeros(0, np.int64)) for file in _training_files(index, name)}
        if record := _write_store(index.folder / "data" / name, out / "data" / name, kept):
            records[name] = record
    table = [_table_row(row, records) for row in index.datasets() if row["dataset_id"] in records]
    write_rows(out / TABLE, table)
    for name in {row["species"] for row in index.datasets()}:
        _link(index.folder / "species" / name / "genes.csv", out / "species" / name / "genes.csv")
    (out / "splits").mkdir()
    write_json(out / SPLITS, _splits(index, records))
    _report(out, how, records, index)
    totals = {name: sum(record[name] for record in records.values()) for name in ("cells", "entries", "counts")}
    facts = {key: index.content[key] for key in ("seed", "gene_encoder", "species", "rules")}
    write_index(
        out,
        {
            "uce": __version__,
            **facts,
            "subset": how | {"of": sha256_file(index.folder / "corpus.json")},
            "totals": {"datasets": len(records), **totals},
            "datasets": {name: sha256_file(out / "data" / name / RECORD) for name in records},
            "files": file_hashes(out, sorted(index.species)),
            "failed": {},
        },
    )


def _record(store: Path) -> dict[str, Any]:
    record = read_record(store)
    assert record is not None, "the corpus was checked"
    return record


def _training_files(index: CorpusIndex, name: str) -> list[str]:
    shards = _record(index.folder / "data" / name)["shards"]
    return [file for file, facts in shards.items() if facts["split"] == TRAIN]


def _write_store(store: Path, out: Path, kept: dict[str, Order]) -> dict[str, Any] | None:
    """The store with the `kept` rows of its training shards, and the others as they are; None where nothing is left."""
    record = _record(store)
    shards: dict[str, Any] = {}
    files: dict[str, Any] = {}
    donors: set[str] = set()
    for file, facts in record["shards"].items():
        rows = kept.get(file, np.arange(facts["cells"]))
        if not rows.size:
            continue
        if rows.size == facts["cells"]:
            shards[file] = facts
            ours = {name: entry for name, entry in record["files"].items() if name.startswith(f"{file}/")}
            for name in ours:
                _link(store / name, out / name)
        else:
            shards[file] = facts | _write_rows(store / file, out / file, rows)
            paths = sorted(path for path in (out / file).rglob("*") if path.is_file())
            ours = {path.relative_to(out).as_posix(): [path.stat().st_size, sha256_file(path)] for path in paths}
        files |= ours
        column = read_obs_column(out / file, "donor")
        donors |= set() if column is None else set(column.tolist())
    if not shards:
        return None
    sums = {name: sum(shard[name] for shard in shards.values()) for name in ("cells", "entries", "counts")}
    about = {"dataset": record["dataset"], **sums, "donors": sorted(donors)}
    write_record(out, {"key": _key(record, kept), **about, "shards": shards, "files": files})
    return about


def _write_rows(shard: Path, out: Path, rows: Order) -> dict[str, int]:
    """Write some rows of a shard as a shard of the same width; returns the sums of what it holds.

    Raises
    ------
    InputError
        The shard is damaged.
    StorageError
        What was written reads back as something else.
    """
    import zarr
    from anndata.io import read_elem
    from scipy.sparse import vstack

    with reading(str(shard)):
        group: Any = zarr.open_group(str(shard), mode="r", zarr_format=3)
        obs, var = read_elem(group["obs"]).iloc[rows], read_elem(group["var"])[["measured"]]
        wide = group["X"]["data"].dtype == np.uint32
    reader = ShardReader(shard)
    blocks = np.split(rows, np.flatnonzero(np.diff(rows // _BLOCK)) + 1)
    starts = [int(block[0]) // _BLOCK * _BLOCK for block in blocks]
    read = zip(starts, blocks, strict=True)
    counts = vstack([reader.read(start, start + _BLOCK)[block - start] for start, block in read], format="csr")
    for name in obs.select_dtypes("category"):
        obs = obs.assign(**{name: obs[name].cat.remove_unused_categories()})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_shard(out, Rows(counts.data, counts.indices, counts.indptr.astype(np.int64)), obs=obs, var=var, wide=wide)
    expected = {"cells": len(rows), "entries": int(counts.nnz), "counts": int(counts.data.sum(dtype=np.uint64))}
    if dict(shard_sums(out, len(rows))) != expected:
        msg = f"{out}: reads back other than it was written. Is the disk sound? Try again."
        raise StorageError(msg)
    return expected


def _key(record: dict[str, Any], kept: dict[str, Order]) -> str:
    rows = [(file, rows.tolist()) for file, rows in sorted(kept.items())]
    return hashlib.sha256(f"{record['key']} {rows}".encode()).hexdigest()


def _link(path: Path, out: Path) -> None:
    """The same file under another name, or a copy where the disk is another one. Stores are never written in place."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, out)
    except OSError:
        shutil.copyfile(path, out)


def _table_row(row: dict[str, str], records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    record = records[row["dataset_id"]]
    return row | {"n_kept": record["cells"], "entries": record["entries"], "counts": record["counts"]}


def _splits(index: CorpusIndex, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the corpus says of its splits, of the datasets that are left."""
    splits = read_json(index.folder / SPLITS)
    lists = {split: [name for name in names if name in records] for split, names in splits["datasets"].items()}
    donors = {
        name: {donor: split for donor, split in own.items() if donor in records[name]["donors"]}
        for name, own in splits["donors"].items()
        if name in records
    }
    return splits | {"datasets": lists, "donors": donors}


def _report(out: Path, how: dict[str, Any], records: dict[str, dict[str, Any]], index: CorpusIndex) -> None:
    had = {row["dataset_id"]: int(row["n_kept"]) for row in index.datasets()}
    kept = {name: records.get(name, {}).get("cells", 0) for name in index.stores}
    datasets = {name: {"cells": had[name], "kept": kept[name]} for name in sorted(kept)}
    write_json(out / "report.json", {"subset": how, "datasets": datasets})
    told = ", ".join(f"{key} {value}" for key, value in how.items() if value)
    lines = ["# A subset of a corpus", "", f"{told}.", "", "| dataset | cells | kept |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {facts['cells']:,} | {facts['kept']:,} |" for name, facts in datasets.items()]
    with atomic_path(out / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")

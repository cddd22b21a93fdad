"""Writing the store of one dataset: its kept cells, shuffled once, as shards with a record of every file."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from uce.cells.counts import Counts, open_counts
from uce.cells.matching import Match
from uce.corpus.duplicates import cell_hashes, gene_words
from uce.corpus.labels import with_texts
from uce.corpus.manifest import DatasetRow
from uce.corpus.quality import QualityRules
from uce.corpus.shards import NARROW, Rows, shard_sums, split_rows, write_shard
from uce.corpus.splits import SPLITS, Assignment
from uce.corpus.store import FORMAT, UNFINISHED, ShardRecord, shard_contents, write_record
from uce.corpus.survey import BLOCK, match_row, mito_columns, row_sums, to_table
from uce.errors import InputError, StorageError
from uce.files import sha256_file

if TYPE_CHECKING:
    import pandas as pd

_GATHERED = 4096  # cells taken from the disk at a time when they are shuffled
_LARGEST = int(np.iinfo(np.uint32).max)


@dataclass(frozen=True)
class StorePlan:
    """What a store is made of.

    Attributes
    ----------
    file
        The source.
    rows
        (kept,) rows of the source, in the order in which they are stored.
    assignment
        The splits of its cells.
    key
        Hash of all that decides the content.
    """

    row: DatasetRow
    file: Path
    encoder: str
    rules: QualityRules
    rows: npt.NDArray[np.int64]
    assignment: Assignment
    key: str


def cell_order(seed: int, name: str, cells: int) -> npt.NDArray[np.int64]:
    """(cells,) a permutation of the cells of a dataset: a pure function of seed, name and number.

    The raw words of a counter-based generator are sorted, as numpy fixes those and not its permutations.
    """
    key = hashlib.blake2b(f"{seed}\n{name}".encode(), digest_size=16).digest()
    words = np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64)).random_raw(cells)
    return np.argsort(words, kind="stable")


def store_key(survey_key: str, rows: npt.NDArray[np.int64], assignment: Assignment) -> str:
    """The key of the store of these rows of a surveyed dataset; the split of a whole dataset changes no byte of it."""
    digest = hashlib.sha256(f"{FORMAT} {survey_key} {sorted(assignment.donors.items())} ".encode())
    digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
    return digest.hexdigest()


def write_store(plan: StorePlan, folder: Path) -> None:
    """Write the store at `folder`: beside it first, read back, flushed to the disk, then renamed.

    Raises
    ------
    InputError
        The source cannot be read, or holds a count above 4,294,967,295.
    StorageError
        What was written reads back as something else.
    """
    temporary = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with open_counts(plan.file, layer=plan.row.layer or None) as counts:
        match = match_row(counts, plan.row, plan.encoder, plan.rules)
        rows, obs = _copy_rows(counts, match, plan, temporary)
    shards = _write_shards(rows, obs, _gene_frame(match), plan.assignment, temporary)
    del rows
    for name in ("rows.data", "rows.indices"):
        (temporary / name).unlink()
    _read_back(temporary, shards)
    files = _file_record(temporary)
    sums = {name: sum(shard[name] for shard in shards.values()) for name in ("cells", "entries", "counts")}
    donors = sorted(set(obs["donor"].tolist())) if "donor" in obs else []
    facts = {"dataset": plan.row.name, **sums, "donors": donors}
    write_record(temporary, {"key": plan.key, **facts, "shards": shards, "files": files})
    _flush_folders(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _flush(folder.parent)


def _copy_rows(counts: Counts, match: Match, plan: StorePlan, folder: Path) -> tuple[Rows, "pd.DataFrame"]:
    """Kept cells in file order on the disk, and their obs in the order of the store with the column `place`.

    A dataset may be larger than memory and a shuffle reads it all over the place, so its counts pass through a plain
    uncompressed copy.
    """
    import pandas as pd

    kept = np.sort(plan.rows)
    words = gene_words(match.table.ids.tolist())
    mito = mito_columns(counts, match)
    facts: list[pd.DataFrame] = []
    with (folder / "rows.data").open("wb") as data, (folder / "rows.indices").open("wb") as indices:
        for start in range(0, counts.n_cells, BLOCK):
            inside = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + BLOCK)]
            if not inside.size:
                continue
            block = counts.read(start, start + BLOCK)[inside - start]
            known = to_table(block, match)
            _refuse_huge(known.data, counts.file)
            known.data.astype("<u4").tofile(data)
            known.indices.astype("<u4").tofile(indices)
            facts.append(_cell_frame(block, known, inside, mito, words))
    table = pd.concat(facts, ignore_index=True)
    table["place"] = np.arange(len(table))
    table = table.iloc[np.searchsorted(kept, plan.rows)].reset_index(drop=True)
    lengths = np.concatenate([part["n_genes"].to_numpy(np.int64) for part in facts])
    data_file, indices_file = (
        np.memmap(folder / f"rows.{name}", dtype="<u4", mode="r") for name in ("data", "indices")
    )
    rows = Rows(data_file, indices_file, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
    return rows, with_texts(table, counts, plan.row)


def _refuse_huge(data: npt.NDArray[np.float64], file: str) -> None:
    if data.size and data.max() > _LARGEST:
        msg = f"{file}: a count of {data.max():.0f}; {_LARGEST:,} at most is stored. Are these counts?"
        raise InputError(msg)


def _cell_frame(
    block: Any, known: Any, rows: npt.NDArray[np.int64], mito: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]
) -> "pd.DataFrame":
    """The numbers of a store's obs; `widest` (largest count) is for its writing alone."""
    import pandas as pd

    raw = row_sums(block)
    return pd.DataFrame(
        {
            "src_row": rows.astype(np.uint32 if rows.max() < 2**32 else np.uint64),
            "n_genes": np.diff(known.indptr).astype(np.uint32),
            "total_counts": row_sums(known),
            "total_counts_raw": raw,
            "pct_mito": (100 * row_sums(block[:, mito]) / np.maximum(raw, 1)).astype(np.float32),
            "cell_hash": cell_hashes(known, words),
            "widest": known.max(axis=1).toarray().ravel(),
        }
    )


def _gene_frame(match: Match) -> "pd.DataFrame":
    import pandas as pd

    rows = match.resolution.rows
    measured = np.zeros(len(match.table), dtype=bool)
    measured[rows[rows >= 0]] = True
    return pd.DataFrame({"measured": measured}, index=pd.Index(match.table.ids.astype(object)))


def _write_shards(
    rows: Rows, obs: "pd.DataFrame", var: "pd.DataFrame", assignment: Assignment, folder: Path
) -> dict[str, ShardRecord]:
    """Write all shards, each of cells of one split and one width; returns what each must hold."""
    wide = (obs["widest"] > NARROW).to_numpy()
    splits = assignment.codes(obs["donor"].to_numpy() if assignment.donors else np.repeat("", len(obs)))
    lengths = obs["n_genes"].to_numpy(np.int64)
    shards: dict[str, ShardRecord] = {}
    for number, cells in enumerate(split_rows(lengths, 2 * splits + wide)):
        name = f"shard-{number:05d}.zarr"
        part = obs.iloc[cells]
        gathered = _gathered(rows, part["place"].to_numpy())
        columns = part.drop(columns=["place", "widest"])
        write_shard(folder / name, gathered, obs=columns, var=var, wide=bool(wide[cells[0]]))
        sums = {"entries": int(gathered.indptr[-1]), "counts": int(part["total_counts"].sum())}
        shards[name] = {"split": SPLITS[splits[cells[0]]], "cells": len(cells), **sums}
    return shards


def _gathered(rows: Rows, places: npt.NDArray[np.int64]) -> Rows:
    """The cells at these places, in this order, in memory."""
    starts, lengths = rows.indptr[places], rows.indptr[places + 1] - rows.indptr[places]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    data = np.empty(indptr[-1], dtype=np.uint32)
    indices = np.empty(indptr[-1], dtype=np.uint32)
    for first in range(0, len(places), _GATHERED):
        last = min(first + _GATHERED, len(places))
        low, high = indptr[first], indptr[last]
        offsets = np.repeat(starts[first:last] - indptr[first:last], lengths[first:last])
        entries = np.arange(low, high) + offsets
        data[low:high], indices[low:high] = rows.data[entries], rows.indices[entries]
    return Rows(data, indices, indptr)


def _read_back(folder: Path, shards: dict[str, ShardRecord]) -> None:
    for name, expected in shard_contents(shards).items():
        if dict(shard_sums(folder / name, expected["cells"])) != expected:
            msg = f"{folder / name}: reads back other than it was written. Is the disk sound? Build again."
            raise StorageError(msg)


def _file_record(folder: Path) -> dict[str, list[int | str]]:
    """Every file -> bytes and SHA-256; each is on the disk when this returns."""
    record: dict[str, list[int | str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _flush(path)
        record[path.relative_to(folder).as_posix()] = [path.stat().st_size, sha256_file(path)]
    return record


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folders(folder: Path) -> None:
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _flush(path)

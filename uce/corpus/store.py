"""The store of one dataset as a folder: shards and `store.json`, which names every file; whether all of it is there."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from uce.corpus.layout import CorpusIndex, digest
from uce.corpus.shards import shard_sums
from uce.errors import InputError
from uce.files import sha256_file, write_json

RECORD = "store.json"
UNFINISHED = ".tmp"
FORMAT = 2

# Of a shard: `split` (train, validation or test; all its cells are of it), `cells`, `entries`, `counts`.
ShardRecord: TypeAlias = dict[str, Any]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a store, None where there is none or it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    return record if record.pop("sha256", None) == digest(record) else None


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Write the record of a store, with a hash of itself."""
    record = {"format": FORMAT, **content}
    write_json(folder / RECORD, record | {"sha256": digest(record)})


def relabel(folder: Path, record: dict[str, Any], split: str) -> None:
    """Have all shards of a store of this split; its files stay as they are."""
    if any(shard["split"] != split for shard in record["shards"].values()):
        shards = {name: shard | {"split": split} for name, shard in record["shards"].items()}
        write_record(folder, record | {"shards": shards})


def need_store(folder: Path, key: str) -> None:
    """See that a store is that of a key, and that every file is what was written, by its hash.

    Raises
    ------
    InputError
        It is not.
    """
    record = read_record(folder)
    if record is None or record["key"] != key:
        raise InputError(f"{folder}: not the store that is asked for.")
    if problems := check_files(folder, record) or _changed_files(folder, record):
        raise InputError(problems[0])


def shard_contents(shards: Mapping[str, ShardRecord]) -> dict[str, dict[str, int]]:
    """Shard -> the sums of what it holds."""
    return {name: {key: value for key, value in shard.items() if key != "split"} for name, shard in shards.items()}


def check_stores(index: CorpusIndex) -> list[str]:
    """What is missing of a corpus, cut short or too much, by names, lengths and the hashes of the records; no content.

    Quick enough for the start of every training run; `uce.corpus.verify` reads every byte.
    """
    problems = []
    for name, expected in index.stores.items():
        folder = index.folder / "data" / name
        record = read_record(folder)
        if record is None:
            problems.append(f"{folder / RECORD}: missing or damaged; the store is of no use without it")
        elif sha256_file(folder / RECORD) != expected:
            problems.append(f"{folder / RECORD}: changed since the corpus was written (SHA-256)")
        else:
            problems += check_files(folder, record)
    return problems


def check_files(folder: Path, record: dict[str, Any]) -> list[str]:
    """What is missing, cut short or too much, by names and lengths alone; [] where all is there."""
    found = dict(_file_sizes(str(folder)))
    del found[RECORD]
    problems = []
    for name, (size, _) in record["files"].items():
        length = found.pop(name, None)
        if length is None:
            problems.append(f"{folder / name}: missing; zarr would read zeros in its place")
        elif length != size:
            problems.append(f"{folder / name}: {length:,} bytes, {size:,} were written")
    return problems + [f"{folder / name}: not of this store" for name in sorted(found)]


def _file_sizes(folder: str, above: str = "") -> Iterator[tuple[str, int]]:
    """Every file below a folder, by its path there, and its bytes."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _file_sizes(entry.path, f"{above}{entry.name}/")
            else:
                # A link into nowhere has a length of its own, which is not the one written.
                yield f"{above}{entry.name}", entry.stat(follow_symlinks=entry.is_file()).st_size


def verify_store(folder: Path) -> list[str]:
    """All that is wrong with a store: files by length and SHA-256, then the sums of its cells; [] where it is sound."""
    record = read_record(folder)
    if record is None:
        return [f"{folder / RECORD}: missing or damaged; the store is of no use without it"]
    if problems := check_files(folder, record):
        return problems
    if problems := _changed_files(folder, record):
        return problems
    for name, sums in shard_contents(record["shards"]).items():
        found = dict(shard_sums(folder / name, sums["cells"]))
        if found != sums:
            problems.append(f"{folder / name}: holds {found}, {sums} were written")
    return problems


def _changed_files(folder: Path, record: dict[str, Any]) -> list[str]:
    files = record["files"].items()
    changed = [folder / name for name, (_, expected) in files if sha256_file(folder / name) != expected]
    return [f"{path}: changed since it was written (SHA-256)" for path in changed]

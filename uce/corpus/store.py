"""The store of one dataset as a folder: shards and `store.json`, which names every file; whether all of it is there."""

import json
from pathlib import Path
from typing import Any

from uce.corpus.shards import shard_sums
from uce.files import sha256_file

RECORD = "store.json"
UNFINISHED = ".tmp"
FORMAT = 1


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a store, None where there is none or it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def check_files(folder: Path, record: dict[str, Any]) -> list[str]:
    """What is missing, cut short or too much, by names and lengths alone; [] where all is there."""
    problems = []
    for name, (size, _) in record["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing; zarr would read zeros in its place")
        elif path.stat().st_size != size:
            problems.append(f"{path}: {path.stat().st_size:,} bytes, {size:,} were written")
    known = {*record["files"], RECORD}
    strange = (path for path in sorted(folder.rglob("*")) if path.is_file())
    problems += [f"{path}: not of this store" for path in strange if path.relative_to(folder).as_posix() not in known]
    return problems


def verify_store(folder: Path) -> list[str]:
    """All that is wrong with a store: files by length and SHA-256, then the sums of its cells; [] where it is sound."""
    record = read_record(folder)
    if record is None:
        return [f"{folder / RECORD}: missing or damaged; the store is of no use without it"]
    if problems := check_files(folder, record):
        return problems
    for name, (_, expected) in record["files"].items():
        if sha256_file(folder / name) != expected:
            problems.append(f"{folder / name}: changed since it was written (SHA-256). Delete {folder}, build again")
    if problems:
        return problems
    for name, expected in record["shards"].items():
        found = dict(shard_sums(folder / name, expected["cells"]))
        if found != expected:
            problems.append(f"{folder / name}: holds {found}, {expected} were written")
    return problems

"""The folder of a corpus: what is where, and `corpus.json`, which is written last and vouches for the rest.

corpus.json          version, seed, gene tables, rules, totals, SHA-256 of everything below, failures
building.json        there only while a build is not finished
datasets.csv         a row per dataset
species/NAME/genes.csv   a row per column of X
data/DATASET/        shards (AnnData zarr stores) and store.json
splits/main.json     the rule, and what came of it
report.json, report.md   every filter and how many cells it removed
surveys/DATASET.npz  which cells passed, and their hashes: a later build need not read what has not changed
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uce.errors import InputError, ModelError, UceError
from uce.files import atomic_path, sha256_file, shorten, write_json
from uce.genes.collection import load_gene_table

FORMAT = "uce-corpus"
VERSION = 2
INDEX, BUILDING, TABLE, SPLITS = "corpus.json", "building.json", "datasets.csv", "splits/main.json"
REPORTS = ("report.json", "report.md")


@dataclass(frozen=True)
class CorpusIndex:
    """The content of `corpus.json`.

    Attributes
    ----------
    folder
        Of the corpus.
    content
        As written: species, gene_encoder, seed, totals, datasets (name -> SHA-256 of its store.json), files, failed.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def species(self) -> dict[str, dict[str, Any]]:
        """Latin name -> sha256 and number of genes of the table that the columns are."""
        return dict(self.content["species"])

    @property
    def stores(self) -> dict[str, str]:
        """Dataset with a store -> SHA-256 of its record."""
        return dict(self.content["datasets"])

    def datasets(self) -> list[dict[str, str]]:
        """The rows of `datasets.csv`, as text.

        Raises
        ------
        InputError
            The table is missing or was changed.
        """
        path = self.folder / TABLE
        if not path.is_file() or sha256_file(path) != self.content["files"][TABLE]:
            msg = f"{path}: missing, or changed since it was written. Give the build command again."
            raise InputError(msg)
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


def read_index(folder: str | Path) -> CorpusIndex:
    """Open a corpus by its index alone; no store is touched.

    Raises
    ------
    InputError
        There is no corpus, its build was not finished, or its index was changed.
    """
    folder = Path(folder)
    _refuse_unfinished(folder)
    content = read_json(folder / INDEX)
    if content.get("format") != FORMAT:
        msg = f"{folder / INDEX}: not the index of a corpus."
        raise InputError(msg)
    if (version := int(content.get("version", 0))) != VERSION:
        way = "a newer uce. Update uce" if version > VERSION else "an older uce. Give the build command again"
        msg = f"{folder / INDEX}: written by {way}."
        raise InputError(msg)
    if content.pop("sha256", None) != digest(content):
        msg = f"{folder / INDEX}: changed since it was written. Give the build command again."
        raise InputError(msg)
    return CorpusIndex(folder, content)


def _refuse_unfinished(folder: Path) -> None:
    if (folder / BUILDING).is_file():
        msg = f"{folder}: its build was not finished. Give the same `uce corpus build` command again."
        raise InputError(msg)
    if not (folder / INDEX).is_file():
        held = shorten(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ""
        what = f"no {INDEX} in it (it holds {held or 'nothing'})" if folder.is_dir() else "no such folder"
        msg = f"{folder}: {what}; `uce corpus build MANIFEST.csv -o FOLDER` makes a corpus."
        raise InputError(msg)


def read_json(path: Path) -> dict[str, Any]:
    """An object in JSON.

    Raises
    ------
    InputError
        It cannot be read or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: damaged ({type(error).__name__}). Give the build command again."
        raise InputError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: not the index of a corpus."
        raise InputError(msg)
    return content


def write_index(folder: Path, content: dict[str, Any]) -> None:
    """Write `corpus.json` with a hash of itself, and take the sign of an unfinished build away."""
    facts = {"format": FORMAT, "version": VERSION, **content}
    write_json(folder / INDEX, facts | {"sha256": digest(facts)})
    (folder / BUILDING).unlink(missing_ok=True)


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of an object as JSON, by which a file that holds itself and this is known to be whole."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV with a header, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def changed_tables(index: CorpusIndex) -> list[str]:
    """The species whose gene table at hand is not the one the corpus was built with, each with the reason."""
    encoder = str(index.content["gene_encoder"])
    problems = []
    for name, facts in index.species.items():
        try:
            found = load_gene_table(name, encoder=encoder).sha256
        except UceError as error:
            problems.append(str(error))
            continue
        if found != facts["sha256"]:
            problems.append(
                f"the gene table of {name} ({encoder}) is {found[:12]}.., the corpus was built with "
                f"{facts['sha256'][:12]}...: install that one, or build a corpus in another folder"
            )
    return problems


def check_tables(index: CorpusIndex) -> None:
    """Refuse a corpus whose gene tables are not those at hand.

    Raises
    ------
    ModelError
        Naming the species and both hashes.
    """
    if problems := changed_tables(index):
        msg = f"{index.folder}: {problems[0]}."
        raise ModelError(msg)


def file_hashes(folder: Path, species: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every file beside the stores."""
    names = [TABLE, SPLITS, *REPORTS, *(f"species/{name}/genes.csv" for name in species)]
    return {name: sha256_file(folder / name) for name in names}

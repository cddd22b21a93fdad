"""The first reading of a dataset: every cell counted, judged and hashed; what is needed to decide which cells stay."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from uce.cells.counts import Counts, open_counts
from uce.cells.matching import Match, match_species
from uce.corpus.duplicates import cell_hashes, gene_words
from uce.corpus.expressions import parse_expression
from uce.corpus.labels import assay_of, donors_of
from uce.corpus.manifest import DatasetRow
from uce.corpus.quality import CellFacts, Mask, QualityRules, judge_cells, why_not_dataset
from uce.errors import InputError
from uce.files import atomic_path, sha256_file
from uce.genes.collection import load_gene_table
from uce.genes.columns import names_in

BLOCK = 4096
FORMAT = 2
_MITO_NAME = re.compile(r"mt[-:]", re.IGNORECASE)
_MITO_PLACES = ("MT", "M", "chrM", "MtDNA", "Mito", "mitochondrion_genome", "dmel_mitochondrion_genome")
_DOUBLETS = ("predicted_doublet", "predicted_doublets", "is_doublet", "doublet")
_TRUE = ("true", "1", "1.0", "doublet")


@dataclass(frozen=True)
class Survey:
    """What the first reading of a dataset found.

    Attributes
    ----------
    key
        Hash of all that decides this content: the file, the gene table, the row and the rules.
    facts
        Plain values for the tables: source_sha256, slot, notes, cells, genes_measured, donors (of the kept
        cells), removed, left_out.
    rows
        (kept,) rows of the file that pass the filters, rising.
    hashes
        (kept,) of their genes and counts.
    """

    key: str
    facts: dict[str, Any]
    rows: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]

    def save(self, path: Path) -> None:
        """Write to one `.npz`, all or nothing."""
        text = np.array(json.dumps({"key": self.key, "facts": self.facts}))
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, record=text, rows=self.rows, hashes=self.hashes)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The survey at `path`; None where there is none or it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as content:
                record = json.loads(str(content["record"]))
                return cls(record["key"], record["facts"], content["rows"], content["hashes"])
        except (OSError, ValueError, KeyError, EOFError):
            return None


def survey_key(row: DatasetRow, source_sha256: str, table_sha256: str, rules: QualityRules) -> str:
    """The key of the survey this would be; weight, licence and split do not change the cells."""
    about = {name: value for name, value in asdict(row).items() if name not in _NOT_OF_CELLS}
    about |= {"source": source_sha256, "table": table_sha256, "rules": asdict(rules), "format": FORMAT}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


_NOT_OF_CELLS = ("line", "path", "sha256", "weight", "licence", "split", "study")


def survey_dataset(row: DatasetRow, file: Path, encoder: str, rules: QualityRules, kept: Path) -> None:
    """Read a dataset and save its survey at `kept`, unless the one there is still true.

    Raises
    ------
    InputError
        The file is missing, is not the one of the manifest, or cannot be read as counts of the species.
    ModelError
        There is no gene table for it.
    """
    source = source_hash(file, row)
    table = load_gene_table(row.species, encoder=encoder)
    key = survey_key(row, source, table.sha256, rules)
    before = Survey.load(kept)
    if before is not None and before.key == key:
        return
    with open_counts(file, layer=row.layer or None) as counts:
        match = match_row(counts, row, encoder, rules)
        _survey(counts, match, row, rules, key=key, source_sha256=source).save(kept)


def match_row(counts: Counts, row: DatasetRow, encoder: str, rules: QualityRules) -> Match:
    """Which columns of a source are which genes of the row's species."""
    least = rules.min_matched if rules.uses("matched") else 0.0
    column = row.gene_column or None
    matches, _ = match_species(counts, species=row.species, gene_column=column, encoder=encoder, min_coverage=least)
    return matches[row.species]


def source_hash(file: Path, row: DatasetRow) -> str:
    """SHA-256 of a file, or over the names and hashes of the files of a folder; checked against the manifest's.

    Raises
    ------
    InputError
        Nothing is there, or another file than the manifest names.
    """
    if not file.exists():
        way = "Run `uce corpus fetch` with the manifest first." if row.is_address else "Is --folder the right one?"
        msg = f"{file}: no such file. {way}"
        raise InputError(msg)
    try:
        found = sha256_file(file) if file.is_file() else _folder_hash(file)
    except OSError as error:
        msg = f"{file}: cannot be read ({error.strerror}); check its permissions."
        raise InputError(msg) from error
    if row.sha256 and found != row.sha256:
        msg = f"{file}: sha256 is {found[:12]}.., the manifest says {row.sha256[:12]}... Copy the file again."
        raise InputError(msg)
    return found


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _survey(
    counts: Counts, match: Match, row: DatasetRow, rules: QualityRules, *, key: str, source_sha256: str
) -> Survey:
    measured = match.resolution.n_genes
    assay = assay_of(counts, row)
    by_case = float((match.resolution.reasons == "case").sum() / max(1, (match.resolution.rows >= 0).sum()))
    facts: dict[str, Any] = {
        "source_sha256": source_sha256,
        "table_sha256": match.table.sha256,
        "slot": counts.slot,
        "notes": [*counts.notes, *match.warnings],
        "assay": assay,
        "cells": counts.n_cells,
        "genes_measured": measured,
        "counts_matched": round(match.report.get("counts_resolved", 0.0), 6),
        "donors": [],
        "left_out": why_not_dataset(assay, measured, by_case, rules),
        "removed": {},
    }
    if facts["left_out"]:
        return Survey(key, facts, np.zeros(0, np.int64), np.zeros(0, np.uint64))
    cells, hashes = _read_cells(counts, match, row, rules)
    nuclei = bool("suspension_type" in counts.obs_columns and (counts.obs_column("suspension_type") == "nucleus").any())
    keep, removed = judge_cells(cells, assay, rules, nuclei=nuclei)
    donors = donors_of(counts, row)
    facts |= {"removed": removed, "donors": [] if donors is None else np.unique(donors[keep]).tolist()}
    return Survey(key, facts, np.flatnonzero(keep), hashes[keep])


def _read_cells(
    counts: Counts, match: Match, row: DatasetRow, rules: QualityRules
) -> tuple[CellFacts, npt.NDArray[np.uint64]]:
    """One pass over the counts."""
    words = gene_words(match.table.ids.tolist())
    mito = mito_columns(counts, match)
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for start in range(0, counts.n_cells, BLOCK):
        block = counts.read(start, start + BLOCK)
        known = to_table(block, match)
        sums = [row_sums(block), row_sums(block[:, mito]), row_sums(known)]
        parts.append((np.diff(block.indptr).astype(np.int64), *sums, cell_hashes(known, words)))
    if not parts:
        msg = f"{counts.file}: no cells in it."
        raise InputError(msg)
    genes, totals, mitochondrial, matched, hashes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return CellFacts(genes, totals, mitochondrial, matched, **_stated(counts, row, rules)), hashes


def row_sums(block: Any) -> npt.NDArray[np.int64]:
    """(cells,) counts of each cell of a CSR block."""
    sums: npt.NDArray[np.float64] = np.rint(np.asarray(block.sum(axis=1))).ravel()
    return sums.astype(np.int64)


def to_table(block: Any, match: Match) -> Any:
    """(cells, genes of the table) CSR of a block (cells, columns of the file); columns of one gene are added up."""
    from scipy import sparse

    rows = match.resolution.rows
    found = np.flatnonzero(rows >= 0)
    selection = sparse.csr_matrix(
        (np.ones(len(found)), (found, rows[found])), shape=(len(rows), len(match.table)), dtype=np.float64
    )
    known = sparse.csr_matrix(block @ selection)
    known.sort_indices()
    return known


def mito_columns(counts: Counts, match: Match) -> npt.NDArray[np.int64]:
    """Columns of mitochondrial genes, by the name or by the chromosome of the gene found."""
    rows = match.resolution.rows
    placed = np.isin(match.table.chromosomes, _MITO_PLACES)[rows] & (rows >= 0)
    columns = {match.resolution.column, "index"}
    named = np.zeros(len(rows), dtype=bool)
    for column in columns:
        named |= np.array([_MITO_NAME.match(name) is not None for name in names_in(counts.var, column)], dtype=bool)
    return np.flatnonzero(placed | named)


def _stated(counts: Counts, row: DatasetRow, rules: QualityRules) -> dict[str, Mask | None]:
    """What obs says of the cells, read where a filter asks for it."""
    stated: dict[str, Mask | None] = {}
    if row.filter and rules.uses("expression"):
        stated["expression"] = parse_expression(row.filter).mask(counts.obs_column)
    if "is_primary_data" in counts.obs_columns and rules.uses("primary"):
        stated["primary"] = _is_true(counts, "is_primary_data")
    column = next((name for name in _DOUBLETS if name in counts.obs_columns), None)
    if column and rules.uses("doublets"):
        stated["doublet"] = _is_true(counts, column)
    return stated


def _is_true(counts: Counts, column: str) -> Mask:
    return np.array([value.lower() in _TRUE for value in counts.obs_column(column).tolist()], dtype=bool)

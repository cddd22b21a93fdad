"""Make the bundled gene tables from a folder of sources.

    python scripts/build_gene_tables.py --sources DIR --out uce/data/genes

DIR holds the files listed in `data_manifests/gene_tables.csv` and `data_manifests/training_cells.csv` under their
names; each is checked against its hash. Run twice it gives equal bytes. Half a minute on one core, 4 GB of memory.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from gene_coexpression import Floats, loadings, log_expression, read_counts, ridge, standardise, to_anchors
from gene_records import (
    ASSEMBLIES,
    Gene,
    Names,
    add_projected_positions,
    lend_synonyms,
    read_species,
    refer,
    settle_synonyms,
)
from threadpoolctl import threadpool_limits

from uce.files import sha256_file
from uce.genes.bundled import GROUPS, ORIGINS, own_id_vectors

MANIFESTS = Path(__file__).resolve().parents[1] / "data_manifests"
HUMAN = "homo_sapiens"
BORROWERS = {  # species whose own lists have hardly any synonyms
    "rattus_norvegicus",
    "macaca_mulatta",
    "macaca_fascicularis",
    "microcebus_murinus",
    "sus_scrofa",
    "gallus_gallus",
}
WIDTH = 128  # numbers of co-expression, and as many of annotation
ANNOTATION_LENGTH = 0.5  # beside a co-expression part of length 1
SPREAD_FLOOR = 0.05  # log counts; added to a gene's spread before it is scaled to 1
TRUSTED_CELLS = 20  # as many expressing cells weigh as much as the prediction from annotation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, metavar="DIR", help="folder with the source files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tables")
    options = parser.parse_args(arguments)
    damaged = check_sources(options.sources)
    if damaged:
        print(f"error: missing or not as in data_manifests: {', '.join(damaged)}", file=sys.stderr)
        return 4
    options.out.mkdir(parents=True, exist_ok=True)
    genes = read_all(options.sources / "genes")
    references = reference_all(genes)
    with threadpool_limits(1):  # sums in another order would change the last bits
        vectors, informed = group_vectors(options.sources, genes, references)
    write_all(options.out, genes, references, vectors, informed)
    return 0


def check_sources(folder: Path) -> list[str]:
    """Files of the manifests that are missing in `folder` or have another hash."""
    rows = manifest("gene_tables.csv") + [row for row in manifest("training_cells.csv") if row["role"] == "train"]
    return [
        row["file"]
        for row in rows
        if not (folder / row["file"]).is_file() or sha256_file(folder / row["file"]) != row["sha256"]
    ]


def manifest(name: str) -> list[dict[str, str]]:
    """Rows of a manifest of the repository."""
    with (MANIFESTS / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_all(folder: Path) -> dict[str, list[Gene]]:
    """Genes of every species, sorted by id, with projected positions where there is no other."""
    genes = {species: read_species(folder, species) for species in ASSEMBLIES}
    settle_synonyms(genes[HUMAN], genes[HUMAN])
    for species, listed in genes.items():
        add_projected_positions(listed, folder, species)
        if species in BORROWERS:
            lend_synonyms(listed, genes[HUMAN])
        if species != HUMAN:
            settle_synonyms(listed, genes[HUMAN])
    return genes


def reference_all(genes: dict[str, list[Gene]]) -> dict[str, list[list[int]]]:
    """Per species and gene, the human genes (rows) it refers to; a human gene refers to itself."""
    anchors = {gene.id: row for row, gene in enumerate(genes[HUMAN])}
    symbols = {gene.symbol: row for row, gene in enumerate(genes[HUMAN]) if gene.symbol}
    return {
        species: [[row] for row in range(len(listed))] if species == HUMAN else refer(listed, anchors, symbols)
        for species, listed in genes.items()
    }


def group_vectors(
    sources: Path, genes: dict[str, list[Gene]], references: dict[str, list[list[int]]]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(human genes, 256) unit vectors, and which of them know anything.

    The first half is co-expression, the second annotation; a human gene without annotation has a vector of its own id
    in the second half.
    """
    expression = training_expression(sources, genes, references)
    matrix, seen = standardise(expression, floor=SPREAD_FLOOR)
    found, _values = loadings(matrix, width=WIDTH)
    annotation, annotated = read_annotation(sources / "gene_vectors" / "human_annotation_128.npz", genes[HUMAN])
    coexpression = complete(_unit(found), annotation, annotated=annotated, seen=seen)
    ids = np.array([gene.id for gene in genes[HUMAN]])
    annotation[~annotated] = own_id_vectors(HUMAN, ids[~annotated], WIDTH)
    vectors = _unit(np.hstack([coexpression, ANNOTATION_LENGTH * annotation]))
    return vectors, annotated | (seen > 0)


def training_expression(
    sources: Path, genes: dict[str, list[Gene]], references: dict[str, list[list[int]]]
) -> dict[str, sp.csr_matrix]:
    """log1p of counts per 10,000 of every training set, (cells, human genes)."""
    expression = {}
    for row in manifest("training_cells.csv"):
        if row["role"] == "train":
            names = Names(genes[row["species"]])
            columns, counts = read_counts(sources / row["file"])
            candidates = zip(*([names.row(name) for name in column] for column in columns), strict=True)
            rows = [next((row for row in found if row >= 0), -1) for found in candidates]
            mapped = to_anchors(rows, references[row["species"]], len(genes[HUMAN]))
            expression[row["dataset"]] = log_expression(sp.csr_matrix(counts @ mapped))
    return expression


def read_annotation(path: Path, human: Sequence[Gene]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Annotation vectors in the order of the human genes, centred, of unit length; and which genes have one."""
    rows = {gene.id: row for row, gene in enumerate(human)}
    with np.load(path, allow_pickle=False) as content:
        ids, stored = content["gene_id"].tolist(), content["vectors"].astype(np.float32)
    known = [(rows[gene], vector) for gene, vector in zip(ids, stored, strict=True) if gene in rows]
    vectors, annotated = np.zeros((len(human), stored.shape[1]), np.float32), np.zeros(len(human), np.bool_)
    for row, vector in known:
        vectors[row], annotated[row] = vector, True
    vectors[annotated] = _unit(vectors[annotated] - vectors[annotated].mean(axis=0))
    return vectors, annotated


def complete(
    found: Floats, annotation: Floats, *, annotated: npt.NDArray[np.bool_], seen: npt.NDArray[np.int64]
) -> Floats:
    """Co-expression of every gene: as measured where many cells express it, as annotation predicts it where few do."""
    learn = annotated & (seen >= 5 * TRUSTED_CELLS)
    weights = ridge(annotation[learn], found[learn], penalty=10.0)
    predicted = (annotation @ weights[:-1] + weights[-1]) * annotated[:, None]
    trust = (seen / (seen + TRUSTED_CELLS))[:, None].astype(np.float32)
    return trust * found + (1 - trust) * predicted


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def write_all(
    out: Path,
    genes: dict[str, list[Gene]],
    references: dict[str, list[list[int]]],
    vectors: Floats,
    informed: npt.NDArray[np.bool_],
) -> None:
    """Write the shared matrix of the groups that know anything, and one file of references per species."""
    groups = np.cumsum(informed) - 1
    anchors = _text([gene.id for gene, kept in zip(genes[HUMAN], informed, strict=True) if kept])
    facts = json.dumps({"coexpression_width": WIDTH, "annotation_length": ANNOTATION_LENGTH}, sort_keys=True)
    np.savez_compressed(out / GROUPS, vectors=vectors[informed].astype("<f2"), anchors=anchors, facts=np.array(facts))
    for species, listed in genes.items():
        kept = [[int(groups[row]) for row in rows if informed[row]] for rows in references[species]]
        np.savez_compressed(out / f"{species}.npz", **_columns(species, listed, kept))


def _columns(species: str, genes: Sequence[Gene], references: list[list[int]]) -> dict[str, npt.NDArray[np.generic]]:
    names, codes = np.unique([gene.chromosome for gene in genes], return_inverse=True)
    flat = np.array([group for groups in references for group in groups], dtype="<u2")
    taxon, assembly = ASSEMBLIES[species]
    facts = {
        "taxon": taxon,
        "assembly": assembly,
        "release": "Xenbase 2023" if species == "xenopus_tropicalis" else "Ensembl 114",
        "pooling": "weighted mean of the orthogroups of the human orthologues",
        "sources": "data_manifests/gene_tables.csv, data_manifests/training_cells.csv",
    }
    return {
        "ids": _text([gene.id for gene in genes]),
        "symbols": _text([gene.symbol for gene in genes]),
        "synonyms": _text(["|".join(dict.fromkeys([*gene.synonyms, *gene.other_ids])) for gene in genes]),
        "chromosome_names": _text(names.tolist()),
        "chromosomes": codes.astype("<u2"),
        "starts": np.array([gene.start for gene in genes], dtype="<i4"),
        "projected": np.array([gene.projected for gene in genes], dtype=np.uint8),
        "origins": np.array([_origin(gene, groups) for gene, groups in zip(genes, references, strict=True)], np.uint8),
        "counts": np.array([len(groups) for groups in references], dtype=np.uint8),
        "references": flat,
        "weights": np.ones(len(flat), dtype=np.uint8),
        "facts": np.array(json.dumps(facts, sort_keys=True)),
    }


def _origin(gene: Gene, groups: list[int]) -> int:
    if not groups:
        return ORIGINS.index("own-id")
    if gene.evidence == "same-symbol":
        return ORIGINS.index("same-symbol")
    return ORIGINS.index("group" if len(groups) == 1 else "groups")


def _text(lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer("\n".join(lines).encode("utf-8"), dtype=np.uint8)


if __name__ == "__main__":
    sys.exit(main())

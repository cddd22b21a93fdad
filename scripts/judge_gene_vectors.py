"""Judge the bundled gene vectors, and print the tables of docs/results/gene_vectors.md.

    python scripts/judge_gene_vectors.py --sources DIR [--leave-out]

DIR is the folder that `scripts/build_gene_tables.py` reads; the validation cells must be there too. Genes: how well
pairs that share an annotation score above random pairs. Cells: k-nearest-neighbour macro-F1 of the mean of a cell's
unit-length gene vectors, weighted by log1p of counts per 10,000. `--leave-out` also makes the co-expression anew
without each training set and judges it there, which shows whether width and annotation length are well chosen without
asking a validation cell (two minutes).
"""

import argparse
import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import build_gene_tables as build
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from gene_coexpression import Floats, loadings, log_expression, read_counts, standardise
from gene_records import Names, read_rows
from scipy.stats import rankdata
from sklearn.metrics import f1_score

from uce.genes.bundled import load_bundled, own_id_vectors
from uce.genes.tables import GeneTable

WIDTH = build.WIDTH
BY_DONOR = {"human_lung_tumour_zilionis", "human_skin_ctcl", "mouse_marrow_progenitors"}
FEW_NEIGHBOURS = {"dmel_gut_fca": 5}  # ten cells a type
UNNAMED = {"unassigned", "unknown", "other", "nan", ""}
# Too small, or the label is the donor.
NOT_JUDGED = {"human_embryo_blakeley", "mouse_es_mef_islam", "human_breast_cancer_lines", "cele_embryo_packer"}
TOGETHER = {"human_pbmc_10x3k": "blood", "human_pbmc_kang": "blood"}  # left out together: the same tissue
LEAVE_OUT_WIDTHS, LEAVE_OUT_LENGTHS = (32, 64, 96, 128, 192), (0.0, 0.3, 0.5, 0.7, 1.0)
RESAMPLES = 300


class Cells:
    """One set: its log expression over the rows of its species' table, and its labels."""

    def __init__(self, row: Mapping[str, str], sources: Path, names: Names, n_genes: int) -> None:
        import anndata

        columns, counts = read_counts(sources / row["file"])
        candidates = zip(*([names.row(name) for name in column] for column in columns), strict=True)
        rows = [next((found for found in options if found >= 0), -1) for options in candidates]
        kept = np.flatnonzero(np.array(rows) >= 0)
        placed = sp.csr_matrix((np.ones(len(kept)), (kept, np.array(rows)[kept])), shape=(len(rows), n_genes))
        obs = anndata.read_h5ad(sources / row["file"], backed="r").obs
        self.name, self.species, self.role = row["dataset"], row["species"], row["role"]
        self.expression = log_expression(sp.csr_matrix(counts @ placed))
        self.types = obs["cell_type"].astype(str).to_numpy()
        self.coarse = obs["cell_type_coarse"].astype(str).to_numpy()
        self.donors = obs["donor"].astype(str).to_numpy()

    def embed(self, vectors: Floats) -> Floats:
        """(cells, width) unit vectors: the weighted mean of unit-length gene vectors."""
        total = np.maximum(np.asarray(self.expression.sum(axis=1)), 1e-9)
        return _unit(np.asarray(self.expression @ _unit(vectors)) / total)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True, metavar="DIR")
    parser.add_argument("--leave-out", action="store_true", help="also judge each training set with vectors without it")
    options = parser.parse_args()
    tables = {species: load_bundled(species) for species in build.ASSEMBLIES}
    print_coverage(tables)
    print_pairs(tables["homo_sapiens"], options.sources / "genes")
    genes = build.read_all(options.sources / "genes")
    sets = [
        Cells(row, options.sources, Names(genes[row["species"]]), len(genes[row["species"]]))
        for row in build.manifest("training_cells.csv")
    ]
    print_cells(tables, sets)
    if options.leave_out:
        references = build.reference_all(genes)
        expression = build.training_expression(options.sources, genes, references)
        annotation, _ = build.read_annotation(
            options.sources / "gene_vectors" / "human_annotation_128.npz", genes[build.HUMAN]
        )
        print_leave_out(expression, annotation, sets)


def variants() -> dict[str, Callable[[GeneTable], Floats]]:
    """What the bundled vectors are compared with; the halves are cut out of the bundled vectors themselves."""
    return {
        "random, 256 wide": lambda table: own_id_vectors(table.species, table.ids, 256),
        "annotation half alone": lambda table: table.vectors[:, WIDTH:],
        "co-expression half alone": lambda table: table.vectors[:, :WIDTH],
        "bundled": lambda table: table.vectors,
    }


def print_coverage(tables: Mapping[str, GeneTable]) -> None:
    """Genes of every table by the origin of their vector."""
    print("\n| species | genes | one group | several | same symbol | own id | projected position | unplaced |")
    print("|---|---|---|---|---|---|---|---|")
    for species, table in tables.items():
        counts = [int((table.origins == origin).sum()) for origin in build.ORIGINS]
        unplaced = int((table.chromosomes == "unplaced").sum())
        row = [len(table), *counts, int(table.projected.sum()), unplaced]
        print(f"| {species} | {' | '.join(f'{number:,}' for number in row)} |")


def print_pairs(table: GeneTable, folder: Path) -> None:
    """Area under the curve of pairs of genes that share an annotation against random pairs."""
    rows = {str(symbol): row for row, symbol in enumerate(table.symbols) if symbol}
    kinds = {
        "GO process": _go(folder / "human_go_bp_2021.gmt.gz"),
        "SMART domain": _members(folder / "human_smart_domains.csv.gz", "smart_domains"),
        "HGNC group": _members(folder / "human_gene_groups.csv.gz", "gene_group"),
    }
    print(f"\n| vectors | {' | '.join(kinds)} |\n|---|---|---|---|")
    for name, variant in variants().items():
        scores = [pair_auc(variant(table), rows, groups) for groups in kinds.values()]
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in scores)} |")


def _go(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [[name.split(",")[0] for name in line.rstrip("\n").split("\t")[2:] if name] for line in stream]


def _members(path: Path, column: str) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for row in read_rows(path):
        for group in filter(None, row[column].split("|")):
            groups.setdefault(group, []).append(row["symbol"])
    return list(groups.values())


def pair_auc(vectors: Floats, rows: Mapping[str, int], groups: Sequence[Sequence[str]], *, pairs: int = 20000) -> float:
    """Chance that the cosine of a pair from one group of 5 to 100 genes is above that of a random pair."""
    rng = np.random.default_rng(0)
    found = [[rows[name] for name in group if name in rows] for group in groups]
    found = [group for group in found if 5 <= len(group) <= 100]
    pool = np.unique(np.concatenate(found))
    inside = np.array([rng.choice(found[group], 2, replace=False) for group in rng.integers(len(found), size=pairs)])
    outside = rng.choice(pool, (pairs, 2))
    outside = outside[outside[:, 0] != outside[:, 1]]
    unit = _unit(vectors)
    cosines = [(unit[pair[:, 0]] * unit[pair[:, 1]]).sum(axis=1) for pair in (inside, outside)]
    ranks = rankdata(np.concatenate(cosines))[:pairs]
    return float((ranks.sum() - pairs * (pairs + 1) / 2) / pairs / len(outside))


def print_cells(tables: Mapping[str, GeneTable], sets: Sequence[Cells]) -> None:
    """Scores of the validation sets, within and from training sets, with paired intervals against random vectors."""
    held = [cells for cells in sets if cells.role == "validation"]
    print(f"\n| vectors | {' | '.join(cells.name for cells in held)} | mean | above random [95 %] | transfer |")
    print("|" + "---|" * (len(held) + 4))
    baseline: list[tuple[Any, Any]] = []
    for name, variant in variants().items():
        vectors = {cells.species: variant(tables[cells.species]) for cells in sets}
        called = [within(cells, vectors[cells.species]) for cells in held]
        baseline = baseline or called
        scores = [macro_f1(truth, call) for truth, call in called]
        gain, low, high = paired(baseline, called)
        transfers = [score for _, score in transfer(sets, vectors)]
        columns = [f"{score:.3f}" for score in (*scores, np.mean(scores))]
        print(f"| {name} | {' | '.join(columns)} | {gain:+.3f} [{low:+.3f}, {high:+.3f}] | {np.mean(transfers):.3f} |")
    print("\nTransfer pairs:", ", ".join(pair for pair, _ in transfer(sets, vectors)))


def within(cells: Cells, vectors: Floats) -> tuple[Any, Any]:
    """True and called types of the cells whose type has at least five, each called by cells of other donors."""
    types, sizes = np.unique(cells.types, return_counts=True)
    kept = np.isin(cells.types, types[sizes >= 5]) & ~np.isin(cells.types, list(UNNAMED))
    found, truth, donors = cells.embed(vectors)[kept], cells.types[kept], cells.donors[kept]
    similar = found @ found.T
    barred = donors[:, None] == donors[None] if cells.name in BY_DONOR else np.eye(len(found), dtype=bool)
    similar[barred] = -np.inf
    return truth, vote(similar, truth, FEW_NEIGHBOURS.get(cells.name, 15))


def transfer(sets: Sequence[Cells], vectors: Mapping[str, Floats]) -> list[tuple[str, float]]:
    """Macro-F1 of coarse types in validation sets, called by human and mouse training sets with two in common."""
    scores = []
    for source in [
        cells for cells in sets if cells.role == "train" and cells.species in ("homo_sapiens", "mus_musculus")
    ]:
        for target in [cells for cells in sets if cells.role == "validation"]:
            shared = sorted((set(source.coarse) & set(target.coarse)) - UNNAMED)
            if len(shared) >= 2:
                known, asked = np.isin(source.coarse, shared), np.isin(target.coarse, shared)
                reference = source.embed(vectors[source.species])[known]
                similar = target.embed(vectors[target.species])[asked] @ reference.T
                called = vote(similar, source.coarse[known], 15)
                scores.append((f"{source.name} to {target.name}", macro_f1(target.coarse[asked], called)))
    return scores


def vote(similar: Floats, types: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
    """The type with the largest summed similarity among the k nearest references of each row."""
    k = min(k, similar.shape[1] - 1)
    nearest = np.argpartition(-similar, k, axis=1)[:, :k]
    names, codes = np.unique(types, return_inverse=True)
    votes = np.zeros((len(similar), len(names)))
    weights = np.maximum(np.take_along_axis(similar, nearest, axis=1), 0)
    np.add.at(votes, (np.arange(len(similar))[:, None], codes[nearest]), weights)
    return names[votes.argmax(axis=1)]


def macro_f1(truth: npt.NDArray[Any], called: npt.NDArray[Any]) -> float:
    """Mean F1 over the types that are there."""
    return float(f1_score(truth, called, average="macro", labels=np.unique(truth), zero_division=0))


def paired(first: Sequence[tuple[Any, Any]], second: Sequence[tuple[Any, Any]]) -> tuple[float, float, float]:
    """Gain of the second over the first, mean over sets, and its 95 % interval when cells are drawn again."""
    rng, gains = np.random.default_rng(0), []
    for draw in range(RESAMPLES + 1):
        of_sets = []
        for (truth, before), (_, after) in zip(first, second, strict=True):
            cells = np.arange(len(truth)) if draw == 0 else rng.integers(len(truth), size=len(truth))
            of_sets.append(macro_f1(truth[cells], after[cells]) - macro_f1(truth[cells], before[cells]))
        gains.append(float(np.mean(of_sets)))
    low, high = np.quantile(gains[1:], [0.025, 0.975])
    return gains[0], float(low), float(high)


def print_leave_out(expression: Mapping[str, sp.csr_matrix], annotation: Floats, sets: Sequence[Cells]) -> None:
    """Each training set judged with co-expression of the others, for widths and annotation lengths."""
    judged = [cells for cells in sets if cells.role == "train" and cells.name not in NOT_JUDGED]
    scores: dict[tuple[int, float], list[float]] = {}
    for cells in judged:
        cells.expression = expression[cells.name]
    random = np.random.default_rng(0).standard_normal((len(annotation), 256)).astype(np.float32)
    for name, vectors in (("random", random), ("annotation alone", annotation)):
        print(f"\n{name}: {np.mean([macro_f1(*within(cells, vectors)) for cells in judged]):.3f}")
    for group in dict.fromkeys(TOGETHER.get(cells.name, cells.name) for cells in judged):
        left_out = [cells for cells in judged if TOGETHER.get(cells.name, cells.name) == group]
        others = {name: matrix for name, matrix in expression.items() if name not in {c.name for c in left_out}}
        matrix, seen = standardise(others, floor=build.SPREAD_FLOOR)
        found, _ = loadings(matrix, width=max(LEAVE_OUT_WIDTHS))
        for cells in left_out:
            for width in LEAVE_OUT_WIDTHS:
                part = _unit(found[:, :width]) * (seen > 0)[:, None]
                for length in LEAVE_OUT_LENGTHS:
                    called = within(cells, np.hstack([part, length * annotation]))
                    scores.setdefault((width, length), []).append(macro_f1(*called))
    print(f"\n| co-expression width | {' | '.join(f'annotation {length}' for length in LEAVE_OUT_LENGTHS)} |")
    print("|" + "---|" * (len(LEAVE_OUT_LENGTHS) + 1))
    for width in LEAVE_OUT_WIDTHS:
        means = [float(np.mean(scores[width, length])) for length in LEAVE_OUT_LENGTHS]
        print(f"| {width} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


if __name__ == "__main__":
    main()

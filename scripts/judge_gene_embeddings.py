"""Judge what `uce gene-embeddings` wrote, and print the tables of docs/gene_embeddings.md.

    uce gene-embeddings pbmc.h5ad --species human --group-by cell_type -o genes.h5ad
    python scripts/judge_gene_embeddings.py genes.h5ad human_gene_groups.csv.gz human_go_bp_2021.gmt.gz

The annotations are a table with columns `symbol` and `gene_group` (HGNC, groups joined by "|") or a GMT file. Judged
are genes that stood in at least 50 cells: how often the nearest of them by cosine shares an annotation of 2 to 100 of
them, against a gene drawn at random; how many of the ten nearest are the same as by the projected vectors; and how the
variance of the means by group of cells splits into gene, group, and both together.
"""

import argparse
import csv
import gzip
from pathlib import Path

import anndata
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

CELLS, LARGEST, NEAREST = 50, 100, 10
Floats = npt.NDArray[np.float32]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("genes", type=Path, help="what `uce gene-embeddings CELLS` wrote")
    parser.add_argument("annotations", type=Path, nargs="+", help="CSV of gene groups, or GMT; plain or gzip")
    options = parser.parse_args()
    genes = anndata.read_h5ad(options.genes)
    genes = genes[(genes.obs["n_cells"] >= CELLS).to_numpy() & (genes.obs["symbol"] != "").to_numpy()].copy()
    near = {
        "X": nearest(genes.X),
        "X_projected": nearest(genes.obsm["X_projected"]),
        "X_context": nearest(genes.obsm["X_context"]),
    }
    for path in options.annotations:
        shared = pairs_sharing(read_sets(path), genes.obs["symbol"].tolist())
        known = np.flatnonzero(shared.sum(axis=1))
        print(f"{path.name}: {len(known):,} of {genes.n_obs:,} genes share an annotation with another")
        for name, found in near.items():
            print(f"  {name:12} {shared[known, found[known, 0]].mean():6.1%} of nearest genes share one")
        print(f"  {'random':12} {shared[known].sum() / (len(known) * (genes.n_obs - 1)):6.1%}")
    for name, found in near.items():
        same = np.mean([len(np.intersect1d(*pair)) for pair in zip(found, near["X_projected"], strict=True)]) / NEAREST
        print(f"{name:12} {same:6.1%} of the {NEAREST} nearest are those by X_projected")
    print_variance(genes)


def nearest(vectors: Floats) -> npt.NDArray[np.int64]:
    """(genes, 10) rows of the nearest other genes by cosine, nearest first."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]


def read_sets(path: Path) -> list[set[str]]:
    """Sets of symbols, one per annotation."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = text.decode("utf-8").splitlines()
    if ".gmt" in path.name:
        return [set(line.split("\t")[2:]) for line in lines]
    groups: dict[str, set[str]] = {}
    for row in csv.DictReader(lines):
        for group in filter(None, row["gene_group"].split("|")):
            groups.setdefault(group, set()).add(row["symbol"])
    return list(groups.values())


def pairs_sharing(sets: list[set[str]], symbols: list[str]) -> npt.NDArray[np.bool_]:
    """(genes, genes), true where two different genes share a set of at most 100 of the genes judged."""
    row_of = {symbol: row for row, symbol in enumerate(symbols)}
    rows = [[row_of[symbol] for symbol in sorted(members) if symbol in row_of] for members in sets]
    rows = [members for members in rows if 2 <= len(members) <= LARGEST]
    columns = np.repeat(np.arange(len(rows)), [len(members) for members in rows])
    member = sp.csr_matrix((np.ones(len(columns)), (np.concatenate(rows), columns)), (len(symbols), len(rows)))
    shared = (member @ member.T).toarray() > 0
    np.fill_diagonal(shared, val=False)
    return shared


def print_variance(genes: anndata.AnnData) -> None:
    """How the variance of the groups' means splits, on genes that stood in 50 cells of each group with 150 cells."""
    found = genes.uns["uce"]["groups"]
    keys = [key for key, cells in zip(found["key"], found["cells"], strict=True) if cells >= 3 * CELLS]
    there = np.all([genes.obs[f"n_cells:{key}"] >= CELLS for key in keys], axis=0)
    means = np.stack([genes.obsm[f"X_context:{key}"][there] for key in keys]).astype(np.float64)  # (groups, genes, dim)
    means -= means.mean(axis=(0, 1))
    by_gene, by_group = means.mean(axis=0), means.mean(axis=1)
    total = (means**2).sum()
    shares = {
        "gene": len(keys) * (by_gene**2).sum() / total,
        "group": there.sum() * (by_group**2).sum() / total,
    }
    print(f"variance over {there.sum():,} genes in {len(keys)} groups ({', '.join(keys)}):")
    for name, share in {**shares, "both together": 1 - sum(shares.values())}.items():
        print(f"  {name:14} {share:6.1%}")


if __name__ == "__main__":
    main()

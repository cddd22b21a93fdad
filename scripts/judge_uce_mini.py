"""Does uce-mini say more about cells than its own untrained copies? A table with intervals, and a picture.

    python scripts/judge_uce_mini.py --data FOLDER [--model uce-mini] [--role validation] [--output docs/results]

Judged are the labels of datasets that were not trained on (role `validation` of data_manifests/training_cells.csv),
by the neighbours of a cell: macro-F1 of a 15-neighbour vote by cosine (5 for the fly gut, whose types have 10 nuclei).
Neighbours of a cell come from other donors where there are several, else from the other folds of five.
Intervals: cells are drawn anew within every set (1,000 times), the vote of a cell staying what it was; where several
copies are compared, the difference is to their mean.
"""

import argparse
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from uce.cells.batches import length_batches
from uce.cells.counts import open_counts
from uce.cells.sentences import write_sentences
from uce.genes.catalogue import canonical_species
from uce.genes.collection import load_gene_table
from uce.genes.resolver import choose_column, names_in, resolve
from uce.genes.vocabulary import Vocabulary, build_vocabulary, to_ranks
from uce.model.checkpoint import Model, load_model, save_model
from uce.model.encoder import Encoder
from uce.model.folders import find_model

NEIGHBOURS, FEW_NEIGHBOURS, FOLDS, SMALLEST_TYPE, DRAWS = 15, 5, 5, 5, 1000
FLY = "drosophila_melanogaster"
UNLABELLED = {"unassigned", "", "nan"}


@dataclass(frozen=True, eq=False)
class Cells:
    """A dataset in memory: (cells, genes) counts in rank order."""

    name: str
    species: str
    counts: csr_matrix
    vocabulary: Vocabulary


@dataclass(frozen=True, eq=False)
class Task:
    """A labelled dataset: counts in rank order, labels, and the fold of every cell."""

    data: Cells
    labels: NDArray[np.str_]
    folds: NDArray[np.int64]
    split: str

    @property
    def neighbours(self) -> int:
        """The fly's types are smaller than 15."""
        return FEW_NEIGHBOURS if self.data.species == FLY else NEIGHBOURS


def main() -> None:
    """Judge the model and write table, numbers and picture."""
    options = _options()
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    tasks = read_tasks(options, model)
    rows: dict[str, dict[str, NDArray[np.str_]]] = {"trained": votes_of(tasks, lambda task: embed(task, model))}
    for seed in range(options.copies):
        copy = untrained(model, seed)
        rows[f"untrained {seed}"] = votes_of(tasks, lambda task, copy=copy: embed(task, copy))
    rows["mean of gene vectors"] = votes_of(tasks, mean_vectors)
    rows["PCA of the set"] = votes_of(tasks, own_pca)
    result = compare(tasks, rows)
    result["model"] = {"name": model.name, "sha256": model.sha256}
    print(json.dumps(result["summary"], indent=1))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "uce_mini.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    (options.output / "uce_mini.md").write_text(report(result, tasks), encoding="utf-8")
    picture(result, options.output / "uce_mini.png")
    if options.card:
        write_card(model, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder the manifest's files are in")
    parser.add_argument("--manifest", type=Path, default=Path("data_manifests/training_cells.csv"))
    parser.add_argument("--model", default="uce-mini", help="name or folder")
    parser.add_argument("--role", default="validation", help="role of the datasets to judge on")
    parser.add_argument("--only", nargs="*", default=[], help="names of datasets, instead of all of the role")
    parser.add_argument("--most-cells", type=int, default=1000, help="cells of a set that are judged, drawn once")
    parser.add_argument("--copies", type=int, default=5, help="untrained copies, each with its own first weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--card", action="store_true", help="write the scores into the model's own card")
    return parser.parse_args()


def read_tasks(options: argparse.Namespace, model: Model) -> list[Task]:
    """The labelled datasets; cells without a label and types with fewer than 5 cells are left out."""
    manifest = pd.read_csv(options.manifest, dtype=str, keep_default_na=False)
    chosen = manifest["dataset"].isin(options.only) if options.only else manifest["role"] == options.role
    return [_read_task(row, options, model) for row in manifest[chosen].to_dict("records")]


def _read_task(row: dict[Hashable, Any], options: argparse.Namespace, model: Model) -> Task:
    path = options.data / row["file"]
    data = read_cells(path, row["dataset"], canonical_species(row["species"]), model)
    with open_counts(path) as source:
        labels, donors = (np.asarray(source.obs_column(name)).astype(str) for name in ("cell_type", "donor"))
    if not data.counts.getnnz(axis=1).all():
        raise SystemExit(f"{path}: some cells have no count in a known gene; they cannot be judged.")
    names, sizes = np.unique(labels, return_counts=True)
    enough = np.isin(labels, names[sizes >= SMALLEST_TYPE]) & ~np.isin(labels, list(UNLABELLED))
    kept = np.flatnonzero(enough)
    kept = np.sort(np.random.default_rng(0).permutation(kept)[: options.most_cells])
    # In cell lines and the like a donor is a label; donors are of use where most types are in several of them.
    shared = (pd.crosstab(donors[kept], labels[kept]) > 0).sum().mean()
    split = "donors" if shared > 2.5 else "cells"
    folds = _donor_folds(donors[kept]) if split == "donors" else _stratified_folds(labels[kept])
    return Task(replace(data, counts=data.counts[kept]), labels[kept], folds, split)


def read_cells(path: Path, name: str, species: str, model: Model) -> Cells:
    """The counts of a file, for a model."""
    table = load_gene_table(species, encoder=model.gene_encoder)
    vocabulary = build_vocabulary(table, model.specials, chromosome_vectors=model.chromosome_vectors)
    with open_counts(path) as source:
        column = choose_column(source.var, table, column=None, file=source.file)
        rows = resolve(names_in(source.var, column), table, column=column, file=source.file).rows
        counts = to_ranks(source.read(0, source.n_cells), rows, vocabulary)
    return Cells(name, species, counts, vocabulary)


def _donor_folds(donors: NDArray[np.str_]) -> NDArray[np.int64]:
    """Every donor a fold of its own."""
    return np.unique(donors, return_inverse=True)[1].astype(np.int64)


def _stratified_folds(labels: NDArray[np.str_]) -> NDArray[np.int64]:
    """Five folds with equal shares of every type."""
    folds = np.zeros(len(labels), dtype=np.int64)
    random = np.random.default_rng(0)
    for name in np.unique(labels):
        mine = random.permutation(np.flatnonzero(labels == name))
        folds[mine] = np.arange(len(mine)) % FOLDS
    return folds


def embed(task: Task, model: Model | SimpleNamespace) -> NDArray[np.float32]:
    """(cells, out_dim) by the model's own rule, as `uce embed` does it."""
    data = task.data
    vocabulary = data.vocabulary
    sentences = write_sentences(
        data.counts,
        vocabulary.gene_chromosomes,
        vocabulary.gene_keys,
        rule=model.rule,
        n_chromosomes=len(vocabulary.chromosome_names),
    )
    out = np.zeros((data.counts.shape[0], model.config.out_dim), dtype=np.float32)
    with torch.inference_mode():
        projected = model.encoder.project(torch.from_numpy(vocabulary.vectors))
        for cells in length_batches(sentences.lengths, max_tokens=50_000, max_cells=64):
            tokens = sentences.tokens[cells, : sentences.lengths[cells[0]]].astype(np.int64)
            out[cells] = model.encoder.encode(projected[torch.from_numpy(tokens)]).numpy()
    return out


def untrained(model: Model, seed: int) -> SimpleNamespace:
    """The same shape, rule and gene vectors with fresh random weights."""
    torch.manual_seed(1000 + seed)
    return SimpleNamespace(config=model.config, rule=model.rule, encoder=Encoder(model.config).eval())


def mean_vectors(task: Task) -> NDArray[np.float32]:
    """(cells, P): the unit-length gene vectors, weighted by log1p of the counts; no draw, no encoder."""
    vocabulary = task.data.vocabulary
    genes = vocabulary.vectors[vocabulary.first_gene :]
    weights = task.data.counts.log1p()
    mean = weights @ (genes / np.linalg.norm(genes, axis=1, keepdims=True))
    return np.asarray(mean / weights.sum(axis=1), dtype=np.float32)


def own_pca(task: Task) -> NDArray[np.float32]:
    """(cells, 50): principal components fitted on the set itself, of log1p of counts per 10,000."""
    depth = np.asarray(task.data.counts.sum(axis=1)).ravel()
    logs = csr_matrix(task.data.counts.multiply(1e4 / depth[:, None])).log1p().toarray()
    logs -= logs.mean(axis=0)
    u, s, _ = np.linalg.svd(logs @ logs.T)
    return (u[:, :50] * np.sqrt(s[:50])).astype(np.float32)


def votes_of(tasks: list[Task], vectors: Callable[[Task], NDArray[np.float32]]) -> dict[str, NDArray[np.str_]]:
    """The label voted for every cell of every task."""
    return {task.data.name: vote(vectors(task), task) for task in tasks}


def vote(vectors: NDArray[np.float32], task: Task) -> NDArray[np.str_]:
    """For each cell the label most frequent among its nearest cells of other folds; ties go to the nearer ones."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = unit @ unit.T
    similar[task.folds[:, None] == task.folds[None, :]] = -np.inf
    names, codes = np.unique(task.labels, return_inverse=True)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : task.neighbours]
    # A bonus below one vote that falls with the distance breaks ties.
    weights = 1 + 1e-3 * (task.neighbours - np.arange(task.neighbours)) / task.neighbours
    tally = np.zeros((len(unit), len(names)))
    np.add.at(tally, (np.arange(len(unit))[:, None], codes[nearest]), weights)
    return names[tally.argmax(axis=1)]


def macro_f1(labels: NDArray[np.str_], voted: NDArray[np.str_], weights: NDArray[np.float64]) -> float:
    """Mean over types of 2 TP / (2 TP + FP + FN); `weights` (cells,) says how often a cell counts."""
    names, codes = np.unique(labels, return_inverse=True)
    guessed = np.searchsorted(names, voted)
    right = np.bincount(codes, weights * (codes == guessed), minlength=len(names))
    true, called = (np.bincount(c, weights, minlength=len(names)) for c in (codes, guessed))
    present = true > 0
    return float(np.mean(2 * right[present] / (true + called)[present]))


def compare(tasks: list[Task], rows: dict[str, dict[str, NDArray[np.str_]]]) -> dict[str, Any]:
    """Scores by row and set, their intervals, and the paired difference of "trained" to each other kind of row."""
    random = np.random.default_rng(0)
    scores = {row: np.zeros((DRAWS + 1, len(tasks))) for row in rows}
    for column, task in enumerate(tasks):
        cells = len(task.labels)
        draws = np.vstack([np.ones(cells), random.multinomial(cells, np.full(cells, 1 / cells), size=DRAWS)])
        for row, votes in rows.items():
            scores[row][:, column] = [macro_f1(task.labels, votes[task.data.name], weights) for weights in draws]
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault("untrained" if row.startswith("untrained") else row, []).append(row)
    merged = {kind: np.mean([scores[row] for row in members], axis=0) for kind, members in kinds.items()}
    summary: dict[str, Any] = {}
    for kind, values in merged.items():
        difference = merged["trained"] - values
        # Sets drawn anew as well as cells: would it hold for other sets like these?
        sets = random.integers(0, len(tasks), (DRAWS, len(tasks)))
        over_sets = np.take_along_axis(difference[1:], sets, axis=1).mean(axis=1)
        summary[kind] = {
            "by_set": {task.data.name: round(float(value), 4) for task, value in zip(tasks, values[0], strict=True)},
            "mean": _interval(values[0].mean(), values[1:].mean(axis=1)),
            "trained_minus_this": _interval(difference[0].mean(), difference[1:].mean(axis=1)),
            "trained_minus_this_over_sets": _interval(difference[0].mean(), over_sets),
            "copies": [round(float(scores[row][0].mean()), 4) for row in kinds[kind]],
        }
    facts = {t.data.name: {"cells": len(t.labels), "types": len(set(t.labels)), "split": t.split} for t in tasks}
    return {"summary": summary, "sets": facts}


def _interval(value: float, drawn: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [round(float(number), 4) for number in (value, low, high)]


def report(result: dict[str, Any], tasks: list[Task]) -> str:
    """The table in Markdown."""
    names = [task.data.name for task in tasks]
    lines = [
        "# Does uce-mini say more than its untrained copies?",
        "",
        "Macro-F1 of a vote of nearest neighbours (cosine; 15, fly gut 5) on datasets that were not trained on, with",
        "95 % intervals from drawing cells anew. Difference: the trained model minus the row, drawn in pairs; the last",
        "column has the interval when datasets are drawn anew as well. `untrained` is the mean of "
        f"{len(result['summary']['untrained']['copies'])} copies with their own random weights.",
        "",
        f"Model `{result['model']['name']}`, sha256 {result['model']['sha256'][:16]}. "
        "Made by `scripts/judge_uce_mini.py`; numbers in `uce_mini.json`.",
        "",
        "| | " + " | ".join(names) + " | mean | trained minus this | over sets |",
        "|---" * (len(names) + 4) + "|",
    ]
    for kind, row in result["summary"].items():
        cells = [f"{row['by_set'][name]:.3f}" for name in names]
        mean, low, high = row["mean"]
        cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        if kind == "trained":
            cells += ["", ""]
        else:
            for key in ("trained_minus_this", "trained_minus_this_over_sets"):
                value, low, high = row[key]
                cells.append(f"{value:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "| set | cells | types | neighbours from other |", "|---|---|---|---|"]
    lines += [f"| {n} | {f['cells']} | {f['types']} | {f['split']} |" for n, f in result["sets"].items()]
    lines += ["", "![macro-F1 by dataset](uce_mini.png)", "", "## How to read it", "", *_reading(result), ""]
    return "\n".join(lines)


def _reading(result: dict[str, Any]) -> list[str]:
    """In words: on how many sets the trained model is ahead of each other row, and what the rows may see."""
    trained = result["summary"]["trained"]["by_set"]
    lines = []
    for kind, row in result["summary"].items():
        if kind == "trained":
            continue
        ahead = [name for name, score in row["by_set"].items() if trained[name] > score]
        value, low, high = row["trained_minus_this"]
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
        lines.append(
            f"- The trained model is {verdict} *{kind}* ({value:+.3f}); ahead on {len(ahead)} of {len(trained)} sets."
        )
    return [
        *lines,
        "- *PCA of the set* is fitted on the very cells it is judged on, and its numbers mean nothing in another set. "
        "*Mean of gene vectors* uses every count; the model reads a sentence of genes drawn from them.",
        "- Settings were chosen on datasets of the training role, not on these. Labels are not used in training.",
    ]


def write_card(model: Model, result: dict[str, Any]) -> None:
    """Write the scores into the card of the model; what decides its numbers stays as it is."""
    metrics = {"score": "macro-F1 of a vote of nearest neighbours, mean over " + ", ".join(result["sets"])}
    for kind, row in result["summary"].items():
        value, low, high = row["mean"]
        metrics[kind] = f"{value:.3f} ({low:.3f} to {high:.3f})"
    value, low, high = result["summary"]["untrained"]["trained_minus_this"]
    metrics["trained minus untrained"] = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    save_model(
        find_model(model.name),
        encoder=model.encoder,
        rule=model.rule,
        specials=model.specials,
        gene_encoder=model.gene_encoder,
        gene_tables=model.gene_tables,
        info={**model.info, "metrics": metrics},
        chromosome_vectors=model.chromosome_vectors,
        overwrite=True,
    )


def picture(result: dict[str, Any], path: Path) -> None:
    """Scores of every row by dataset."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    kinds = list(result["summary"])
    names = [*result["summary"]["trained"]["by_set"], "mean"]
    for number, kind in enumerate(kinds):
        row = result["summary"][kind]
        values = [*row["by_set"].values(), row["mean"][0]]
        axes.bar(np.arange(len(names)) + 0.2 * (number - 1.5), values, 0.19, label=kind)
    axes.set_xticks(np.arange(len(names)), [name.replace("_", "\n", 1) for name in names], fontsize=8)
    axes.set_ylabel("macro-F1 of the neighbours' vote")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(kinds), loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

r"""The study of few labels: adapts the models of the study of recursion to a few labelled cells of unseen datasets.

    python scripts/study_few_shot.py configs/study_few_shot.yaml --models studies/recursion --data data \
        -o studies/few-shot

Start it as often as there are cores: the processes share the rows, and what was killed goes on. With --report it only
writes the report anew.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from uce.adaptation.adapt import adapt
from uce.config import read_config
from uce.evaluation.baselines.pca import principal_components
from uce.evaluation.baselines.variable_genes import variable_genes
from uce.evaluation.cells import log_cp10k
from uce.evaluation.probes import fit_logistic
from uce.evaluation.scores import classification_scores
from uce.files import atomic_path, write_json
from uce.grid import Row, read_rows, run_rows
from uce.scaling.verdicts import t_interval

PCA = "PCA"


@dataclass(frozen=True)
class Source:
    """Labelled cells that no model has seen."""

    file: str
    species: str
    label: str  # column of obs


@dataclass(frozen=True)
class Study:
    """What is asked, by which rule it is answered, and what is run."""

    question: str
    primary: str
    rule: str
    arms: tuple[str, ...]
    corpus: str
    recipes: tuple[str, ...]
    labels_per_type: tuple[int, ...]
    fewest: int
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    datasets: tuple[Source, ...]


def choose(labels: Sequence[str], count: int, *, fewest: int, seed: int) -> pd.DataFrame:
    """Columns for the cells: `shown`, their label where they take part, and `part`, "learn" or "ask".

    The cells that are learned from with fewer labels are among those with more.
    """
    told = np.asarray(labels, dtype=str)
    random = np.random.Generator(np.random.PCG64(seed))
    shown, part = np.full(len(told), "", dtype=object), np.full(len(told), "ask", dtype=object)
    for name in np.unique(told):
        cells = np.flatnonzero(told == name)
        if len(cells) < fewest or not name or name == "nan":
            continue
        shown[cells] = name
        part[random.permutation(cells)[:count]] = "learn"
    return pd.DataFrame({"shown": shown, "part": part})


def score(study: Study, source: Source, settings: Mapping[str, Any], data: Path, model: Path, place: Path) -> Any:
    """Macro-F1 of every way to use the labels of one row."""
    cells = place / "cells.h5ad"
    adata = anndata.read_h5ad(data / source.file)
    labels = adata.obs[source.label].astype(str).tolist()
    columns = choose(labels, settings["labels"], fewest=study.fewest, seed=settings["seed"])
    adata.obs = columns.set_index(adata.obs_names)
    adata.write_h5ad(cells)
    found: dict[str, Any] = {}
    for recipe in study.recipes:
        run = place / recipe
        shutil.rmtree(run, ignore_errors=True)
        adapted = adapt(
            cells,
            out=run,
            recipe=recipe,
            labels="shown",
            model=model,
            hold_out={"part": ["ask"]},
            species=source.species,
            seed=settings["seed"],
            settings=[] if recipe == "probe" else study.settings,
            quiet=True,
        )
        assert adapted.scores is not None
        lines = {(line["vectors"], line["reading"]): line["macro_f1"] for line in adapted.scores.lines}
        found[recipe] = lines["adapted", "classifier"]
        found["cells"] = adapted.scores.asked
        shutil.rmtree(run)
    found[PCA] = score_components(adata, columns)
    cells.unlink()
    return found


def score_components(adata: anndata.AnnData, columns: pd.DataFrame) -> float:
    """The same of principal components of all cells, those without a label among them, and logistic regression."""
    logs = log_cp10k(csr_matrix(adata.X, dtype=np.float64))
    values = np.asarray(logs[:, variable_genes(logs)].toarray(), dtype=np.float32)
    vectors = principal_components(values, np.ones(len(values), dtype=bool))
    labels, part = columns["shown"].to_numpy(dtype=str), columns["part"].to_numpy(dtype=str)
    learn, ask = part == "learn", (part == "ask") & (labels != "")
    fitted = fit_logistic(vectors[learn], labels[learn], np.arange(learn.sum()).astype(str))
    return float(classification_scores(labels[ask], fitted.votes(vectors[ask]).labels)["macro_f1"])


def rows_of(study: Study) -> list[Row]:
    """Every row, seed by seed."""
    return [
        Row(
            f"{Path(source.file).stem}-{labels}-{arm}-{seed}",
            {"dataset": source.file, "labels": labels, "arm": arm, "seed": seed, "settings": list(study.settings)},
        )
        for seed in study.seeds
        for source in study.datasets
        for labels in study.labels_per_type
        for arm in study.arms
    ]


def report(study: Study, folder: Path) -> None:
    """Write `table.md`, `verdict.json` and `few_shot.svg` from the rows that are there."""
    done = [record for record in read_rows(folder) if record["status"] == "done"]
    frame = pd.DataFrame(
        [
            {**record["settings"], "way": f"{record['settings']['arm']} {way}", "score": record["values"][way]}
            for record in done
            for way in study.recipes
        ]
        + [
            {**record["settings"], "way": "PCA", "score": record["values"][PCA]}
            for record in done
            if record["settings"]["arm"] == study.arms[0]
        ]
    )
    whole = frame.pivot_table(index=["labels", "way", "seed"], columns="dataset", values="score").dropna()
    means = whole.mean(axis=1).rename("score").reset_index()
    lines, verdicts = (
        [
            "| labels of each type | way | macro-F1 | minus PCA (95 %) | by the rule |",
            "| ---: | --- | ---: | --- | --- |",
        ],
        [],
    )
    for labels in study.labels_per_type:
        table = means[means["labels"] == labels].pivot_table(index="seed", columns="way", values="score")
        for way in table.columns:
            verdict = _verdict(table, way, "PCA") if way != "PCA" and "PCA" in table else None
            shown = f"{labels} | {way} | {table[way].mean():.3f}"
            if verdict:
                verdicts.append({"labels": labels, **verdict})
                shown += (
                    f" | {verdict['mean']:+.3f} ({verdict['low']:+.3f} to {verdict['high']:+.3f}) | {verdict['word']}"
                )
            lines.append(f"| {shown} |" if verdict else f"| {shown} | | |")
        for recipe in study.recipes:
            pairs = [(f"{study.arms[0]} {recipe}", f"{other} {recipe}") for other in study.arms[1:]]
            pairs += [(f"{arm} {recipe}", f"{arm} probe") for arm in study.arms if recipe != "probe"]
            verdicts += [
                {"labels": labels, **_verdict(table, one, other)} for one, other in pairs if {one, other} <= set(table)
            ]
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text("\n".join([*lines, ""]), "utf-8")
    write_json(folder / "verdict.json", verdicts)
    with atomic_path(folder / "few_shot.svg") as temporary:
        draw(study, means, temporary)


def _verdict(table: pd.DataFrame, one: str, other: str) -> dict[str, Any]:
    values = (table[one] - table[other]).dropna().to_numpy()
    low, high = t_interval(values) if len(values) > 1 else (float("nan"), float("nan"))
    word = "better" if low > 0 else "worse" if high < 0 else "undecided"
    return {"one": one, "other": other, "mean": float(values.mean()), "low": low, "high": high, "word": word}


def draw(study: Study, means: pd.DataFrame, path: Path) -> None:
    """A panel for each number of labels: every way and seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(study.labels_per_type), 5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(study.labels_per_type), sharex=True))
    for axes, labels in zip(panels, study.labels_per_type, strict=True):
        here = means[means["labels"] == labels]
        ways = ["PCA", *(f"{arm} {recipe}" for recipe in study.recipes for arm in study.arms)]
        for place, way in enumerate(reversed(ways)):
            values = here[here["way"] == way]["score"]
            axes.plot(values, [place] * len(values), "o", alpha=0.5, color="C7" if way == "PCA" else "C0")
            axes.plot([values.mean()], [place], "|", markersize=16, color="black")
        axes.set_yticks(range(len(ways)), list(reversed(ways)))
        axes.set_title(f"{labels} labelled cell{'s' if labels > 1 else ''} of each type", fontsize=10)
        axes.set_xlabel("macro-F1 of the other cells, mean over the datasets")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Do the rows that are left, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--models", type=Path, required=True, help="folder of the study of recursion")
    parser.add_argument("--data", type=Path, required=True, help="folder that the files lie in")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="no runs, only the report")
    args = parser.parse_args()
    study = read_config(Study, args.study)
    sources = {source.file: source for source in study.datasets}

    def work(row: Row, place: Path) -> Any:
        settings: Mapping[str, Any] = row.settings
        run = args.models / "runs" / f"{study.corpus}-{settings['arm']}-{settings['seed']}" / "run"
        source = sources[settings["dataset"]]
        return score(study, source, settings, args.data, run / settings["arm"], place)

    if not args.report:
        run_rows(args.output, rows_of(study), work, keep=False)
    report(study, args.output)
    print(args.output / "table.md")


if __name__ == "__main__":
    main()

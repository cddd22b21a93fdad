r"""The studies of few labels: models are adapted to a few labelled cells of datasets they have not seen.

    python scripts/study_few_shot.py configs/study_few_shot.yaml --models studies/recursion --data data \
        -o studies/few-shot
    python scripts/study_few_shot.py configs/study_adapt.yaml --data data -o studies/adapt

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
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import uce
from uce.adaptation.adapt import adapt
from uce.adaptation.recipes import find_recipe
from uce.cells.labels import is_labelled
from uce.config import read_config
from uce.evaluation.baselines.pca import principal_components
from uce.evaluation.baselines.variable_genes import variable_genes
from uce.evaluation.cells import log_cp10k
from uce.evaluation.probes import fit_logistic
from uce.evaluation.scores import classification_scores
from uce.files import atomic_path, write_json
from uce.grid import Row, read_rows, run_rows
from uce.scaling.verdicts import t_interval

Texts = NDArray[np.str_]
Mask = NDArray[np.bool_]
PCA = "PCA"


@dataclass(frozen=True)
class Source:
    """Labelled cells that no model has seen."""

    file: str
    species: str
    label: str  # column of obs
    donors: tuple[str, ...] = ()  # that no labelled cell comes from; without any, all other cells are asked about


@dataclass(frozen=True)
class Study:
    """What is asked, by which rule it is answered, and what is run."""

    question: str
    primary: str
    rule: str
    arms: tuple[str, ...]  # of the study of recursion, or names of models where there is no corpus
    recipes: tuple[str, ...]
    labels_per_type: tuple[int, ...]
    fewest: int
    seeds: tuple[int, ...]
    datasets: tuple[Source, ...]
    corpus: str = ""  # of the study of recursion
    settings: tuple[str, ...] = ()  # of recipes that train the encoder


def choose(
    labels: Sequence[str], count: int, *, fewest: int, seed: int, apart: Sequence[bool] | None = None
) -> pd.DataFrame:
    """Columns for the cells: `shown`, their label where they take part, and `part`, "learn" or "ask".

    At most half of a type's cells are learned from, and those of a smaller `count` are among those of a larger one.
    Cells that stand `apart` are asked about and the others are learned from, of types with `fewest` on either side.
    """
    told = np.asarray(labels, dtype=str)
    asked = np.ones(len(told), dtype=bool) if apart is None else np.asarray(apart, dtype=bool)
    random = np.random.Generator(np.random.PCG64(seed))
    shown, part = np.full(len(told), "", dtype=object), np.where(asked, "ask", "aside").astype(object)
    for name in np.unique(told[is_labelled(told)]).tolist():
        here = told == name
        pool = np.flatnonzero(here if apart is None else here & ~asked)
        if min(len(pool), int(np.count_nonzero(here & asked))) < fewest:
            continue
        many = min(count, len(pool) // 2) if apart is None else count
        learned = random.permutation(pool)[:many]
        shown[here & asked] = shown[learned] = name
        part[learned] = "learn"
    return pd.DataFrame({"shown": shown, "part": part})


def score(study: Study, source: Source, settings: Mapping[str, Any], data: Path, model: Path, place: Path) -> Any:
    """Number of labels of each type -> macro-F1 of every way to use them."""
    adata = anndata.read_h5ad(data / source.file)
    labels = adata.obs[source.label].astype(str).tolist()
    apart = adata.obs["donor"].isin(source.donors).tolist() if source.donors else None
    cells = place / "cells.h5ad"
    begun: dict[str, Path] = {}  # recipe that reads no label -> the model it led to

    def train(recipe: str, start: Path, **options: Any) -> Path:
        out, seed = place / recipe, settings["seed"]
        shutil.rmtree(out, ignore_errors=True)
        changes = study.settings if options and recipe != "probe" else ()
        options |= {"species": source.species, "seed": seed, "settings": changes, "quiet": True}
        return adapt(cells, out=out, recipe=recipe, model=start, **options).model

    found: dict[str, Any] = {}
    for count in study.labels_per_type:
        columns = choose(labels, count, fewest=study.fewest, seed=settings["seed"], apart=apart)
        shown, part = (columns[name].to_numpy(dtype=str) for name in ("shown", "part"))
        learned, asked = part == "learn", (part == "ask") & (shown != "")
        adata.obs = pd.DataFrame({"label": np.where(learned, shown, "")}, index=adata.obs_names)
        adata.write_h5ad(cells)
        told = {PCA: by_components(adata, shown, learned, asked)}
        for recipe in study.recipes:
            if find_recipe(recipe).labels == "none":  # it sees all cells, whatever their labels, so once is enough
                begun[recipe] = begun.get(recipe) or train(recipe, model)
            used = "probe" if recipe in begun else recipe
            folder = train(used, begun.get(recipe, model), labels="label")
            told[recipe] = by_model(adata[asked].copy(), folder, source, settings["seed"])
        found[str(count)] = {
            way: float(classification_scores(shown[asked], names)["macro_f1"]) for way, names in told.items()
        }
        found[str(count)] |= {"learned": int(learned.sum()), "asked": int(asked.sum())}
    return found


def by_model(asked: anndata.AnnData, folder: Path, source: Source, seed: int) -> Texts:
    """Labels of cells by the classifier of an adapted model."""
    model = uce.load_model(folder)
    assert model.classifier is not None
    uce.embed(asked, model=model, species=source.species, seed=seed, quiet=True)
    vectors = np.nan_to_num(asked.obsm["X_uce"])
    labels: Texts = np.array(model.classifier.labels)
    told: Texts = labels[model.classifier.probabilities(vectors).argmax(axis=1)]
    return told


def by_components(adata: anndata.AnnData, shown: Texts, learned: Mask, asked: Mask) -> Texts:
    """Labels by logistic regression on principal components of all cells, those without a label among them."""
    logs = log_cp10k(csr_matrix(adata.X, dtype=np.float64))
    values = np.asarray(logs[:, variable_genes(logs)].toarray(), dtype=np.float32)
    vectors = principal_components(values, np.ones(len(values), dtype=bool))
    fitted = fit_logistic(vectors[learned], shown[learned], np.flatnonzero(learned).astype(str))
    return fitted.votes(vectors[asked]).labels


def rows_of(study: Study) -> list[Row]:
    """Every row, seed by seed."""
    return [
        Row(
            f"{Path(source.file).stem}-{arm}-{seed}",
            {
                "dataset": source.file,
                "arm": arm,
                "seed": seed,
                "labels": list(study.labels_per_type),
                "recipes": list(study.recipes),
                "settings": list(study.settings),
            },
        )
        for seed in study.seeds
        for source in study.datasets
        for arm in study.arms
    ]


def report(study: Study, folder: Path) -> None:
    """Write `table.md`, `verdict.json` and `few_shot.svg` from the rows that are there."""
    done = [record for record in read_rows(folder) if record["status"] == "done"]
    scored = []
    for record in done:
        settings = record["settings"]
        for labels, scores in record["values"].items():
            known = {"dataset": settings["dataset"], "seed": settings["seed"], "labels": int(labels)}
            ways = {f"{settings['arm']} {recipe}": scores[recipe] for recipe in study.recipes}
            if settings["arm"] == study.arms[0]:
                ways[PCA] = scores[PCA]
            scored += [{**known, "way": way, "score": score} for way, score in ways.items()]
    frame = pd.DataFrame(scored)
    whole = frame.pivot_table(index=["labels", "way", "seed"], columns="dataset", values="score").dropna()
    means = whole.mean(axis=1).rename("score").reset_index()
    tables = {
        labels: means[means["labels"] == labels].pivot_table(index="seed", columns="way", values="score")
        for labels in study.labels_per_type
    }
    verdicts = [
        {"labels": labels, **verdict}
        for labels, table in tables.items()
        for one, other in _pairs(study)
        if (verdict := _verdict(table, one, other))
    ]
    lines = ["| labels of each type | way | macro-F1 |", "| ---: | --- | ---: |"]
    lines += [
        f"| {labels} | {way} | {score:.3f} |" for labels, table in tables.items() for way, score in table.mean().items()
    ]
    lines += [
        "",
        "| labels of each type | one minus other | difference (95 %) | by the rule |",
        "| ---: |" + " --- |" * 3,
    ]
    for line in verdicts:
        limits = f"{line['mean']:+.3f} ({line['low']:+.3f} to {line['high']:+.3f})"
        lines.append(f"| {line['labels']} | {line['one']} − {line['other']} | {limits} | {line['word']} |")
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text("\n".join([*lines, ""]), "utf-8")
    write_json(folder / "verdict.json", verdicts)
    with atomic_path(folder / "few_shot.svg") as temporary:
        draw(study, means, temporary)


def _pairs(study: Study) -> list[tuple[str, str]]:
    """Every way against principal components, the first arm against the others, every recipe against the probe."""
    first, *others = study.arms
    trained = [recipe for recipe in study.recipes if recipe != "probe"]
    return [
        *((f"{arm} {recipe}", PCA) for recipe in study.recipes for arm in study.arms),
        *((f"{first} {recipe}", f"{other} {recipe}") for recipe in study.recipes for other in others),
        *((f"{arm} {recipe}", f"{arm} probe") for recipe in trained for arm in study.arms),
    ]


def _verdict(table: pd.DataFrame, one: str, other: str) -> dict[str, Any] | None:
    """The difference over seeds and its word; None where fewer than two seeds have both."""
    values = (table[one] - table[other]).dropna().to_numpy() if {one, other} <= set(table) else np.empty(0)
    if len(values) < 2:
        return None
    low, high = t_interval(values)
    word = "better" if low > 0 else "worse" if high < 0 else "undecided"
    facts = {"one": one, "other": other, "seeds": len(values), "mean": float(values.mean())}
    return {**facts, "low": low, "high": high, "word": word}


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
    parser.add_argument("--models", type=Path, help="folder of the study of recursion, for a study of its models")
    parser.add_argument("--data", type=Path, required=True, help="folder that the files lie in")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="no runs, only the report")
    args = parser.parse_args()
    study = read_config(Study, args.study)
    sources = {source.file: source for source in study.datasets}

    def work(row: Row, place: Path) -> Any:
        settings: Mapping[str, Any] = row.settings
        model = Path(settings["arm"])
        if study.corpus:
            model = args.models / "runs" / f"{study.corpus}-{model}-{settings['seed']}" / "run" / model
        return score(study, sources[settings["dataset"]], settings, args.data, model, place)

    if study.corpus and not args.models:
        parser.error("--models is missing: this study adapts models of the study of recursion")
    if not args.report:
        run_rows(args.output, rows_of(study), work, keep=False)
    report(study, args.output)
    print(args.output / "table.md")


if __name__ == "__main__":
    main()

"""The study of AMT2: trains every arm of a study file and measures it; a table, a picture, what may be said.

    python scripts/study_amt2.py configs/study_amt2.yaml --cells data/cells -o studies/amt2 [key=value ...]

Start it as often as there are cores: the processes share the runs, and what was killed goes on. With --report it only
writes the report anew. Settings `key=value` change the study file, such as `base.draws=64`.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import uce
from uce.adaptation.phases import Phase, describe_phases, train_phases
from uce.adaptation.recipes.amt2 import LABELLED, UNLABELLED, Amt2Settings, alternate
from uce.config import config_to_dict, read_config
from uce.corpus.build import build_corpus
from uce.corpus.layout import write_rows
from uce.corpus.quality import SWITCHES, QualityRules
from uce.evaluation.baselines.corpus_pca import orthogroups, sum_groups
from uce.evaluation.baselines.mean_genes import mean_vectors
from uce.evaluation.cells import log_cp10k
from uce.evaluation.probes import fit_logistic
from uce.evaluation.scores import classification_scores
from uce.files import atomic_path, write_json
from uce.genes.collection import load_gene_table
from uce.grid import Row, read_rows, run_rows
from uce.locks import lock
from uce.training.corpus import open_corpus
from uce.training.objectives.joint import JointSettings
from uce.training.objectives.momentum import MomentumSettings
from uce.training.objectives.supervised import SupervisedSettings, classes_of
from uce.training.probe import read_rows as read_counts
from uce.training.settings import DataSettings, PretrainConfig

Floats = NDArray[np.float32]
Texts = NDArray[np.str_]
# Datasets of a pair: to train on, and held out; only the source's have labels in the corpus.
TRAINED = ("source", "source_shuffled", "source_part", "target")
HELD_OUT = ("source_held_out", "target_held_out")
RIVALS = ("source", "source-long", "source-unlabelled", "unlabelled-source", "joint")
BASELINES = ("pca", "mean-genes")
_ASKED = ("source", "target", "target_held_out")  # datasets that are embedded
_FEWEST_TO_CHOOSE = 3  # cells of every label
_UNSEEN = 0.1  # share of the source that no labelled phase sees
Order = Literal[
    "none", "source", "source-long", "unlabelled", "source-unlabelled", "unlabelled-source", "joint", "amt2"
]


@dataclass(frozen=True)
class Pair:
    """A labelled source and a target whose labels are learned from a few cells."""

    name: str
    source: str
    target: str
    held_out: tuple[str, ...]  # donors of the target that are asked about
    same: tuple[str, ...] = ()  # label=label of the other, where two are one


@dataclass(frozen=True)
class Arm:
    """One thing that is compared."""

    name: str
    order: Order
    about: str
    labelled: str = "source"  # dataset
    unlabelled: str = "target"
    alpha: float = 0.0


@dataclass(frozen=True)
class Study:
    """What is asked, by which rule it is answered, and what is run."""

    question: str
    primaries: tuple[str, ...]
    rule: str
    claim: str
    develop: str  # pair that alpha is chosen on
    target_share: float  # of the labels, in both primaries
    shares: tuple[float, ...]
    draws: int
    fewest: int
    seeds: tuple[int, ...]
    column: str
    pairs: tuple[Pair, ...]
    recipe: Amt2Settings
    alphas: tuple[float, ...]
    arms: tuple[Arm, ...]
    control_alpha: float
    base: PretrainConfig

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """One arm for every alpha; the controls have theirs."""
        plain = [arm for arm in self.arms if arm.name != "amt2"]
        plain = [replace(arm, alpha=self.control_alpha) if arm.order == "amt2" else arm for arm in plain]
        grid = [
            replace(arm, name=amt2_name(alpha), alpha=alpha)
            for arm in self.arms
            if arm.name == "amt2"
            for alpha in self.alphas
        ]
        return (*plain, *grid)


def amt2_name(alpha: float) -> str:
    """Of the arm with this alpha."""
    return f"amt2-{alpha:g}"


# ---- cells


def prepare(pair: Pair, study: Study, cells: Path, folder: Path) -> None:
    """Write the datasets of a pair and their corpus, once; labels of the target go into a table of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".prepare.lock", wait=True):
        if (folder / "corpus" / "corpus.json").is_file():
            return
        random = np.random.default_rng(0)
        source, target = (anndata.read_h5ad(cells / f"{name}.h5ad") for name in (pair.source, pair.target))
        unseen = random.random(source.n_obs) < _UNSEEN
        asked = target.obs["donor"].isin(pair.held_out).to_numpy()
        parts = {
            "source": source[~unseen],
            "source_held_out": source[unseen],
            "target": target[~asked],
            "target_held_out": target[asked],
        }
        seen = parts["source"]
        parts["source_shuffled"] = shuffled = seen.copy()
        shuffled.obs[study.column] = random.permutation(seen.obs[study.column].astype(str).to_numpy())
        some = np.sort(random.permutation(seen.n_obs)[: parts["target"].n_obs])
        parts["source_part"] = seen[some]
        rows = []
        for name, part in parts.items():
            labelled = name in ("source", "source_held_out", "source_shuffled")
            labels = part.obs[study.column].astype(str).to_numpy()
            plain = anndata.AnnData(part.X, obs=pd.DataFrame(index=part.obs_names), var=part.var[[]])
            pd.Series(labels).to_csv(folder / f"{name}.csv", index=False, header=["label"])
            if labelled:
                plain.obs["cell_type"] = pd.Categorical(labels)
            plain.write_h5ad(folder / f"{name}.h5ad")
            species = (source if name.startswith("source") else target).obs["species"].iloc[0]
            role = "train" if name in TRAINED else "validation"
            rows.append({"dataset": name, "file": f"{name}.h5ad", "species": species, "role": role})
        write_rows(folder / "manifest.csv", rows)
        build_corpus(folder / "manifest.csv", folder / "corpus", rules=QualityRules(off=SWITCHES))


def labels_of(folder: Path, name: str, pair: Pair) -> Texts:
    """(cells,) labels of a dataset, those that are one under one name."""
    labels = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)["label"].to_numpy(dtype=np.str_)
    same = dict(text.split("=", 1) for text in pair.same)
    return np.array([same.get(label, label) for label in labels.tolist()])


# ---- arms


def phases_of(arm: Arm, study: Study, corpus: Path, seed: int) -> list[Phase]:
    """What an arm does, a phase each."""
    recipe = study.recipe
    many = recipe.source_steps + recipe.rounds * recipe.labelled_steps
    others = recipe.rounds * recipe.unlabelled_steps
    labelled = run_config(study, corpus, seed, (arm.labelled, "source_held_out"))
    classes, counts = classes_of(open_corpus(labelled.data).datasets)
    labels = SupervisedSettings(classes=classes, cells=counts, balanced=True)
    labelled = replace(labelled, objective=labels)
    unlabelled = run_config(study, corpus, seed, (arm.unlabelled, "target_held_out"))
    source, target = (
        Phase(LABELLED, replace(labelled, steps=many)),
        Phase(UNLABELLED, replace(unlabelled, steps=others)),
    )
    longer = many + others
    match arm.order:
        case "none":  # an update that moves nothing: the weights as they are drawn
            return [Phase(LABELLED, replace(labelled, steps=1, optimizer=replace(labelled.optimizer, lr=1e-9)))]
        case "source":
            return [source]
        case "source-long":
            return [Phase(LABELLED, replace(labelled, steps=longer))]
        case "unlabelled":
            return [Phase(UNLABELLED, replace(unlabelled, steps=longer))]
        case "source-unlabelled":
            return [source, target]
        case "unlabelled-source":
            return [target, source]
        case "joint":
            both = run_config(study, corpus, seed, (arm.labelled, arm.unlabelled, *HELD_OUT))
            momentum = both.objective
            assert isinstance(momentum, MomentumSettings)
            joint = JointSettings(with_labels=(arm.labelled, "source_held_out"), labelled=labels, unlabelled=momentum)
            return [Phase("joint", replace(both, steps=longer, objective=joint))]
        case "amt2":
            return alternate(labelled, unlabelled, replace(recipe, alpha=arm.alpha))


def run_config(study: Study, corpus: Path, seed: int, datasets: Sequence[str]) -> PretrainConfig:
    """The base on some of the datasets of a pair."""
    others = tuple(name for name in (*TRAINED, *HELD_OUT) if name not in datasets)
    return replace(study.base, data=replace(study.base.data, corpus=str(corpus), leave_out=others), seed=seed)


def work_of(study: Study, arm: str, pair: Pair, seed: int, folder: Path, place: Path) -> dict[str, Any]:
    """Do a row: train and read out, or only read out what needs no training."""
    if arm in BASELINES:
        return readings(baseline(arm, folder), study, pair, folder)
    chosen = next(one for one in study.all_arms if one.name == arm)
    phases = phases_of(chosen, study, folder / "corpus", seed)
    models = train_phases(place, phases)
    values = readings(embed(models[-1], folder), study, pair, folder)
    values["phases"] = describe_phases(place, phases, models)
    if chosen.order == "amt2":  # the last unlabelled phase is an end as well
        values["before_last"] = readings(embed(models[-2], folder), study, pair, folder)
    return values


# ---- vectors


def embed(model: Path, folder: Path) -> dict[str, Floats]:
    """Dataset -> (cells, D) by a model folder."""
    loaded = uce.load_model(model)
    found = {}
    for name in _ASKED:
        cells = anndata.read_h5ad(folder / f"{name}.h5ad")
        uce.embed(cells, model=loaded, species=_species(folder, name), quiet=True)
        found[name] = np.nan_to_num(cells.obsm["X_uce"])
    return found


def _species(folder: Path, name: str) -> str:
    table = pd.read_csv(folder / "manifest.csv").set_index("dataset")
    return str(table.loc[name, "species"])


def baseline(name: str, folder: Path) -> dict[str, Floats]:
    """Dataset -> (cells, D): the mean gene vector, or components of the genes that the species share."""
    opened = [
        open_corpus(DataSettings(corpus=str(folder / "corpus"), split=split)) for split in ("train", "validation")
    ]
    datasets = {one.name: one for corpus in opened for one in corpus.datasets}
    found, grouped = {}, {}
    for asked in _ASKED:
        dataset = datasets[asked]
        counts = read_counts(dataset, np.arange(dataset.n_cells))
        rows = dataset.labels("src_row")
        assert rows is not None
        back = np.argsort(rows.astype(np.int64))  # as the file has them
        vocabulary = dataset.vocabulary
        found[asked] = mean_vectors(counts, vocabulary.vectors[vocabulary.first_gene :])[back]
        table = load_gene_table(dataset.species)
        groups = np.empty(len(table.ids), dtype=np.object_)
        groups[vocabulary.ranks] = orthogroups(table)
        groups = np.where(dataset.measured, groups, "")
        grouped[asked] = tuple(
            part[back] if number == 0 else part
            for number, part in enumerate(sum_groups(counts, groups.astype(np.str_)))
        )
    return found if name == "mean-genes" else _components(grouped)


def _components(grouped: Mapping[str, Any]) -> dict[str, Floats]:
    """50 principal components of the 2,000 most variable shared genes, fitted on source and labelled target cells."""
    from sklearn.decomposition import PCA

    shared = sorted(set.intersection(*(set(names.tolist()) for _, names in grouped.values())))
    values = {}
    for asked, (counts, names) in grouped.items():
        values[asked] = log_cp10k(counts[:, np.searchsorted(names, shared)]).toarray()
    fit = np.concatenate([values["source"], values["target"]])
    variable = np.argsort(-fit.var(axis=0), kind="stable")[:2000]
    fitted = PCA(50, random_state=0).fit(fit[:, variable])
    return {asked: fitted.transform(value[:, variable]).astype(np.float32) for asked, value in values.items()}


# ---- readings


def readings(vectors: Mapping[str, Floats], study: Study, pair: Pair, folder: Path) -> dict[str, Any]:
    """Macro-F1 of the held-out donors' types by logistic regression, for each share of the labels.

    Share 0 learns from the source's labels and is scored on those that both have; the others learn from that share of
    the target's labelled donors. The draws of the labels are the same ones for every arm and seed.
    """
    labels = {name: labels_of(folder, name, pair) for name in _ASKED}
    known = [label for label in np.unique(labels["target"]) if label not in ("unassigned", "unknown", "other", "ND")]
    known = [
        label
        for label in known
        if min(np.count_nonzero(labels[name] == label) for name in ("target", "target_held_out")) >= study.fewest
    ]
    both = np.intersect1d(known, labels["source"])
    found: dict[str, Any] = {"labels": [str(label) for label in known], "shared": both.tolist(), "f1": {}, "each": {}}
    for share in study.shares:
        if share:
            scores = [_few(vectors, labels, known, share, draw) for draw in range(study.draws)]
        else:
            scores = [_none(vectors, labels, both)] if len(both) > 1 else []
        found["f1"][f"{share:g}"] = float(np.mean(scores)) if scores else None
        found["each"][f"{share:g}"] = scores
    return found


def _few(
    vectors: Mapping[str, Floats], labels: Mapping[str, Texts], known: Sequence[str], share: float, draw: int
) -> float:
    """From a share of every type's labelled cells, one at least; a larger share has all cells of a smaller one."""
    random = np.random.default_rng((1, draw))
    orders = [random.permutation(np.flatnonzero(labels["target"] == label)) for label in known]
    rows = np.concatenate([order[: max(1, round(share * len(order)))] for order in orders])
    return _score(vectors["target"][rows], labels["target"][rows], vectors, labels, known)


def _none(vectors: Mapping[str, Floats], labels: Mapping[str, Texts], both: Texts) -> float:
    rows = np.isin(labels["source"], both)
    return _score(vectors["source"][rows], labels["source"][rows], vectors, labels, both.tolist())


def _score(
    train: Floats, told: Texts, vectors: Mapping[str, Floats], labels: Mapping[str, Texts], known: Sequence[str]
) -> float:
    # The penalty is chosen by cells held out one by one; of labels with a cell or two none can be spared.
    enough = np.unique(told, return_counts=True)[1].min() >= _FEWEST_TO_CHOOSE
    alone = np.arange(len(told)).astype(np.str_) if enough else np.zeros(len(told), np.str_)
    asked = np.isin(labels["target_held_out"], known)
    said = fit_logistic(train, told, alone).votes(vectors["target_held_out"][asked]).labels
    return classification_scores(labels["target_held_out"][asked], said)["macro_f1"]


# ---- report


def scores_of(records: Sequence[Mapping[str, Any]], pair: str, arm: str, share: float) -> dict[int, float]:
    """Seed -> macro-F1 of the finished rows of an arm."""
    name = f"{share:g}"
    return {
        record["settings"]["seed"]: record["values"]["f1"][name]
        for record in records
        if record["status"] == "done"
        and (record["settings"]["pair"], record["settings"]["arm"]) == (pair, arm)
        and record["values"]["f1"][name] is not None
    }


def difference(one: Mapping[int, float], other: Mapping[int, float], *, level: float) -> dict[str, Any]:
    """One minus another over the seeds that both have, its t interval, and the word of the rule."""
    from scipy.stats import t

    seeds = sorted(set(one) & set(other))
    if len(seeds) < 2:
        return {"seeds": len(seeds), "word": "not enough runs"}
    values = np.array([one[seed] - other[seed] for seed in seeds])
    half = float(t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    word = "better" if mean - half > 0 else "worse" if mean + half < 0 else "no difference found"
    return {"seeds": len(seeds), "mean": mean, "low": mean - half, "high": mean + half, "word": word}


def verdict(study: Study, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rule of the study says of the rows that are there."""
    share = study.target_share

    def mean(pair: str, arm: str) -> float:
        return float(np.mean(list(scores_of(records, pair, arm, share).values()) or [-1.0]))

    alpha = max(study.alphas, key=lambda value: mean(study.develop, amt2_name(value)))
    found: dict[str, Any] = {"alpha": alpha, "primaries": {}, "controls": {}}
    for pair in study.pairs:
        if pair.name == study.develop:
            continue
        rival = max(RIVALS, key=partial(mean, pair.name))
        ours = scores_of(records, pair.name, amt2_name(alpha), share)
        level = 1 - 0.05 / len(study.primaries)
        line = difference(ours, scores_of(records, pair.name, rival, share), level=level)
        found["primaries"][pair.name] = {"rival": rival, **line}
        same = scores_of(records, pair.name, amt2_name(study.control_alpha), share)
        found["controls"][pair.name] = {
            control: difference(same, scores_of(records, pair.name, control, share), level=level)
            for control in ("amt2-part", "amt2-shuffled")
        }
    return found


def report(study: Study, folder: Path) -> None:
    """Write `table.md`, `verdict.json` and `amt2.svg` from the rows that are there."""
    records = read_rows(folder)
    write_json(folder / "verdict.json", verdict(study, records))
    head = ["pair", "arm", "seeds", *(f"{share:.0%} of the labels" for share in study.shares)]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for pair in study.pairs:
        for arm in (*BASELINES, *(arm.name for arm in study.all_arms)):
            columns = [list(scores_of(records, pair.name, arm, share).values()) for share in study.shares]
            if any(columns):
                shown = [_shown(values) for values in columns]
                lines.append(f"| {' | '.join([pair.name, arm, str(max(map(len, columns))), *shown])} |")
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text("\n".join([*lines, ""]), "utf-8")
    with atomic_path(folder / "amt2.svg") as temporary:
        draw(study, records, temporary)


def _shown(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def draw(study: Study, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Macro-F1 of every arm and seed at the share of the primaries, a panel for each pair."""
    from matplotlib.figure import Figure

    arms = [*BASELINES, *(arm.name for arm in study.all_arms)][::-1]
    figure = Figure(figsize=(4.2 * len(study.pairs), 0.32 * len(arms) + 1), layout="constrained")
    panels = figure.subplots(1, len(study.pairs), sharey=True, squeeze=False)[0]
    for axes, pair in zip(panels, study.pairs, strict=True):
        for place, arm in enumerate(arms):
            values = list(scores_of(records, pair.name, arm, study.target_share).values())
            axes.plot(values, [place] * len(values), "o", alpha=0.6, color="C1" if arm.startswith("amt2") else "C0")
        axes.set_title(pair.name, fontsize=10, loc="left")
        axes.set_xlabel(f"macro-F1 at {study.target_share:.0%} of the labels")
        axes.grid(visible=True, axis="x", color="#e6e6e6", linewidth=0.6)
        axes.locator_params(axis="x", nbins=6)
    panels[0].set_yticks(range(len(arms)), arms)
    figure.savefig(path, format="svg", metadata={"Date": None})


def rows_of(study: Study) -> list[Row]:
    """Every row, seed by seed, so that a study that is cut short has whole comparisons."""
    fixed = config_to_dict(study)
    same = {name: fixed[name] for name in ("shares", "draws", "fewest", "column", "recipe")}
    rows = []
    for seed in study.seeds:
        for pair in study.pairs:
            arms = {arm.name: config_to_dict(arm) for arm in study.all_arms}
            if seed == study.seeds[0]:
                arms |= {name: {"name": name} for name in BASELINES}
            for name, facts in arms.items():
                about = {"pair": pair.name, "arm": name, "seed": seed, "how": facts}
                settings = {**about, "cells": config_to_dict(pair), "base": fixed["base"], **same}
                rows.append(Row(f"{pair.name}-{name}-{seed}", settings))
    return rows


def main() -> None:
    """Do the rows that are left, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings of the study")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--cells", type=Path, default=Path("data/cells"), help="folder of the .h5ad files")
    parser.add_argument("--report", action="store_true", help="no runs, only the report")
    parser.add_argument("--retry", action="store_true", help="do rows that failed again")
    args = parser.parse_intermixed_args()
    study = read_config(Study, args.study, overrides=args.changes)
    pairs = {pair.name: pair for pair in study.pairs}

    def work(row: Row, place: Path) -> dict[str, Any]:
        pair, arm, seed = (row.settings[name] for name in ("pair", "arm", "seed"))
        assert isinstance(pair, str)
        assert isinstance(arm, str)
        assert isinstance(seed, int)
        folder = args.output / "pairs" / pair
        prepare(pairs[pair], study, args.cells, folder)
        return work_of(study, arm, pairs[pair], seed, folder, place)

    if not args.report:
        run_rows(args.output, rows_of(study), work, keep=False, retry=args.retry)
    report(study, args.output)
    print(args.output / "table.md")


if __name__ == "__main__":
    main()

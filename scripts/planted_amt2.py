"""Does AMT2 find planted cell types in a second domain, from labels of a first one? A check of the mechanism.

600 genes, six types. In the second domain a share of the genes (0.3) have their vectors turned by one rotation, and
every gene its rate multiplied by a factor of its own (log-sd 1); its cells have no labels in training. Afterwards a
logistic regression learns from five labelled cells of each type of the second domain and is asked about the others
(macro-F1, mean of ten draws; guessing: 0.17). Prints one JSON line for each way: the source's labels alone, the
second domain's cells alone, joint, AMT2, and AMT2 with other cells of the first domain in place of the second.
`recall` is how often the key of the same cell is the nearest one in the last unlabelled updates, and `recall_chance`
what guessing gives.

    python scripts/planted_amt2.py [--seed 0] [--rotated 0.3] [--alpha 10] [--longer 1] [--ways source joint amt2]
"""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

GENES, TYPES, CELLS, WIDTH = 600, 6, 600, 64
SCALE = 1.0  # log-sd of a gene's factor in the second domain
MARKERS, EFFECT, DEPTH = 0.2, 1.2, 1000  # share of the genes that a type changes, by which log-sd; molecules
SPECIES = {"first": "homo_sapiens", "second": "mus_musculus", "more": "homo_sapiens"}
LABELLED_CELLS, DRAWS = 5, 10
WAYS = ("source", "unlabelled", "joint", "amt2", "amt2-same")


def plant(folder: Path, random: np.random.Generator, *, rotated: float) -> dict[str, NDArray[np.int64]]:
    """Write gene tables, cells and their corpus; returns the type of every cell of each domain."""
    from uce.corpus.build import build_corpus
    from uce.corpus.layout import write_rows
    from uce.corpus.quality import SWITCHES, QualityRules
    from uce.genes.tables import GeneTable, write_table

    vectors = random.normal(size=(GENES, WIDTH))
    turn = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    turned = np.where(random.random(GENES)[:, None] < rotated, vectors @ turn, vectors)
    tables = Path(os.environ["UCE_HOME"]) / "genes" / "planted"
    tables.mkdir(parents=True)
    for species, shown in (("homo_sapiens", vectors), ("mus_musculus", turned)):
        table = GeneTable.from_rows(
            species=species,
            encoder="planted",
            ids=[f"ENSG{i:011d}" for i in range(GENES)],
            symbols=[f"GENE{i}" for i in range(GENES)],
            vectors=shown,
            chromosomes=[str(1 + i % 3) for i in range(GENES)],
            starts=np.arange(GENES) + 1,
        )
        write_table(table, tables / f"{species}.h5ad")
    base = random.normal(0, 1, GENES)
    types = random.normal(0, EFFECT, (TYPES, GENES)) * (random.random((TYPES, GENES)) < MARKERS)
    scale = {"first": np.zeros(GENES), "second": random.normal(0, SCALE, GENES)}
    scale["more"] = scale["first"]
    kinds, rows = {}, []
    for name, species in SPECIES.items():
        kind = random.integers(0, TYPES, CELLS)
        rates = np.exp(base + types[kind] + scale[name])
        depth = DEPTH * np.exp(random.normal(0, 0.5, (CELLS, 1)))
        counts = csr_matrix(random.poisson(depth * rates / rates.sum(axis=1, keepdims=True)).astype(np.float32))
        obs = pd.DataFrame({"cell_type": kind.astype(str)}, index=[f"c{i}" for i in range(CELLS)])
        var = pd.DataFrame(index=[f"GENE{i}" for i in range(GENES)])
        # Only the labels of the first domain are there to be read.
        anndata.AnnData(counts, obs=obs if name == "first" else obs[[]], var=var).write_h5ad(folder / f"{name}.h5ad")
        rows.append({"dataset": name, "file": f"{name}.h5ad", "species": species, "role": "train"})
        kinds[name] = kind
    write_rows(folder / "manifest.csv", rows)
    build_corpus(folder / "manifest.csv", folder / "corpus", encoder="planted", rules=QualityRules(off=SWITCHES))
    return kinds


def train(way: str, folder: Path, *, seed: int, alpha: float, longer: int) -> list[Path]:
    """The model folders of the phases of one way: 300 labelled updates, 300 x `longer` unlabelled ones, or both."""
    from uce.adaptation.phases import Phase, train_phases
    from uce.adaptation.recipes.amt2 import LABELLED, UNLABELLED, Amt2Settings, alternate
    from uce.cells.sentences import SentenceRule
    from uce.model.encoder import ModelConfig
    from uce.training.objectives.joint import JointSettings
    from uce.training.objectives.momentum import MomentumSettings
    from uce.training.objectives.supervised import SupervisedSettings
    from uce.training.settings import DataSettings, OptimizerSettings, PretrainConfig, RunSettings

    order, _, same = way.partition("-")
    unlabelled = "more" if same else "second"
    labels = SupervisedSettings(classes=tuple(map(str, range(TYPES))), cells=(CELLS // TYPES,) * TYPES)
    momentum = MomentumSettings(panel_least=0.1, fewest_genes=5, queue=1024, dim=32)
    shape = ModelConfig(
        layers=1, dim=64, heads=4, hidden=128, protein_dim=WIDTH, out_dim=64, decoder_dim=64, norm="post",
        activation="gelu", dropout=0.0, positions="none", readout="cls+mean", max_tokens=256,
    )  # fmt: skip

    def config(*used: str) -> PretrainConfig:
        others = tuple(name for name in SPECIES if name not in used)
        return PretrainConfig(
            data=DataSettings(corpus=str(folder / "corpus"), leave_out=others, balance=0.0, species_balance=1.0),
            model=shape, seed=seed, steps=300, batch_size=64, draws=96, late_draws=96, objective=labels,
            rule=SentenceRule(draws=192, max_tokens=256),
            optimizer=OptimizerSettings(lr=1e-3, warmup=10, weight_decay=0.0, final=0.1),
            run=RunSettings(workers=0, snapshot_every=1000, keep_snapshots=1),
        )  # fmt: skip

    first, others = config("first"), replace(config(unlabelled), objective=momentum)
    if order == "source":
        phases = [Phase(LABELLED, first)]
    elif order == "unlabelled":
        phases = [Phase(UNLABELLED, replace(others, steps=300 * longer))]
    elif order == "joint":
        both = JointSettings(with_labels=("first",), labelled=labels, unlabelled=momentum)
        phases = [Phase("joint", replace(config("first", unlabelled), steps=600, objective=both))]
    else:
        recipe = Amt2Settings(rounds=4, source_steps=100, unlabelled_steps=75 * longer, labelled_steps=50, alpha=alpha)
        phases = alternate(first, others, recipe)
        assert {phase.name for phase in phases} == {LABELLED, UNLABELLED}
    return train_phases(folder / f"{way}-{seed}", phases)


def judge(model: Path, folder: Path, kinds: NDArray[np.int64]) -> float:
    """Macro-F1 of types in the second domain from five labelled cells of each, mean of ten draws."""
    import uce
    from uce.evaluation.probes import fit_logistic
    from uce.evaluation.scores import classification_scores

    cells = anndata.read_h5ad(folder / "second.h5ad")
    uce.embed(cells, model=model, species="mus_musculus", quiet=True)
    vectors, labels, scores = cells.obsm["X_uce"], kinds.astype(np.str_), []
    for draw in range(DRAWS):
        random = np.random.default_rng((2, draw))
        rows = np.concatenate([random.permutation(np.flatnonzero(kinds == k))[:LABELLED_CELLS] for k in range(TYPES)])
        others = np.setdiff1d(np.arange(CELLS), rows)
        fitted = fit_logistic(vectors[rows], labels[rows], rows.astype(np.str_))
        scores.append(classification_scores(labels[others], fitted.votes(vectors[others]).labels)["macro_f1"])
    return float(np.mean(scores))


def recalls(models: list[Path]) -> dict[str, float]:
    """How well keys were found in the last logged updates that had any."""
    from uce.training.records import read_metrics

    lines = [line for model in models for line in read_metrics(model.parent)]
    found = [line for line in lines if "recall" in line]
    return {name: found[-1][name] for name in ("recall", "recall_chance")} if found else {}


def main() -> None:
    """Plant, train and judge once for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rotated", type=float, default=0.3, help="share of the genes whose vectors are turned")
    parser.add_argument("--alpha", type=float, default=10.0)
    parser.add_argument("--longer", type=int, default=1, help="times as many unlabelled updates (not of joint)")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["UCE_HOME"] = str(folder / "home")
        kinds = plant(folder, np.random.default_rng(options.seed), rotated=options.rotated)
        for way in options.ways:
            asked = {name: getattr(options, name) for name in ("seed", "alpha", "longer")}
            models = train(way, folder, **asked)
            asked["rotated"] = options.rotated
            line = {"way": way, **asked, "macro_f1": judge(models[-1], folder, kinds["second"]), **recalls(models)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

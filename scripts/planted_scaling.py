"""Do the statistics of `uce scaling` say what is true? Curves with a known truth, and a corpus with one.

    python scripts/planted_scaling.py [--repeats 500]      prints the table of planted curves
    python scripts/planted_scaling.py --corpus FOLDER      makes a planted corpus there, and runs two studies on it

The corpus: 400 human genes in 48 programmes of 12. Each of 16 training datasets draws three programmes anew, and its
cells run one of them each; six validation datasets draw 12 programmes. So another dataset brings programmes that were
not seen before, and more cells of one dataset bring nothing: with principal components that learn, the axis of datasets
must grow, and the axis of cells within one dataset must not.
"""

import argparse
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import yaml
from scipy.sparse import csr_matrix

from uce.corpus.build import build_corpus
from uce.corpus.quality import SWITCHES, QualityRules
from uce.evaluation.baselines.corpus_pca import orthogroups
from uce.genes.collection import load_gene_table
from uce.scaling.planted import planted_table
from uce.scaling.study import run_study

GENES, PROGRAMMES, OF_EACH = 400, 48, 12
TRAINING, DRAWN, CELLS, MANY = 16, 3, 96, 3072
VALIDATION, TYPES, OF_A_TYPE, DEPTH = 6, 12, 30, 600
SEEDS = 5


def main() -> None:
    """Print a table, or run both studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="studies of each planted curve (500)")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="run the planted corpus here instead")
    options = parser.parse_args()
    if options.corpus is None:
        print(planted_table(repeats=options.repeats))
        return
    plant(options.corpus)
    axes: dict[str, dict[str, object]] = {"datasets": {"sizes": 5}, "cells": {"sizes": 6, "only": ["many"]}}
    for axis, changes in axes.items():
        content = {
            "corpus": str(options.corpus / "corpus"),
            "axis": axis,
            "seeds": SEEDS,
            "learners": [{"name": "pca"}],
            **changes,
        }
        study = options.corpus / f"{axis}.yaml"
        study.write_text(yaml.safe_dump(content), encoding="utf-8")
        run_study(study, options.corpus / axis, quiet=True)
        curve = json.loads((options.corpus / axis / "verdict.json").read_text(encoding="utf-8"))["curves"][0]
        means = [round(float(np.mean(scores)), 3) for scores in np.transpose(curve["scores"])]
        print(f"{axis}: {curve['verdict']['word']} ({curve['verdict']['why']}); means {means}")


def plant(folder: Path) -> None:
    """Write the files and build the corpus; one that is there is brought up to date."""
    random = np.random.default_rng(0)
    table = load_gene_table("homo_sapiens")
    groups = orthogroups(table)
    _, first = np.unique(np.where(groups == "", "", groups), return_index=True)
    genes = table.ids[np.sort(first[groups[first] != ""])][:: max(1, len(first) // GENES)][:GENES]
    base = random.normal(0, 0.5, GENES)
    programmes = [random.choice(GENES, OF_EACH, replace=False) for _ in range(PROGRAMMES)]
    rows = []
    sizes = {"many": MANY} | {f"set{number}": CELLS for number in range(TRAINING - 1)}
    for name in [*sizes, *(f"judge{number}" for number in range(VALIDATION))]:
        training = name in sizes
        own = random.choice(PROGRAMMES, DRAWN if training else TYPES, replace=False)
        types = random.integers(0, len(own), sizes[name]) if training else np.repeat(np.arange(TYPES), OF_A_TYPE)
        rates = np.tile(base, (len(types), 1))
        for cell, kind in enumerate(types):
            rates[cell, programmes[own[kind]]] += 1.6
        shares = np.exp(rates) / np.exp(rates).sum(axis=1, keepdims=True)
        counts = csr_matrix(random.poisson(DEPTH * shares).astype(np.float32))
        obs = pd.DataFrame(
            {"cell_type": [f"programme {own[kind]}" for kind in types]}, index=np.arange(len(types)).astype(str)
        )
        folder.mkdir(parents=True, exist_ok=True)
        anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(folder / f"{name}.h5ad")
        split = "train" if training else "validation"
        rows.append({"dataset": name, "file": f"{name}.h5ad", "species": "human", "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    build_corpus(folder / "manifest.csv", folder / "corpus", rules=QualityRules(off=SWITCHES))


if __name__ == "__main__":
    main()

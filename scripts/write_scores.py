"""Write what a benchmark found into the card of the model that it judged; what decides the model's numbers stays.

    uce benchmark configs/benchmark_shared.yaml data=FOLDER -o benchmark
    python scripts/write_scores.py benchmark uce/data/models/uce-mini

Only data sets count that the model was not trained on, as its training manifest tells.
"""

import argparse
from pathlib import Path

import pandas as pd

from uce.corpus.training_manifest import TrainingManifest
from uce.evaluation.combine import Standing, standings
from uce.model.checkpoint import load_model, save_again
from uce.model.folders import TRAINED_ON

METRIC = "knn_macro_f1"
ROWS = ("untrained", "mean-genes", "corpus-pca", "pca")


def main() -> None:
    """Read the scores, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path, help="folder that `uce benchmark` wrote")
    parser.add_argument("model", type=Path, help="folder of the model that it judged")
    options = parser.parse_args()
    write_scores(options.benchmark, options.model)


def write_scores(benchmark: Path, folder: Path) -> None:
    """The mean of every row over the unseen sets, and in how many of them the model is ahead."""
    model = load_model(folder)
    table = pd.read_csv(benchmark / "results.tsv", sep="\t")
    unseen = table[table["seen"] == "clean"]
    rows = {row.embedding: row for row in standings(unseen, METRIC, model.name)}
    if model.name not in rows:
        raise SystemExit(f"{benchmark}: has no {METRIC} of {model.name} on a data set that it was not trained on.")
    sets = ", ".join(dict.fromkeys(unseen["dataset"]))
    metrics = {"score": f"macro-F1 of labels by nearest neighbours, mean over {sets}"}
    metrics[model.name] = f"{rows[model.name].mean:.3f}"
    metrics |= {name: _words(rows[name], model.name) for name in ROWS if name in rows}
    manifest = TrainingManifest.read(folder / TRAINED_ON)  # which saving anew would leave behind
    save_again(model, folder, info={**model.info, "metrics": metrics}, overwrite=True)
    manifest.write(folder / TRAINED_ON)


def _words(row: Standing, name: str) -> str:
    sets = row.wins + row.ties + row.losses
    return f"{row.mean:.3f} ({name} {row.difference:+.3f}, better in {row.wins} of {sets} sets)"


if __name__ == "__main__":
    main()

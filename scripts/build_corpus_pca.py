"""Fit the principal components that `uce eval` compares pretrained models with: uce/data/corpus_pca.npz.

    uce corpus build data_manifests/training_cells.csv --folder DATA -o CORPUS
    python scripts/build_corpus_pca.py --corpus CORPUS [--output uce/data/corpus_pca.npz]

Only cells of the training split are read. How they are fitted: `uce.evaluation.corpus_components`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from uce.evaluation.baselines.corpus_pca import CorpusPca
from uce.evaluation.corpus_components import Logs, fit, moments, read_logs
from uce.files import atomic_path
from uce.training.corpus import open_corpus
from uce.training.settings import DataSettings

__all__ = ["Logs", "fit", "moments", "read_logs", "save"]


def main() -> None:
    """Read the corpus, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by `uce corpus build`")
    parser.add_argument("--output", type=Path, default=Path("uce/data/corpus_pca.npz"))
    options = parser.parse_args()
    corpus = open_corpus(DataSettings(corpus=str(options.corpus), split="train"))
    fitted = fit([read_logs(dataset, corpus) for dataset in corpus.datasets], corpus.sha256)
    save(fitted, options.output)
    print(json.dumps(fitted.facts, indent=1))


def save(fitted: CorpusPca, path: Path) -> None:
    """Write the file that `load_corpus_pca` reads; it holds no pickle."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            groups=fitted.groups,
            mean=fitted.mean,
            axes=fitted.axes.astype(np.float16),
            facts=np.array(json.dumps(fitted.facts, sort_keys=True)),
        )


if __name__ == "__main__":
    main()

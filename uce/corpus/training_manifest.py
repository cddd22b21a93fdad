"""Who a model was trained on: datasets in words, cells as 64-bit hashes. It ships with the model and holds no counts.

manifest.json   datasets (with study, species, licence, cells), gene tables, SHA-256 of the other two
cells.npy       hashes of genes and counts, those of each dataset sorted, in the order of the datasets
near.npy        hashes of the highest genes alone, in the same form
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from uce.corpus.duplicates import Words
from uce.errors import InputError
from uce.files import atomic_path, sha256_file, write_json
from uce.model.folders import MANIFEST, TRAINED_ON

FORMAT, VERSION = "uce-training-manifest", 1
_INDEX, _CELLS, _NEAR = MANIFEST


@dataclass(frozen=True, eq=False)
class TrainingManifest:
    """The cells that weights have seen.

    Attributes
    ----------
    datasets
        dataset, species, study, licence, cells, ... of each.
    genes
        Species -> SHA-256 of the gene table, and of the genes of it (their words in order) that the hashes are over.
    cells, near
        Per dataset, sorted: `cell_hashes` and `top_gene_hashes`.
    corpora
        SHA-256 of the corpora that the datasets are from.
    lacking
        In words, what else was trained on that is not in here; "" where all is.
    """

    datasets: tuple[dict[str, Any], ...]
    genes: dict[str, dict[str, str]]
    cells: tuple[Words, ...]
    near: tuple[Words, ...]
    corpora: tuple[str, ...] = ()
    lacking: str = ""

    def write(self, folder: Path) -> None:
        """Write the three files, all or nothing; equal manifests give equal bytes.

        Raises
        ------
        StorageError
            The place cannot be written.
        """
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            for name, hashes in ((_CELLS, self.cells), (_NEAR, self.near)):
                np.save(temporary / name, np.concatenate([np.zeros(0, "<u8"), *hashes]).astype("<u8"))
            write_json(
                temporary / _INDEX,
                {
                    "format": FORMAT,
                    "version": VERSION,
                    "datasets": list(self.datasets),
                    "genes": self.genes,
                    "corpora": list(self.corpora),
                    "lacking": self.lacking,
                    "files": {name: sha256_file(temporary / name) for name in (_CELLS, _NEAR)},
                },
            )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest, by its folder, its `manifest.json`, or the folder of a model that has one.

        Raises
        ------
        InputError
            There is none, it is damaged, or a newer version wrote it.
        """
        index = _find(path)
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["version"] != VERSION:
                raise ValueError(content["version"])
            sizes = [int(dataset["cells"]) for dataset in content["datasets"]]
            cells, near = (_hashes(index.parent / name, content["files"][name], sizes) for name in (_CELLS, _NEAR))
            datasets = tuple(dict(dataset) for dataset in content["datasets"])
            genes = {str(name): dict(facts) for name, facts in content["genes"].items()}
            return cls(datasets, genes, cells, near, tuple(content["corpora"]), str(content["lacking"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError) as error:
            msg = (
                f"{index}: not a training manifest that can be read ({type(error).__name__}). Export the model again, "
                "or update uce."
            )
            raise InputError(msg) from error


def _find(path: Path) -> Path:
    """The index a path stands for."""
    for place in (path, path / _INDEX, path / TRAINED_ON / _INDEX):
        if place.is_file():
            return place
    msg = f"{path}: no training manifest there. Give the folder {TRAINED_ON} of a model, or its {_INDEX}."
    raise InputError(msg)


def _hashes(path: Path, sha256: str, sizes: list[int]) -> tuple[Words, ...]:
    if sha256_file(path) != sha256:
        raise ValueError(path.name)
    hashes = np.load(path, mmap_mode="r", allow_pickle=False)
    if hashes.dtype != np.dtype("<u8") or hashes.shape != (sum(sizes),):
        raise ValueError(path.name)
    return tuple(np.split(hashes, np.cumsum(sizes)[:-1])) if sizes else ()

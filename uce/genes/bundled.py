"""The bundled gene tables: every species refers to one shared matrix of orthogroup vectors.

They stand in for vectors of a protein language model. A group is anchored on one human gene; a gene has the weighted
mean of the groups it refers to, by the same rule in every species, so one-to-one orthologues share a vector.
`scripts/build_gene_tables.py` makes the files, `docs/results/gene_vectors.md` says what the vectors hold.
"""

import json
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from uce.errors import ModelError, UsageError
from uce.files import shorten
from uce.genes.catalogue import canonical_species
from uce.genes.kinds import BUNDLED_ENCODER
from uce.genes.tables import GeneTable
from uce.genes.vocabulary import chromosome_vector

GROUPS = "groups.npz"
# Position is the code in a species' file. "group", "groups": one or several human orthologues; "same-symbol": the human
# gene of the same name, no orthology known; "own-id": drawn from the id, says nothing about the gene.
ORIGINS = ("group", "groups", "same-symbol", "own-id")
_OWN_ID = ORIGINS.index("own-id")


def bundled_species() -> tuple[str, ...]:
    """Latin names of the species with a bundled table, sorted."""
    names = (entry.name for entry in _folder().iterdir() if entry.name.endswith(".npz") and entry.name != GROUPS)
    return tuple(sorted(name.removesuffix(".npz") for name in names))


def load_bundled(species: str) -> GeneTable:
    """The bundled gene table of a species, put together from its references and the shared matrix.

    Parameters
    ----------
    species
        Latin or common name, or taxonomy id.

    Returns
    -------
    A table with vectors of kind "orthogroups-v1", (genes, 256).

    Raises
    ------
    UsageError
        There is no bundled table of this species.
    ModelError
        The bundled files are damaged.
    """
    name = canonical_species(species)
    if name not in bundled_species():
        msg = f"no bundled gene table of {name}. Bundled: {shorten(list(bundled_species()), limit=20)}."
        raise UsageError(msg)
    content = _read(f"{name}.npz")
    try:
        return _assemble(name, content, _groups())
    except (KeyError, ValueError, IndexError) as error:
        msg = f"{name}.npz: the bundled gene table is damaged ({error}). Install uce again."
        raise ModelError(msg) from error


def reference_vectors(
    groups: NDArray[np.float32], counts: NDArray[np.int64], references: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weighted mean of the groups each gene refers to.

    Parameters
    ----------
    groups
        (groups, width) vectors.
    counts
        (genes,) number of groups of every gene.
    references, weights
        (sum of counts,) group and weight of every reference, gene by gene.

    Returns
    -------
    (genes, width) float32; zeros where a gene refers to none.
    """
    vectors = np.zeros((len(counts), groups.shape[1]), np.float32)
    if not len(references):
        return vectors
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    some = counts > 0
    totals = np.add.reduceat(weights, starts[some])
    sums = np.add.reduceat(groups[references] * weights[:, None], starts[some], axis=0)
    vectors[some] = sums / totals[:, None]
    return vectors


def own_id_vectors(species: str, ids: NDArray[np.str_], width: int) -> NDArray[np.float32]:
    """(genes, width) unit vectors that depend on nothing but species, gene id and width."""
    if not len(ids):
        return np.zeros((0, width), np.float32)
    drawn = np.stack([chromosome_vector(species, gene, width) for gene in ids.tolist()])
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _assemble(species: str, content: Mapping[str, Any], groups: NDArray[np.float32]) -> GeneTable:
    ids = _lines(content["ids"])
    counts = content["counts"].astype(np.int64)
    origins = content["origins"].astype(np.int64)
    vectors = reference_vectors(
        groups, counts, content["references"].astype(np.int64), content["weights"].astype(np.float32)
    )
    own = origins == _OWN_ID
    vectors[own] = own_id_vectors(species, ids[own], groups.shape[1])
    return GeneTable(
        species=species,
        encoder=BUNDLED_ENCODER,
        ids=ids,
        symbols=_lines(content["symbols"]),
        synonyms=_lines(content["synonyms"]),
        chromosomes=_lines(content["chromosome_names"])[content["chromosomes"]],
        starts=content["starts"].astype(np.int64),
        projected=content["projected"].astype(np.bool_),
        origins=np.array(ORIGINS)[origins],
        vectors=vectors,
        metadata=json.loads(str(content["facts"])),
    )


def _lines(text: NDArray[np.uint8]) -> NDArray[np.str_]:
    return np.array(text.tobytes().decode("utf-8").split("\n"), dtype=np.str_)


@cache
def _groups() -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = _read(GROUPS)["vectors"].astype(np.float32)
    return vectors


def _read(name: str) -> dict[str, Any]:
    try:
        stored = BytesIO(_folder().joinpath(name).read_bytes())
        with np.load(stored, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        msg = f"{name}: the bundled gene table cannot be read ({error}). Install uce again."
        raise ModelError(msg) from error


def _folder() -> Traversable:
    return files("uce").joinpath("data", "genes")

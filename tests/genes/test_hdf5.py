"""A small HDF5 file cannot make a reader take much memory or read other files."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from uce.errors import ModelError
from uce.genes.collection import load_gene_table
from uce.genes.hdf5 import refuse_traps
from uce.genes.tables import read_table, write_table


def checked(path: Path) -> None:
    with h5py.File(path) as file:
        refuse_traps(path, file)


def written(path: Path, write: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        write(file)
    return path


def packed(file: h5py.File) -> None:
    file.create_dataset("uns/big", (40_000, 1_000), "f8", compression="gzip", chunks=(1_000, 1_000))


@pytest.mark.parametrize(
    "write",
    [
        packed,
        lambda file: file.create_dataset("a/b/X", (1 << 40,), "f4", chunks=(1024,)),
        lambda file: file.create_dataset("X", (3_000_000,), h5py.string_dtype(), chunks=(1024,)),
        lambda file: file.create_dataset("X", (10_000, 1_000), "f4"),
    ],
    ids=["never filled, packed", "deep", "texts", "never filled"],
)
def test_a_dataset_that_claims_more_than_is_stored_or_read_is_refused(
    write: Callable[[h5py.File], object], tmp_path: Path
) -> None:
    path = written(tmp_path / "small.h5", write)
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match=r"small\.h5: \S+ claims the shape \(\d+, ?\d*\), more than"):
        checked(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.__setitem__("group/X", h5py.ExternalLink("other.h5", "X")),
        lambda file: file.__setitem__("group/X", h5py.SoftLink("/elsewhere")),
        lambda file: file.create_group("group").create_dataset("X", (10,), "f4", external=[("other", 0, 40)]),
        lambda file: file.create_virtual_dataset("group/X", h5py.VirtualLayout((10,), "f4")),
    ],
    ids=["external link", "soft link", "external data", "virtual"],
)
def test_content_that_is_elsewhere_is_refused(write: Callable[[h5py.File], object], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"small\.h5: group/X points at other files"):
        checked(written(tmp_path / "small.h5", write))


def test_whatever_packs_well_is_read(tmp_path: Path) -> None:
    zeros = np.zeros((5_000, 2_000))
    checked(written(tmp_path / "z.h5", lambda file: file.create_dataset("X", data=zeros, compression="gzip")))
    checked(written(tmp_path / "e.h5", lambda file: file.create_dataset("X", data=h5py.Empty("f4"))))


def test_a_gene_table_passes_and_one_with_a_trap_anywhere_is_refused(tmp_path: Path) -> None:
    table = load_gene_table("human")
    path = tmp_path / "human.h5ad"
    write_table(table, path)
    assert read_table(path).sha256 == table.sha256
    with h5py.File(path, "a") as file:
        packed(file)
    with pytest.raises(ModelError, match=r"human\.h5ad: uns/big claims the shape \(40000, 1000\)"):
        read_table(path)

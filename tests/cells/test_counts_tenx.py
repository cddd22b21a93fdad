"""10x output of every version gives the counts that went in."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse
from scipy.io import mmwrite

from uce.cells.counts import open_counts
from uce.errors import InputError, UsageError


def write_group(group: h5py.Group, counts: np.ndarray, features: dict[str, list[str]], *, legacy: bool = False) -> None:
    """Write cells by genes the way Cell Ranger does, as columns of features by cells."""
    columns = sparse.csc_matrix(counts.T.astype("int32"))
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(columns, part)
    group["shape"] = np.array(columns.shape, "int32")
    group["barcodes"] = np.array([f"CELL{i}-1" for i in range(len(counts))], dtype="S18")
    target = group if legacy else group.create_group("features")
    for name, values in features.items():
        target[name] = np.array(values, dtype="S64")


def features_of(n: int, **more: list[str]) -> dict[str, list[str]]:
    return {
        "id": [f"ENSG{i:011d}" for i in range(n)],
        "name": [f"SYM{i}" for i in range(n)],
        "feature_type": ["Gene Expression"] * n,
        "genome": ["GRCh38"] * n,
        **more,
    }


def test_cell_ranger_3_files_are_read(simulated: Callable, tmp_path: Path) -> None:
    counts = simulated(9, 5)
    with h5py.File(tmp_path / "v3.h5", "w") as file:
        write_group(file.create_group("matrix"), counts, features_of(5))
        file.create_group("droplet_latents")  # as CellBender adds
    with open_counts(tmp_path / "v3.h5") as opened:
        assert (opened.kind, opened.slot, opened.n_cells) == ("10x-h5", "matrix", 9)
        assert opened.var.index[4] == "ENSG00000000004"
        assert opened.var["gene_name"].tolist() == ["SYM0", "SYM1", "SYM2", "SYM3", "SYM4"]
        assert opened.obs_names[8] == "CELL8-1"
        np.testing.assert_array_equal(opened.read(0, 9).toarray(), counts)
        with pytest.raises(UsageError, match="has one matrix and no layers"):
            open_counts(tmp_path / "v3.h5", layer="X")


def test_antibodies_and_peaks_are_left_out(simulated: Callable, tmp_path: Path) -> None:
    counts = simulated(9, 5)
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression", "Peaks", "Gene Expression"]
    with h5py.File(tmp_path / "multi.h5", "w") as file:
        write_group(file.create_group("matrix"), counts, features_of(5, feature_type=kinds))
    with open_counts(tmp_path / "multi.h5") as opened:
        np.testing.assert_array_equal(opened.read(2, 9).toarray(), counts[2:, [0, 2, 4]])
        assert any("1 Antibody Capture, 1 Peaks" in note for note in opened.notes)


def test_probes_are_summed_into_their_genes(simulated: Callable, tmp_path: Path) -> None:
    counts = simulated(9, 5)
    probes = features_of(5, id=[f"probe|{i}" for i in range(5)], gene_id=["B", "A", "B", "C", "A"])
    with h5py.File(tmp_path / "probes.h5", "w") as file:
        write_group(file.create_group("matrix"), counts, probes)
    with open_counts(tmp_path / "probes.h5") as opened:
        assert opened.var.index.tolist() == ["A", "B", "C"]
        expected = np.stack([counts[:, 1] + counts[:, 4], counts[:, 0] + counts[:, 2], counts[:, 3]], axis=1)
        np.testing.assert_array_equal(opened.read(0, 9).toarray(), expected)
        assert any("5 probes summed into 3 genes" in note for note in opened.notes)


def test_one_genome_of_several_can_be_chosen(simulated: Callable, tmp_path: Path) -> None:
    counts = simulated(9, 5)
    with h5py.File(tmp_path / "v3.h5", "w") as file:
        write_group(file.create_group("matrix"), counts, features_of(5, genome=["hs", "mm", "hs", "mm", "mm"]))
    with h5py.File(tmp_path / "v2.h5", "w") as file:
        for genome in ("hs", "mm"):
            columns = [0, 2] if genome == "hs" else [1, 3, 4]
            names = {"genes": [f"{genome}{i}" for i in columns], "gene_names": [f"S{i}" for i in columns]}
            write_group(file.create_group(genome), counts[:, columns], names, legacy=True)
    for name in ("v2.h5", "v3.h5"):
        with open_counts(tmp_path / name, genome="mm") as opened:
            np.testing.assert_array_equal(opened.read(0, 9).toarray(), counts[:, [1, 3, 4]])
        with pytest.raises(UsageError, match="no genome 'rat'; there are hs, mm"):
            open_counts(tmp_path / name, genome="rat")
    with pytest.raises(UsageError, match=r"holds 2 genomes \(hs, mm\); choose one with --genome"):
        open_counts(tmp_path / "v2.h5")


def write_folder(folder: Path, counts: np.ndarray, **options: Any) -> Path:
    """A folder as Cell Ranger writes it; options: zipped, legacy, prefix, transposed, shuffled, field."""
    folder.mkdir()
    matrix = sparse.coo_matrix(counts if options.get("transposed") else counts.T)
    if options.get("shuffled"):
        order = np.random.default_rng(0).permutation(matrix.nnz)
        matrix = sparse.coo_matrix((matrix.data[order], (matrix.row[order], matrix.col[order])), matrix.shape)
    files = {"barcodes.tsv": "".join(f"CELL{i}\n" for i in range(len(counts)))}
    if options.get("legacy"):
        files["genes.tsv"] = "".join(f"ENSG{i:011d}\tSYM{i}\n" for i in range(counts.shape[1]))
    else:
        files["features.tsv"] = "".join(f"ENSG{i:011d}\tSYM{i}\tGene Expression\n" for i in range(counts.shape[1]))
    mmwrite(folder / "matrix.mtx", matrix, comment="a remark", field=options.get("field", "integer"))
    files["matrix.mtx"] = (folder / "matrix.mtx").read_text()
    (folder / "matrix.mtx").unlink()
    for name, text in files.items():
        path = folder / (options.get("prefix", "") + name)
        if options.get("zipped"):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        else:
            path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"zipped": True},
        {"legacy": True},
        {},
        {"zipped": True, "prefix": "GSM123_"},
        {"transposed": True},
        {"shuffled": True},
        {"field": "real"},
    ],
)
def test_folders_of_every_version_are_read(options: dict[str, Any], simulated: Callable, tmp_path: Path) -> None:
    counts = simulated(9, 5)
    folder = write_folder(tmp_path / "folder", counts, **options)
    with open_counts(folder) as opened:
        assert (opened.kind, opened.n_cells) == ("10x-folder", 9)
        assert opened.var["gene_name"].tolist()[4] == "SYM4"
        assert opened.obs_names.tolist()[8] == "CELL8"
        np.testing.assert_array_equal(opened.read(0, 4).toarray(), counts[:4])
        np.testing.assert_array_equal(opened.read(4, 9).toarray(), counts[4:])


def test_a_matrix_of_places_alone_counts_one_each(simulated: Callable, tmp_path: Path) -> None:
    counts = np.minimum(simulated(9, 5), 1)
    folder = write_folder(tmp_path / "folder", counts, field="pattern")
    with open_counts(folder) as opened:
        np.testing.assert_array_equal(opened.read(0, 9).toarray(), counts)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "barcodes.tsv",
            lambda t: t.rsplit("\n", 2)[0] + "\n",
            r"5 x 9, but .* 5 features and 8 barcodes",
        ),
        (
            "matrix.mtx",
            lambda t: t.rsplit("\n", 2)[0] + "\n",
            r"\d+ entries, \d+ announced; an incomplete",
        ),
        (
            "matrix.mtx",
            lambda t: t.replace("\n1 1 ", "\n77 1 ", 1),
            r"feature 77 where there are 5",
        ),
        (
            "matrix.mtx",
            lambda t: t.replace("\n1 1 ", "\n1 0 ", 1),
            r"cell 0 where there are 9",
        ),
        ("matrix.mtx", lambda t: t.replace("\n1 1 ", "\n1 x ", 1), r"matrix\.mtx: cannot be read"),
        (
            "matrix.mtx",
            lambda t: t.replace("coordinate", "array", 1),
            "MatrixMarket coordinate matrix is needed",
        ),
        (
            "matrix.mtx",
            lambda t: t.replace("general", "symmetric", 1),
            "MatrixMarket coordinate matrix is needed",
        ),
        (
            "matrix.mtx",
            lambda t: t.replace("\n5 9 ", "\n5 nine ", 1),
            "where rows, columns and entries",
        ),
    ],
)
def test_a_damaged_folder_is_refused(
    name: str, change: Callable[[str], str], message: str, simulated: Callable, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "folder", simulated(9, 5))
    before = (folder / name).read_text()
    (folder / name).write_text(change(before))
    assert (folder / name).read_text() != before
    with pytest.raises(InputError, match=message):
        open_counts(folder)


def test_a_folder_with_a_part_missing_says_which(simulated: Callable, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", simulated(9, 5))
    (folder / "features.tsv").unlink()
    with pytest.raises(InputError, match=r"no features\.tsv or genes\.tsv \(plain or \.gz\) beside the matrix"):
        open_counts(folder)


def test_a_cut_gzip_is_an_incomplete_download(simulated: Callable, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", simulated(90, 50), zipped=True)
    whole = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"matrix\.mtx\.gz: cannot be read .*damaged or incomplete, fetch it again"):
        open_counts(folder)


def test_real_10x_output_gives_the_same_in_both_forms(shared: Path) -> None:
    inputs = shared / "data" / "inputs"
    with open_counts(inputs / "10x_v3.h5") as file, open_counts(inputs / "10x_v3_folder") as folder:
        assert file.var.index.tolist() == folder.var.index.tolist()
        assert file.obs_names.tolist() == folder.obs_names.tolist()
        block = file.read(0, file.n_cells)
        assert block.nnz == 23_866
        assert (block != folder.read(0, folder.n_cells)).nnz == 0

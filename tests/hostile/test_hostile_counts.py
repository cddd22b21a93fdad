"""Broken, misleading and malicious files: each is refused with one clear sentence, or read as what it is."""

import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse

from uce.cells.counts import open_counts
from uce.errors import InputError, UceError, UsageError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning"),
]


def some_counts() -> np.ndarray:
    counts = np.random.default_rng(0).poisson(1.0, (20, 7))
    counts[:, 0] = np.arange(1, 21)
    return counts


def some_cells(matrix: Any = None) -> ad.AnnData:
    adata = ad.AnnData(sparse.csr_matrix(some_counts().astype("float32")) if matrix is None else matrix)
    adata.obs_names = [f"cell{i}" for i in range(adata.n_obs)]
    adata.var_names = [f"gene{i}" for i in range(adata.n_vars)]
    return adata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound .h5ad of 20 cells and 7 genes, for a test to break."""
    some_cells().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def replace(path: Path, element: str, values: Any, **options: Any) -> None:
    """Put another array in the place of an element, attributes kept."""
    with h5py.File(path, "a") as file:
        attributes = dict(file[element].attrs) if element in file else {}
        if element in file:
            del file[element]
        file.create_dataset(element, data=values, **options).attrs.update(attributes)


def refused(source: Any, message: str, *, error: type[UceError] = InputError, **options: Any) -> None:
    """Opening or reading fails with this message, in one line, naming the file."""
    with pytest.raises(error, match=message) as caught, open_counts(source, **options) as counts:
        counts.read(0, counts.n_cells)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(source) if isinstance(source, Path) else "AnnData object")


# 1 to 3: not there, a folder, another kind of file


def test_01_a_missing_file_is_named_with_the_nearest_one(path: Path) -> None:
    refused(path.with_name("cels.h5ad"), r"no such file\. Did you mean cells\.h5ad\?")
    refused(path.parent / "nowhere" / "cells.h5ad", "no such file")


def test_02_a_folder_that_is_neither_10x_nor_zarr_says_what_is_in_it(path: Path) -> None:
    refused(path.parent, r"neither matrix\.mtx\[\.gz\] \(10x\) nor .* it holds cells\.h5ad")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"gene,cell1,cell2\nA,1,2\n", "a table of text"),
        (b"\xef\xbb\xbfgene\tcell1\nA\t1\n", "a table of text"),
        (b"some words\n", "a text file"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"RDX3\nX\n\x00\x00", "an R data file"),
        (gzip.compress(b"X\n\x00\x00\x00\x03", mtime=0), "an R data file"),
        (gzip.compress(b"gene,cell1\nA,1\n", mtime=0), "a table of text .*, compressed"),
        (gzip.compress(b"\x89HDF\r\n\x1a\n" + b"\x00" * 64, mtime=0), "a gzip archive; unpack it first"),
        (b"\x1f\x8b broken", "a damaged gzip archive"),
        (b"PAR1....", "a Parquet table"),
        (b"\x80\x04\x95junk", "a Python pickle"),
        (b"\x93NUMPY\x01", "a NumPy array"),
        (b"%%MatrixMarket matrix coordinate integer general\n", "a bare matrix without names"),
        (b"\x00\x01\x02\x03" * 40, "of an unknown kind, or damaged at its beginning"),
    ],
)
def test_03_another_kind_of_file_is_told_by_its_first_bytes(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    path.write_bytes(content)
    refused(path, message)


def test_03_archives_are_to_be_unpacked_first(path: Path) -> None:
    packed = Path(shutil.make_archive(str(path.parent / "folder"), "gztar", path.parent, "cells.h5ad"))
    refused(packed, r"a packed folder \(tar\.gz\); unpack it first with: tar xzf")
    with zipfile.ZipFile(path.parent / "cells.zip", "w") as archive:
        archive.write(path, "cells.h5ad")
    refused(path.parent / "cells.zip", "a zip archive without zarr in it")


# 4 to 8: HDF5, but damaged or not AnnData


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_04_a_truncated_file_gives_both_sizes(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, rf"{int(len(whole) * share)} of {len(whole)} bytes are there; an incomplete download")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (["matrix", "row_attrs/Gene", "col_attrs/CellID"], "a loom file; convert it with"),
        (["assays/RNA/counts", "cell.names"], "an h5Seurat file; convert it with"),
        (["barcode_idx", "umi", "feature_idx", "barcodes"], "a 10x molecule_info file"),
        (["mod/rna/X", "mod/atac/X", "obs/_index", "var/_index"], r"\.h5mu of several modalities \(atac, rna\)"),
        (["model/weights"], "no AnnData and no 10x matrix in it; at its top are model"),
        ([], "at its top are no elements"),
    ],
)
def test_05_other_hdf5_files_are_called_by_their_name(elements: list[str], message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        for element in elements:
            file[element] = np.ones((2, 2))
    refused(tmp_path / "other.h5ad", message)


def test_06_a_file_without_any_matrix_names_the_layers_there_are(tmp_path: Path) -> None:
    adata = some_cells()
    adata.layers["spliced"] = adata.X.copy()
    adata.X = None
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for source in (adata, tmp_path / "cells.h5ad"):
        refused(source, r"no matrix that could hold counts .* Its layers are .*spliced; name one with --layer")


def test_07_an_unknown_encoding_names_the_element_and_missing_encodings_do_not_matter(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for key in list(file.attrs):
            del file.attrs[key]
    with open_counts(path) as counts:
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), some_counts())
    with h5py.File(path, "a") as file:
        file["X"].attrs["encoding-type"] = "csr_matrix_of_the_future"
    refused(path, "X has the unknown encoding 'csr_matrix_of_the_future'")


def test_07_a_sparse_matrix_without_a_shape_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["X"].attrs["shape"]
    refused(path, "X does not state its shape")


# 9 to 13: sparse matrices that point outside themselves


@pytest.mark.parametrize("wrong", [7, 999, -1, 2**31 - 1])
@pytest.mark.parametrize("place", [0, -1])
def test_09_10_column_indices_outside_the_matrix_are_refused(path: Path, wrong: int, place: int) -> None:
    with h5py.File(path, "a") as file:
        indices = file["X/indices"][:]
        indices[place] = wrong
        file["X/indices"][:] = indices
    refused(path, f"rows .*: column index {wrong} in a matrix of 7 genes")


def test_09_in_memory_too(path: Path) -> None:
    for layout in (sparse.csr_matrix, sparse.csc_matrix):
        adata = some_cells(layout(some_counts()))
        adata.X.indices[3] = 999
        refused(adata, "column index 999 in a matrix of")


def test_09_row_indices_of_a_matrix_by_columns_are_checked(tmp_path: Path) -> None:
    some_cells(sparse.csc_matrix(some_counts())).write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        file["X/indices"][5] = 20
    refused(tmp_path / "cells.h5ad", "index 20 in a matrix of 20")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: np.concatenate([[1], p[1:]]), "row pointers start at 1 instead of 0"),
        (lambda p: np.concatenate([p[:5], [p[5] + 60], p[6:]]), "row pointers decrease at row 6"),
        (lambda p: p[:-2], "19 row pointers, 21 needed"),
        (lambda p: np.concatenate([p[:-1], [p[-1] - 1]]), "the last row pointer is"),
        (lambda p: np.concatenate([p[:-1], [p[-1] + 5]]), "the last row pointer is"),
        (lambda p: np.concatenate([p[:3], [-4], p[4:]]), "row pointers decrease at row 3"),
        (lambda p: p[:0], "0 row pointers, 21 needed"),
    ],
)
def test_11_row_pointers_that_do_not_rise_to_the_end_are_refused(path: Path, spoil: Callable, message: str) -> None:
    with h5py.File(path) as file:
        indptr = file["X/indptr"][:]
    replace(path, "X/indptr", spoil(indptr))
    refused(path, message)


def test_12_values_and_indices_of_different_length_are_refused(path: Path) -> None:
    with h5py.File(path) as file:
        data = file["X/data"][:]
    replace(path, "X/data", data[:-3])
    refused(path, rf"{data.size - 3} values but {data.size} column indices")


def test_12_a_missing_vector_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["X/indices"]
    refused(path, "no element X/indices")


def test_13_unsorted_repeated_and_zero_entries_are_mended(path: Path) -> None:
    with h5py.File(path, "a") as file:
        indptr, data, indices = (file[f"X/{part}"][:] for part in ("indptr", "data", "indices"))
        first = slice(indptr[0], indptr[1])
        file["X/indices"][first] = indices[first][::-1]
        file["X/data"][first] = data[first][::-1]
        last = indptr[-2]
        file["X/data"][last] = 0
    with open_counts(path) as counts:
        expected = some_counts()
        expected[19, indices[last]] = 0
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), expected)
        assert counts.repairs["zeros"] == 1


# 14 to 18: files that would exhaust memory or lead elsewhere


@pytest.mark.parametrize("shape", [(10**12, 7), (20, 10**12), (10**12, 10**6), (21, 7)])
def test_14_a_declared_shape_that_does_not_fit_is_refused_before_allocating(path: Path, shape: tuple[int, int]) -> None:
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = np.array(shape)
    refused(path, rf"X has shape \({shape[0]}, {shape[1]}\), but there are 20 cells in obs and 7 genes in var")


@pytest.mark.parametrize("element", ["X/data", "X/indptr", "obs/_index", "var/_index"])
def test_15_a_bomb_of_unwritten_chunks_is_refused(path: Path, element: str) -> None:
    with h5py.File(path, "a") as file:
        dtype = file[element].dtype
        attributes = dict(file[element].attrs)
        del file[element]
        file.create_dataset(element, shape=(10**12,), chunks=(10**6,), dtype=dtype).attrs.update(attributes)
    refused(path, rf"{element} claims .* GB in a file of \d+ bytes; refused")


def test_15_a_dense_bomb_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", shape=(10**9, 10**5), chunks=(1000, 1000), dtype="f4")
    refused(path, "X claims 4e\\+05 GB in a file of")


@pytest.mark.parametrize("element", ["X", "X/data", "obs", "layers/counts"])
def test_16_links_into_other_files_are_refused(path: Path, element: str) -> None:
    other = path.with_name("other.h5ad")
    shutil.copy(path, other)
    with h5py.File(path, "a") as file:
        if element in file:
            del file[element]
        file[element] = h5py.ExternalLink(str(other), element if element != "layers/counts" else "X")
    refused(path, rf"{element} is a link into another file")


def test_16_links_to_links_into_other_files_are_refused(path: Path) -> None:
    shutil.copy(path, path.with_name("other.h5ad"))
    with h5py.File(path, "a") as file:
        del file["X"]
        file["elsewhere"] = h5py.ExternalLink("other.h5ad", "X")
        file["X"] = h5py.SoftLink("/elsewhere")
    refused(path, "is a link into another file")


def test_16_links_within_the_file_are_followed_but_not_in_circles(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.move("X", "kept")
        file["X"] = h5py.SoftLink("/kept")
    with open_counts(path) as counts:
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), some_counts())
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = h5py.SoftLink("/Y")
        file["Y"] = h5py.SoftLink("/X")
    refused(path, "the links at .* run in a circle")


def test_16_virtual_and_external_storage_are_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        size, dtype = file["X/data"].shape, file["X/data"].dtype
        del file["X/data"]
        layout = h5py.VirtualLayout(shape=size, dtype=dtype)
        layout[:] = h5py.VirtualSource("missing.h5", "data", shape=size)
        file.create_virtual_dataset("X/data", layout)
    refused(path, "X/data keeps its values in other files; refused")
    with h5py.File(path, "a") as file:
        del file["X/data"]
        file.create_dataset("X/data", shape=size, dtype=dtype, external=[(str(path.with_name("raw")), 0, 10**6)])
    refused(path, "X/data keeps its values in other files; refused")


def test_17_a_missing_compression_filter_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path) as file:
        data = file["X/data"][:]
    replace(path, "X/data", data, compression="gzip")
    available = h5py.h5z.filter_avail
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != 1 and available(code))
    monkeypatch.setitem(__import__("uce.cells.stores").cells.stores.FILTERS, 1, "Zstandard")
    refused(
        path, r"X/data is compressed with HDF5 filter 1 \(Zstandard\), which is not installed; pip install hdf5plugin"
    )


@pytest.mark.parametrize("table", ["obs", "var"])
def test_18_tables_of_another_length_are_refused_with_the_numbers(path: Path, table: str) -> None:
    replace(path, f"{table}/_index", np.array(["a", "b", "c"], dtype=object))
    cells, genes = (3, 7) if table == "obs" else (20, 3)
    refused(path, rf"X has shape \(20, 7\), but there are {cells} cells in obs and {genes} genes in var")


def test_18_a_table_without_names_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["obs/_index"]
    refused(path, "no table obs with an index")


# 19 to 28: values that are no counts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((20, 7), "three", dtype=object), r"values of type object, whole numbers needed"),
        (np.ones((20, 7), dtype=complex), r"values of type complex128, whole numbers needed"),
        (np.ones((20, 7), dtype=bool), "true and false instead of counts"),
    ],
)
def test_19_20_values_of_another_type_are_refused(path: Path, values: np.ndarray, message: str) -> None:
    replace(path, "X", values, **({"dtype": h5py.string_dtype()} if values.dtype == object else {}))
    with h5py.File(path, "a") as file:
        file["X"].attrs.clear()
    refused(path, message)


def test_19_dates_in_memory_are_refused() -> None:
    adata = some_cells()
    adata.layers["counts"] = np.zeros((20, 7), dtype="datetime64[s]")
    refused(adata, r"values of type datetime64\[s\], whole numbers needed")


def test_20_true_and_false_are_taken_when_asked() -> None:
    adata = some_cells(sparse.csr_matrix(some_counts() > 0))
    with open_counts(adata, policy="as-is") as counts:
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), some_counts() > 0)


@pytest.mark.parametrize(("dtype", "limit"), [("uint8", 255), ("uint16", 65535)])
def test_21_values_at_the_limit_of_a_small_type_are_remarked(dtype: str, limit: int) -> None:
    values = some_counts()
    values[:3, 1] = limit
    with open_counts(some_cells(values.astype(dtype))) as counts:
        assert any(f"3 sampled cells reach {limit}, the limit of {dtype}: clipped?" in note for note in counts.notes)


def test_22_half_precision_beyond_its_whole_numbers_is_remarked(path: Path) -> None:
    with h5py.File(path) as file:
        data = file["X/data"][:]
    data[:3] = 4096
    replace(path, "X/data", data.astype("float16"))
    with open_counts(path) as counts:
        assert counts.read(0, 20).data.max() == 4096
        assert any("float16 holds whole numbers exactly only to 2048" in note for note in counts.notes)


def test_23_totals_beyond_32_bits_are_exact() -> None:
    adata = some_cells(sparse.csr_matrix(np.full((20, 7), 2**31 - 1, dtype="int32")))
    with open_counts(adata) as counts:
        assert counts.read(0, 20).sum(axis=1)[3, 0] == 7 * (2**31 - 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_24_missing_and_infinite_values_are_refused(path: Path, value: float) -> None:
    with h5py.File(path, "a") as file:
        file["X/data"][4] = value
    for policy in ("strict", "invert", "round", "as-is"):
        refused(path, "X: 1 missing or infinite values", policy=policy)


def test_25_scaled_data_is_refused_with_every_slot_that_was_tried() -> None:
    rng = np.random.default_rng(0)
    adata = some_cells(rng.normal(size=(20, 7)))
    adata.layers["counts"] = rng.uniform(1, 900, (20, 7))
    adata.raw = some_cells(rng.gamma(2, 1, (20, 7)))
    message = r"layers/counts: fractional .*; raw: log-like .*; X: negative values .*Give the raw counts, in"
    for policy in ("strict", "invert"):
        refused(adata, message, policy=policy)
    refused(some_cells(rng.normal(size=(20, 7))), "negative values", policy="as-is")


@pytest.mark.parametrize("total", [1e6, 1e5])
def test_27_normalised_data_without_logarithm_is_refused(total: float) -> None:
    counts = some_counts()
    adata = some_cells(counts / counts.sum(1, keepdims=True) * total)
    refused(adata, "X: fractional values .*as in CPM, TPM")


def test_26_a_logarithm_that_cannot_be_undone_gives_the_largest_miss() -> None:
    adata = some_cells(np.log1p(np.random.default_rng(0).gamma(2, 9, (20, 7))))
    refused(adata, r"X: log-like values .* cannot be undone exactly \(best try, .*, largest miss 0\.\d+ counts\)")


def test_27_normalised_data_rounded_to_whole_numbers_is_remarked() -> None:
    adata = some_cells(np.random.default_rng(0).multinomial(10_000, np.full(7, 1 / 7), 20))
    with open_counts(adata) as counts:
        assert any("every cell has the same total (10000)" in note for note in counts.notes)


def test_28_peaks_are_not_genes(tmp_path: Path) -> None:
    adata = some_cells()
    adata.var_names = [f"chr{i + 1}:{1000 * i + 100}-{1000 * i + 900}" for i in range(7)]
    refused(adata, r"not a gene matrix: its features are regions such as chr1:100-900")
    adata = some_cells()
    adata.var["feature_types"] = "Peaks"
    refused(adata, "no gene expression in it; its features are Peaks")


# 29 to 38: nothing, and names


def test_29_30_no_genes_and_no_counts_are_errors(tmp_path: Path) -> None:
    some_cells(sparse.csr_matrix((20, 0))).write_h5ad(tmp_path / "genes.h5ad")
    refused(tmp_path / "genes.h5ad", "no genes in the table var")
    some_cells(sparse.csr_matrix((20, 7))).write_h5ad(tmp_path / "zeros.h5ad")
    refused(tmp_path / "zeros.h5ad", "X: no value above zero")


def test_34_35_repeated_names_are_kept_by_position(tmp_path: Path) -> None:
    adata = some_cells()
    adata.obs_names = ["same"] * 20
    adata.var_names = ["gene"] * 7
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with open_counts(tmp_path / "cells.h5ad") as counts:
        assert counts.obs_names.tolist() == ["same"] * 20
        assert counts.var.index.tolist() == ["gene"] * 7
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), some_counts())


def test_36_names_of_any_letters_come_back_unchanged(tmp_path: Path) -> None:
    odd = ["é ü", "a\nb", "“q”", "\u05d0\u05d1", "🧬", "a'b\"c", "\x1b[31mred", "end "]
    adata = some_cells()
    adata.obs_names = [*odd, *(f"c{i}" for i in range(12))]
    folder = tmp_path / "a folder 🧬 é"
    folder.mkdir()
    adata.write_h5ad(folder / "cells 'of' mine.h5ad")
    with open_counts(folder / "cells 'of' mine.h5ad") as counts:
        assert counts.obs_names.tolist()[:8] == odd


def test_36_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    adata = some_cells(np.full((20, 7), -0.5))
    adata.layers["\x1b[31m\nlayer"] = adata.X
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(UsageError, match="no layer 'other'") as caught:
        open_counts(tmp_path / "cells.h5ad", layer="other")
    assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="no such file") as caught:
        open_counts(tmp_path / "\x1b[31mcells.h5ad")
    assert str(caught.value).isprintable()


def test_36_a_name_of_a_megabyte_is_refused(path: Path) -> None:
    replace(path, "obs/_index", np.array(["x" * 2**20, *(f"c{i}" for i in range(19))], dtype=object))
    refused(path, "a name of 1048576 characters")


def test_36_bytes_that_are_not_utf8_are_read_as_latin_1(path: Path) -> None:
    replace(path, "obs/_index", np.array([b"caf\xe9", *(b"c%d" % i for i in range(19))]))
    with open_counts(path) as counts:
        assert counts.obs_names[0] == "café"


def test_38_a_category_that_does_not_exist_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        group = file.create_group("obs/label")
        group.attrs["encoding-type"] = "categorical"
        group["codes"] = np.r_[np.full(19, -1), 5].astype("int8")
        group["categories"] = np.array([b"a", b"b"])
    with (
        open_counts(path) as counts,
        pytest.raises(InputError, match="obs/label refers to a category that does not exist"),
    ):
        counts.obs_column("label")
    replace(path, "obs/label/codes", np.r_[np.full(19, -1), 1].astype("int8"))
    with open_counts(path) as counts:
        assert counts.obs_column("label").tolist() == ["unknown"] * 19 + ["b"]


# 47, 52, 59, 61: in use, addresses, missing pieces, size


def test_47_a_file_open_for_writing_elsewhere_is_said_so(path: Path) -> None:
    with h5py.File(path, "a"), open_counts(path) as counts:
        # The same process may read on; another one gets a lock error, which opening without locks answers.
        assert counts.n_cells == 20


def test_47_a_disk_without_locks_is_read_without_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = h5py.File

    def locked(name: Any, mode: str = "r", **options: Any) -> h5py.File:
        if options.get("locking") is not False:
            raise BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11)")
        return opening(name, mode, **options)

    monkeypatch.setattr("uce.cells.stores.h5py.File", locked)
    with open_counts(path) as counts:
        assert any("without a file lock" in note for note in counts.notes)
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), some_counts())


def test_52_an_address_is_not_a_path() -> None:
    with pytest.raises(InputError, match="an address on the network; download the file first"):
        open_counts("https://example.org/cells.h5ad")


def zarr_cells(folder: Path) -> Path:
    import zarr

    some_cells().write_zarr(folder / "cells.zarr")
    root = zarr.open_group(str(folder / "cells.zarr"), mode="a")
    for part in ("data", "indices"):
        values = root[f"X/{part}"][:]
        del root[f"X/{part}"]
        root["X"].create_array(part, shape=values.shape, dtype=values.dtype, chunks=(25,))[:] = values
    return folder / "cells.zarr"


@pytest.mark.parametrize("part", ["data", "indices"])
def test_59_a_zarr_chunk_that_is_missing_does_not_read_as_zeros(part: str, tmp_path: Path) -> None:
    path = zarr_cells(tmp_path)
    with open_counts(path) as counts:
        np.testing.assert_array_equal(counts.read(0, 20).toarray(), some_counts())
    (path / "X" / part / "1").unlink()
    refused(path, rf"X/{part} has \d of \d chunks; an incomplete copy")


def test_59_a_damaged_zarr_chunk_is_refused(tmp_path: Path) -> None:
    path = zarr_cells(tmp_path)
    chunk = path / "X" / "data" / "1"
    chunk.write_bytes(chunk.read_bytes()[:10])
    refused(path, "cannot be read .*damaged")


def test_59_damaged_bytes_of_a_compressed_file_are_refused(path: Path) -> None:
    with h5py.File(path) as file:
        data = file["X/data"][:]
    replace(path, "X/data", data, compression="gzip", chunks=(40,))
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\x00" * chunk.size
    path.write_bytes(content)
    refused(path, "rows .* cannot be read .*damaged")


def test_59_damaged_zip_and_metadata_are_refused(tmp_path: Path) -> None:
    path = zarr_cells(tmp_path)
    packed = Path(shutil.make_archive(str(tmp_path / "cells.zarr"), "zip", path))
    packed.write_bytes(packed.read_bytes()[:-50])
    refused(packed, "the zip archive is damaged or incomplete")
    (path / ".zgroup").write_text("{")
    refused(path, "damaged")


def test_61_row_pointers_beyond_32_bits_are_followed() -> None:
    from uce.cells.layouts import CompressedRows

    class Far:
        """A vector of more than 2**31 items that holds only its end."""

        def __init__(self, start: int, values: np.ndarray) -> None:
            self.start, self.values, self.dtype = start, values, values.dtype

        def __getitem__(self, part: slice) -> np.ndarray:
            return self.values[part.start - self.start : part.stop - self.start]

    start = 2**33
    indptr = np.array([0, start, start + 2, start + 3])
    rows = CompressedRows("X", Far(start, np.array([5, 6, 7])), Far(start, np.array([0, 3, 2])), indptr, (3, 4))
    np.testing.assert_array_equal(rows.block(1, 3).toarray(), [[5, 0, 0, 6], [0, 0, 7, 0]])


def test_63_a_barnyard_keeps_both_species_for_the_resolver_to_tell_apart() -> None:
    adata = some_cells()
    adata.var_names = [f"GRCh38_G{i}" if i < 4 else f"GRCm39_G{i}" for i in range(7)]
    with open_counts(adata) as counts:
        assert len(counts.var) == 7


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_end_in_counts_or_in_one_clear_sentence(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    some_cells().write_h5ad(path, compression="gzip")
    rng = np.random.default_rng(seed)
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = rng.integers(0, content.size, 1 + seed % 4)
    content[places] = rng.integers(0, 256, places.size)
    path.write_bytes(content.tobytes())
    refusal = None
    try:
        with open_counts(path) as counts:
            block = counts.read(0, counts.n_cells)
            assert block.shape == (counts.n_cells, len(counts.var))
            assert (block.data > 0).all()
    except UceError as error:
        refusal = str(error)
    assert refusal is None or (refusal.startswith(str(path)) and "\n" not in refusal)

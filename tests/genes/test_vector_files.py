"""Gene vectors made elsewhere, in every form they come in, and what is refused of them."""

import zipfile
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError, ModelError
from uce.genes.annotations.gene import Gene
from uce.genes.annotations.reading import Annotation
from uce.genes.vector_files import read_vector_file, refuse_stretched, table_from_vector_file
from uce.genes.vector_forms import grouped_means

RNG = np.random.default_rng(11)
KEYS = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
VECTORS = RNG.normal(size=(3, 4)).astype(np.float32)


def pt(path: Path, keys=KEYS, vectors=VECTORS, **options) -> Path:
    torch.save({key: torch.as_tensor(vector) for key, vector in zip(keys, vectors, strict=True)}, path, **options)
    return path


def transcriptformer(path: Path, keys=KEYS, vectors=VECTORS) -> Path:
    with h5py.File(path, "w") as file:
        file["keys"] = np.array([key.encode() for key in keys])
        arrays = file.create_group("arrays")
        for key, vector in zip(keys, vectors, strict=True):
            arrays[key] = vector
    return path


def h5ad(path: Path, keys=KEYS, vectors=VECTORS, **columns) -> Path:
    ad.AnnData(np.asarray(vectors), obs=pd.DataFrame(columns, index=list(keys))).write_h5ad(path)
    return path


def npz(path: Path, keys=KEYS, vectors=VECTORS, name="keys", **more) -> Path:
    with path.open("wb") as stream:
        np.savez(stream, **{name: np.array(keys), "vectors": vectors, **more})
    return path


FORMS = {"pt": pt, "h5": transcriptformer, "h5ad": h5ad, "npz": npz}


@pytest.fixture(params=FORMS, ids=list(FORMS))
def store(request):
    return FORMS[request.param]


# ---- reading


def test_every_form_gives_the_same_keys_and_vectors_whatever_the_name_of_the_file(store, tmp_path):
    file = read_vector_file(store(tmp_path / "vectors.bin"))
    assert list(file.keys) == KEYS
    np.testing.assert_array_equal(file.vectors, VECTORS)
    assert file.vectors.dtype == np.float32
    assert len(str(file.facts["vectors_sha256"])) == 64


def test_dictionaries_may_hold_half_precision_gradients_lists_and_old_archives(tmp_path):
    path = tmp_path / "v.pt"
    content = {
        "A": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "B": torch.nn.Parameter(torch.tensor([3.0, 4.0])),
        "C": [5.0, 6.0],
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_vector_file(path).vectors, [[1, 2], [3, 4], [5, 6]])


def test_in_a_dictionary_keys_of_one_upper_case_are_one_gene_as_published(tmp_path):
    file = read_vector_file(pt(tmp_path / "v.pt", ["Abc", "Xyz", "ABC"]))
    assert file.keys == ("Abc", "Xyz")
    np.testing.assert_array_equal(file.vectors, VECTORS[[2, 1]])


@pytest.mark.parametrize("form", ["h5", "h5ad", "npz"])
def test_in_other_forms_keys_of_one_upper_case_are_two_genes(form, tmp_path):
    assert set(read_vector_file(FORMS[form](tmp_path / "v", ["Abc", "Xyz", "ABC"])).keys) == {"Abc", "Xyz", "ABC"}


def test_rows_of_one_symbol_in_an_archive_are_isoforms(tmp_path):
    file = read_vector_file(npz(tmp_path / "v.npz", ["B", "A", "B"], name="symbol"))
    assert file.keys == ("A", "B")
    np.testing.assert_allclose(file.vectors, [VECTORS[1], (VECTORS[0] + VECTORS[2]) / 2], rtol=1e-6)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_grouped_means_are_plain_means(groups):
    _, codes = np.unique(groups, return_inverse=True)
    vectors = np.random.default_rng(0).normal(size=(len(groups), 3)).astype(np.float32)
    expected = [vectors[codes == code].mean(axis=0) for code in range(codes.max() + 1)]
    np.testing.assert_allclose(grouped_means(vectors, codes), expected, rtol=1e-5, atol=1e-6)


def test_the_real_vectors_of_kinases_are_read_and_not_taken_for_stretched(shared):
    path = shared / "data" / "gene_vectors" / "esm2_8m_kinases.npz"
    table, notes = table_from_vector_file(
        read_vector_file(path), species="homo_sapiens", encoder="esm2_t6_8M_UR50D", annotation=None
    )
    assert (len(table), table.dim) == (326, 320)
    assert notes == (
        "1 of 327 keys are empty: their vectors are left out",
        "no annotation was given: no gene has a place",
    )
    with np.load(path, allow_pickle=False) as content:
        symbols, counts = np.unique(content["symbol"][content["symbol"] != ""], return_counts=True)
        rows = content["vectors"][content["symbol"] == symbols[counts.argmax()]]
    assert len(rows) > 1
    mean = table.vectors[table.symbols == symbols[counts.argmax()]][0]
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-4, atol=1e-6)


# ---- what is refused


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as raised:
        read_vector_file(path)
    said = str(raised.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_by_their_key(store, tmp_path, bad):
    vectors = VECTORS.copy()
    vectors[1, 2] = bad
    assert f"the vectors of {KEYS[1]} hold NaN" in refused(store(tmp_path / "v", vectors=vectors))


def test_a_vector_of_zeros_is_refused_by_its_key(store, tmp_path):
    vectors = VECTORS.copy()
    vectors[2] = 0
    assert f"the vectors of {KEYS[2]} hold" in refused(store(tmp_path / "v", vectors=vectors))


@pytest.mark.parametrize("form", ["pt", "h5"])
def test_vectors_of_two_widths_are_refused_by_the_first_key_that_differs(form, tmp_path):
    vectors = [VECTORS[0], VECTORS[1], VECTORS[2][:3]]
    assert f"{KEYS[2]} has the shape (3,)" in refused(FORMS[form](tmp_path / "v", vectors=vectors))


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.float32(3), np.ones(0)])
@pytest.mark.parametrize("form", ["pt", "h5"])
def test_what_is_not_one_row_of_numbers_is_refused_by_its_key(form, tmp_path, value):
    assert f"{KEYS[0]} has the shape" in refused(FORMS[form](tmp_path / "v", KEYS[:1], [value]))


def test_a_file_without_keys_is_refused(store, tmp_path):
    assert "no keys" in refused(store(tmp_path / "v", [], np.zeros((0, 4), np.float32)))


@pytest.mark.parametrize("form", ["pt", "h5ad"])
def test_a_key_that_stands_twice_once_it_is_tidy_is_refused(form, tmp_path):
    assert "ENSG1 stands twice" in refused(FORMS[form](tmp_path / "v", ["ENSG1", " ENSG1", "B"]))


def test_vectors_without_a_name_are_left_out_and_it_is_said(store, tmp_path):
    file = read_vector_file(store(tmp_path / "v", [*KEYS[:2], " "]))
    assert file.keys == tuple(KEYS[:2])
    np.testing.assert_array_equal(file.vectors, VECTORS[:2])
    assert file.notes == ("1 of 3 keys are empty: their vectors are left out",)


@pytest.mark.parametrize("content", [b"", b"gene,1,2\n", b"PK\x03\x04 no archive", b">protein\nMKV\n"])
def test_a_file_of_no_known_form_is_refused(tmp_path, content):
    path = tmp_path / "v.pt"
    path.write_bytes(content)
    assert "TranscriptFormer" in refused(path)


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "none.pt")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused(store, tmp_path, part):
    path = store(tmp_path / "v", vectors=RNG.normal(size=(3, 500)).astype(np.float32))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refused(path)


class Trap:
    """Pickled, it asks to write a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({self.path!r}, 'w')",))


def test_code_in_a_dictionary_is_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"A": Trap(str(sprung))}, tmp_path / "v.pt")
    assert "exec" in refused(tmp_path / "v.pt")
    assert not sprung.exists()


def test_pickled_objects_in_an_archive_are_refused(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, keys=np.array(["A"]), vectors=np.array([Trap("x")], dtype=object))
    assert "cannot be read as npz" in refused(path)


@pytest.mark.parametrize(
    "content", [[torch.ones(3)], torch.ones(3, 3), {1: torch.ones(3)}, {"A": {"B": 1}}, {"A": "text"}]
)
def test_tensors_in_other_containers_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "v.pt")
    refused(tmp_path / "v.pt")


def test_keys_that_lead_elsewhere_in_the_file_are_refused(tmp_path):
    path = transcriptformer(tmp_path / "v.h5", ["A", "B/C", "D"])
    assert "no vector `arrays/B/C` for a key" in refused(path)


def test_a_key_without_a_vector_is_refused(tmp_path):
    path = transcriptformer(tmp_path / "v.h5")
    with h5py.File(path, "a") as file:
        del file["arrays"][KEYS[1]]
    assert f"no vector `arrays/{KEYS[1]}`" in refused(path)


def test_files_that_point_at_other_files_are_refused(tmp_path):
    other = transcriptformer(tmp_path / "other.h5")
    path = transcriptformer(tmp_path / "v.h5")
    with h5py.File(path, "a") as file:
        del file["arrays"][KEYS[1]]
        file["arrays"][KEYS[1]] = h5py.ExternalLink(str(other), f"arrays/{KEYS[1]}")
    assert f"arrays/{KEYS[1]} points at other files" in refused(path)
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(str(other), f"arrays/{KEYS[1]}", (4,))
    with h5py.File(path, "a") as file:
        del file["arrays"][KEYS[1]]
        file["arrays"].create_virtual_dataset(KEYS[1], layout)
    assert f"arrays/{KEYS[1]} points at other files" in refused(path)
    with h5py.File(path, "a") as file:
        del file["arrays"][KEYS[1]]
        raw = [(str(other), 0, 16)]
        file["arrays"].create_dataset(KEYS[1], shape=(4,), dtype=np.float32, external=raw)
    assert f"arrays/{KEYS[1]} points at other files" in refused(path)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "said"),
    [
        (f"arrays/{KEYS[0]}", (1 << 40,), "f4", "claims the shape"),
        ("keys", (1 << 28,), "S8", "claims the shape"),
        (f"arrays/{KEYS[0]}", (70_000,), "f4", "has the shape"),
    ],
)
def test_a_small_file_that_claims_much_is_refused(tmp_path, name, shape, dtype, said):
    path = transcriptformer(tmp_path / "v.h5")
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, shape=shape, dtype=dtype, chunks=(1024,))
    assert path.stat().st_size < 100_000
    assert said in refused(path)


def test_an_archive_that_claims_much_is_refused(tmp_path):
    path = npz(tmp_path / "v.npz")
    header = np.lib.format.magic(1, 0)
    with zipfile.ZipFile(path, "w") as archive:
        text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2000000000000, 4), }".ljust(117) + "\n"
        archive.writestr("vectors.npy", header + len(text).to_bytes(2, "little") + text.encode())
        archive.writestr("keys.npy", b"")
    refused(path)


def test_anndata_of_counts_or_without_names_is_refused(tmp_path):
    from scipy.sparse import csr_matrix

    path = tmp_path / "v.h5ad"
    ad.AnnData(csr_matrix(VECTORS), obs=pd.DataFrame(index=KEYS)).write_h5ad(path)
    assert "X is not a dense matrix of vectors" in refused(path)
    with h5py.File(path, "w") as file:
        file["matrix"] = VECTORS
    assert "neither `keys` and `arrays`" in refused(path)


def test_anndata_with_a_damaged_frame_is_refused(tmp_path):
    path = h5ad(tmp_path / "v.h5ad")
    with h5py.File(path, "a") as file:
        file["obs"].attrs["encoding-type"] = "unheard-of"
    assert "obs cannot be read" in refused(path)


@pytest.mark.parametrize("form", ["pt", "h5", "npz"])
def test_files_with_changed_bytes_are_read_or_refused_in_one_line(form, tmp_path):
    content = FORMS[form](tmp_path / "v").read_bytes()
    rng = np.random.default_rng(5)
    for number in range(60):
        changed = bytearray(content)
        changed[rng.integers(len(changed))] = rng.integers(256)
        path = tmp_path / f"{number}"
        path.write_bytes(changed)
        said = f"{path}"
        try:
            read_vector_file(path)
        except ModelError as error:
            said = str(error)
        assert said.startswith(str(path))
        assert "\n" not in said


def test_an_archive_of_other_arrays_is_refused(tmp_path):
    assert "arrays names, vectors" in refused(npz(tmp_path / "v.npz", name="names"))
    assert "one name for each is needed" in refused(npz(tmp_path / "w.npz", KEYS[:2]))


# ---- tables


MOUSE = Annotation(
    {
        gene.id: gene
        for gene in [
            Gene("ENSMUSG00000000001", "Gnai3", ("Galphai3",), "protein_coding", "3", 108014596),
            Gene("ENSMUSG00000000003", "Pbsn", (), "protein_coding", "X", 76881507),
            Gene("ENSMUSG00000000028", "Cdc45", ("Cdc45l",), "protein_coding", "16", 18599197),
            Gene("ENSMUSG00000000031", "H19", (), "lncRNA", "7", 142129267),
            Gene("ENSMUSG00000000037", "Scml2", (), "protein_coding", "X", 159865521),
        ]
    },
    {"ENSMUSP00000000001": "ENSMUSG00000000001"},
    (),
    "mouse.gtf",
)


def made(tmp_path, keys, annotation=MOUSE, vectors=None, store=pt, **options):
    vectors = RNG.normal(size=(len(keys), 4)).astype(np.float32) if vectors is None else vectors
    file = read_vector_file(store(tmp_path / "v", keys, vectors, **options))
    return table_from_vector_file(file, species="mus_musculus", encoder="mine", annotation=annotation)


@pytest.mark.parametrize(
    "keys",
    [
        ["ENSMUSG00000000001.4", "ENSMUSG00000000003.15", "ENSMUSG00000000028.16"],
        ["Gnai3", "Pbsn", "Cdc45"],
        ["GNAI3", "PBSN", "CDC45"],
        ["ENSMUSP00000000001", "Pbsn", "Cdc45l"],
    ],
    ids=["ids", "symbols", "upper case", "mixed"],
)
def test_keys_are_ids_or_symbols_and_find_their_genes(tmp_path, keys):
    table, notes = made(tmp_path, keys, vectors=VECTORS)
    assert table.ids.tolist() == ["ENSMUSG00000000001", "ENSMUSG00000000003", "ENSMUSG00000000028"]
    assert table.symbols.tolist() == ["Gnai3", "Pbsn", "Cdc45"]
    assert table.synonyms.tolist() == ["Galphai3", "", "Cdc45l"]
    assert table.chromosomes.tolist() == ["3", "X", "16"]
    assert table.starts.tolist() == [108014596, 76881507, 18599197]
    assert set(table.origins) == {"imported"}
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert notes == ()


def test_symbols_beside_the_keys_find_genes_that_the_keys_do_not(tmp_path):
    table, _ = made(tmp_path, ["p1", "p2", "p3"], store=h5ad, symbol=["Gnai3", "Pbsn", "Cdc45"])
    assert table.ids.tolist() == ["ENSMUSG00000000001", "ENSMUSG00000000003", "ENSMUSG00000000028"]


def test_keys_of_one_gene_become_their_mean_and_it_is_said(tmp_path):
    table, notes = made(tmp_path, ["Cdc45", "Cdc45l", "Pbsn"], vectors=VECTORS)
    np.testing.assert_allclose(table.vectors[table.symbols == "Cdc45"][0], VECTORS[:2].mean(axis=0), rtol=1e-6)
    assert "1 keys name a gene that another key names, too; the mean is taken" in notes


def test_unknown_keys_are_genes_without_a_place_and_are_counted(tmp_path):
    table, notes = made(tmp_path, ["Gnai3", "Pbsn", "Cdc45", "Novel1"])
    row = table.ids.tolist().index("Novel1")
    assert (table.symbols[row], table.chromosomes[row], table.starts[row]) == ("Novel1", "unplaced", 0)
    assert len(notes) == 1
    assert "3 of 4 keys are in mouse.gtf; unknown are Novel1" in notes[0]


def test_keys_of_another_species_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"1 of 3 keys are in mouse.gtf; .* another assembly or species") as raised:
        made(tmp_path, ["Gnai3", "YAL001C", "YAL002W"])
    assert "ENSMUSG00000000001" in str(raised.value)


def test_without_an_annotation_keys_are_ids_and_symbols_without_places(tmp_path):
    table, notes = made(tmp_path, ["ENSMUSG00000000001.4", "Pbsn"], annotation=None)
    assert table.ids.tolist() == ["ENSMUSG00000000001", "Pbsn"]
    assert table.symbols.tolist() == ["", "Pbsn"]
    assert set(table.chromosomes) == {"unplaced"}
    assert notes == ("no annotation was given: no gene has a place",)


def test_a_table_names_the_file_its_vectors_are_from(tmp_path):
    path = pt(tmp_path / "v.pt")
    file = read_vector_file(path)
    table, _ = table_from_vector_file(
        file, species="homo_sapiens", encoder="mine", annotation=None, metadata={"taxon": 9606}
    )
    assert table.encoder == "mine"
    assert table.metadata == {
        "pooling": "made elsewhere",
        "vectors_form": "pt",
        "vectors_sha256": file.facts["vectors_sha256"],
        "taxon": 9606,
    }


# ---- vectors of a smaller model


SMALL = RNG.normal(size=(400, 80)).astype(np.float32)
STRETCHES = {
    "zeros": np.hstack([SMALL, np.zeros((400, 240), np.float32)]),
    "repeated": np.tile(SMALL, 4),
    "each number repeated": np.repeat(SMALL, 4, axis=1),
    "linear map": SMALL @ RNG.normal(size=(80, 320)).astype(np.float32),
    "interpolated": np.array([np.interp(np.linspace(0, 79, 320), np.arange(80), row) for row in SMALL], np.float32),
}


@pytest.mark.parametrize("stretched", STRETCHES.values(), ids=list(STRETCHES))
def test_a_smaller_model_stretched_is_refused_and_its_consequence_named(stretched):
    with pytest.raises(ModelError, match=r"v.pt: 320 numbers a gene, but only \d+ of 3\d\d possible .*around .9"):
        refuse_stretched(stretched, "v.pt")


@pytest.mark.parametrize("genes", [70, 400])
def test_vectors_of_full_width_pass_whatever_their_scales_and_however_many_genes_share_one(genes):
    vectors = RNG.normal(size=(genes, 320)) * np.geomspace(1e-2, 1e2, 320) + 5
    refuse_stretched(np.vstack([vectors, vectors]).astype(np.float32), "v.pt")


def test_near_copies_add_no_direction():
    vectors = RNG.normal(size=(60, 320)).astype(np.float32)
    copies = vectors.repeat(2, axis=0) * (1 + 1e-6 * RNG.normal(size=(120, 320)).astype(np.float32))
    refuse_stretched(copies, "v.pt")  # 60 genes are too few to tell, and their copies tell no more


def test_stretched_vectors_never_become_a_table(tmp_path):
    keys = [f"GENE{number}" for number in range(400)]
    with pytest.raises(ModelError, match="stretched"):
        made(tmp_path, keys, annotation=None, vectors=STRETCHES["repeated"], store=npz)


def test_numpy_values_in_a_dictionary_are_told_how_to_be_saved(tmp_path):
    import torch

    torch.save({np.str_("A"): torch.ones(3), np.str_("B"): torch.ones(3)}, tmp_path / "v.pt")
    message = refused(tmp_path / "v.pt")
    assert "which only code can read" in message
    assert "or as .npz" in message

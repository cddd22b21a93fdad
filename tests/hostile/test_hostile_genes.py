"""Gene names and gene tables that are broken, lost, or made to do harm."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import uce
from uce.errors import InputError, ModelError, UsageError
from uce.genes.collection import load_gene_table
from uce.genes.resolver import check_coverage, choose_column, names_in, resolve
from uce.genes.species import detect_species
from uce.genes.tables import GeneTable, read_table, write_table


@pytest.fixture(scope="module")
def human():
    return load_gene_table("human")


@pytest.fixture(scope="module")
def symbols(human):
    return sorted(set(human.symbols.tolist()) - {""})


def refusal(names, table, **options):
    with pytest.raises(InputError) as caught:
        check_coverage(resolve(names, table), names, table, file="x.h5ad", **options)
    message = str(caught.value)
    assert message.startswith("x.h5ad: ")
    assert message.isprintable()
    assert len(message) < 1000
    return message


def test_no_gene_matched_shows_names_seen_and_names_wanted(human):
    message = refusal([f"zqx{i}x" for i in range(1000)], human)
    assert "1,000 names in index, genes of human (homo_sapiens) found among them: 0; at least 500 are needed" in message
    assert "Not found: zqx0x, zqx1x, zqx2x, zqx3x, zqx4x, ... (1000 in all)" in message
    assert "In the table: " in message
    assert "ENSG" in message


def test_numbers_for_names_are_called_lost(human):
    assert "gene names are numbers" in refusal([str(i) for i in range(2000)], human)
    with pytest.raises(InputError, match=r"x.h5ad: .*gene names are numbers.*Give --gene-column"):
        detect_species(pd.DataFrame(index=[str(i) for i in range(2000)]), file="x.h5ad")


def test_a_transposed_matrix_is_recognised_by_barcodes_and_by_genes_among_the_cells(human, symbols):
    random = np.random.default_rng(0)
    barcodes = ["".join(random.choice(list("ACGT"), 16)) + "-1" for _ in range(600)]
    assert "look like cell names: the matrix may be transposed" in refusal(barcodes, human)
    with pytest.raises(InputError, match="may be transposed"):
        detect_species(pd.DataFrame(index=barcodes))
    cells = [f"cell_{i}" for i in range(600)]
    message = refusal(cells, human, cell_names=symbols)
    assert "5,000 of the cell names are genes: the matrix is transposed" in message


def test_peaks_are_no_genes(human):
    assert "not a gene matrix" in refusal([f"chr1:{i}000-{i}500" for i in range(1, 900)], human)


def test_a_wrong_species_names_the_right_one(human):
    mouse = load_gene_table("mouse")
    message = refusal(mouse.ids[:3000].tolist(), human)
    assert "The ids are of mouse (mus_musculus) (ENSMUSG" in message
    assert "Give --species mus_musculus" in message
    fly = [name for name in load_gene_table("fly").symbols.tolist() if name]
    assert "Give --species drosophila_melanogaster" in refusal(fly, human)


def test_mouse_names_are_not_taken_for_human_ones_by_ignoring_case(human, symbols):
    mouse = [name for name in load_gene_table("mouse").symbols.tolist() if name]
    message = refusal(mouse, human)
    assert "fit human (homo_sapiens) only when case is ignored, but" in message
    assert "Give --species mus_musculus" in message
    # The other way, names in capitals are a habit and the user's word counts; a warning says so.
    capitals = [name.upper() for name in mouse]
    table = load_gene_table("mouse")
    (warning,) = check_coverage(resolve(capitals, table), capitals, table)
    assert "upper and lower case" in warning


def test_names_with_control_characters_never_reach_the_terminal(human):
    names = ["\x1b[31mred\x1b[0m", "a\nb", "\u202eRTL", "x" * 1_000_000, "\x00", "🧬", "%s%n{0}"] * 10
    refusal(names, human)
    report = resolve(names, human).report(names)
    shown = [example for examples in report["examples"].values() for example in examples]
    assert all(example.isprintable() and len(example) <= 80 for example in shown)
    assert sum(report["reasons"].values()) == 70


def test_duplicate_names_are_resolved_each_by_itself(human, symbols):
    names = [symbols[10]] * 5 + symbols[:600]
    resolution = resolve(names, human)
    assert (resolution.rows >= 0).all()
    assert resolution.report(names)["columns_summed"] == 5


def test_a_file_without_genes_is_refused(human):
    with pytest.raises(InputError, match="0 names in index, genes of human"):
        check_coverage(resolve([], human), [], human)
    with pytest.raises(InputError, match="no gene table knows any of the 0 names"):
        detect_species(pd.DataFrame(index=pd.Index([], dtype=object)))


def test_letters_and_a_handful_of_names_do_not_tell_a_species():
    letters = pd.DataFrame({"kind": list("abdghklnopqrtwyBDLSH") * 2}, index=[f"zq{i}z" for i in range(40)])
    with pytest.raises(InputError, match="do not tell the species"):
        detect_species(letters)
    with pytest.raises(InputError, match="do not tell the species"):
        detect_species(pd.DataFrame(index=["Gata2", "Gata1", "Fog1", "EKLF", "Fli1", "SCL", "Cebpa"]))


def test_columns_that_are_no_names_are_passed_over(human, symbols):
    var = pd.DataFrame(
        {
            "n": np.arange(50),
            "mixed": [None, 3, "x", 2.5, b"y"] * 10,
            "missing": pd.Categorical([None] * 50, categories=["a"]),
            "ok": symbols[:50],
        },
        index=[str(i) for i in range(50)],
    )
    assert choose_column(var, human) == "ok"
    assert names_in(var, "missing") == [""] * 50
    assert names_in(var, "mixed")[:2] == ["", "3"]


@given(names=st.lists(st.text(max_size=20), max_size=40))
def test_any_text_is_an_answer_or_a_clear_refusal(human, names):
    resolution = resolve(names, human)
    assert len(resolution.rows) == len(names)
    var = pd.DataFrame(index=pd.Index(names, dtype=object))
    with pytest.raises(InputError, match=r"^x\.h5ad: [^\x00-\x1f]*$"):
        detect_species(var, file="x.h5ad")


def _written(tmp_path) -> str:
    table = GeneTable.from_rows(
        species="danio_rerio", encoder="t", ids=["a", "b"], vectors=np.eye(2), symbols=["A", "B"]
    )
    write_table(table, tmp_path / "t.h5ad")
    return str(tmp_path / "t.h5ad")


def test_a_table_that_claims_a_huge_matrix_is_refused_before_reading(tmp_path):
    path = _written(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_dataset("X", shape=(10**9, 10**6), chunks=(1000, 1000), dtype="f4")
    with pytest.raises(ModelError, match=r"X claims the shape \(1000000000, 1000000\)"):
        read_table(path)


def test_a_table_that_points_at_other_files_is_refused(tmp_path):
    path = _written(tmp_path)
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["X"] = np.ones((2, 2), np.float32)
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink("secret.h5", "/X")
    with pytest.raises(ModelError, match="points at other files"):
        read_table(path)
    layout = h5py.VirtualLayout(shape=(2, 2), dtype="f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "X", shape=(2, 2))
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_virtual_dataset("X", layout)
    with pytest.raises(ModelError, match="points at other files"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"gene,vector\na,1\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, b"PK\x03\x04zip"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "t.h5ad"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"t\.h5ad: cannot be read as a gene table"):
        read_table(path)


def test_a_truncated_table_is_refused(tmp_path):
    path = tmp_path / "t.h5ad"
    _written(tmp_path)
    whole = path.read_bytes()
    for part in (0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ModelError, match="cannot be read"):
            read_table(path)


@pytest.mark.parametrize("name", ["X", "obs", "uns"])
def test_a_table_without_one_of_its_parts_is_refused(tmp_path, name):
    path = _written(tmp_path)
    with h5py.File(path, "r+") as file:
        del file[name]
    with pytest.raises(ModelError, match="cannot be read as a gene table"):
        read_table(path)


def test_a_file_of_cells_is_not_taken_for_a_table(tmp_path):
    import anndata

    anndata.AnnData(X=np.eye(3, dtype=np.float32), uns={"uce": {"X_uce": "x"}}).write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ModelError, match="not a gene table"):
        read_table(tmp_path / "cells.h5ad")


def test_few_counts_in_known_genes_are_refused_unless_asked_for(make_cells, tiny_model):
    cells = make_cells(cells=12)
    spill = np.full((12, 1), 9.0 * cells.X.sum() / 12, np.float32).round()
    cells = anndata.concat(
        [
            cells,
            anndata.AnnData(sparse.csr_matrix(spill), var=pd.DataFrame(index=["EGFP-transgene"]), obs=cells.obs[[]]),
        ],
        axis=1,
        merge="first",
    )
    with pytest.raises(InputError, match=r"with 10\.0% of the counts; at least 50% is needed \(--min-coverage\)"):
        uce.embed(cells, model=tiny_model, species="human", quiet=True)
    uce.embed(cells, model=tiny_model, species="human", min_coverage=0.05, quiet=True)
    assert np.isfinite(cells.obsm["X_uce"]).all()
    assert uce.check(cells, model=tiny_model, species="human", min_coverage=0.05).ok
    with pytest.raises(UsageError, match=r"--min-coverage 5\.0: must be a share"):
        uce.embed(cells, model=tiny_model, min_coverage=5.0, key_added="X", quiet=True)


def test_ids_that_a_table_made_without_an_annotation_does_not_have_are_told():
    symbols = [f"ABC{i}" for i in range(700)]
    table = GeneTable.from_rows(
        species="saccharomyces_cerevisiae",
        encoder="mine",
        ids=symbols,
        symbols=symbols,
        vectors=np.random.default_rng(0).normal(size=(700, 4)),
    )
    names = [f"YAL{i:03d}{strand}" for i in range(400) for strand in "WC"]
    assert "its table has none. Add the species again with its annotation (--gtf)" in refusal(names, table)

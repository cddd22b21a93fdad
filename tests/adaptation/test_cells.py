"""Which cells of a file become the corpus that is learned from."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from uce.adaptation.cells import CellsFile, HoldOut, build_cells, read_user_cells
from uce.errors import InputError, UsageError
from uce.model.checkpoint import load_model
from uce.training.corpus import Corpus, open_corpus
from uce.training.settings import DataSettings

MakeFile = Callable[..., Path]


def built(file: Path, base: Path, folder: Path, hold_out: HoldOut | None, *, labelled: bool = True) -> Corpus:
    model = load_model(base)
    cells = read_user_cells(CellsFile(file), model, column="cell_type", hold_out=hold_out)
    return open_corpus(DataSettings(corpus=str(build_cells(cells, folder, model, labelled=labelled))))


def relabelled(file: Path, **columns: list[str]) -> Path:
    adata = anndata.read_h5ad(file)
    for name, values in columns.items():
        adata.obs[name.replace("_", " ")] = np.array(values)[np.arange(len(adata)) % len(values)]
    adata.write_h5ad(file)
    return file


def test_values_of_any_spelling_are_left_out(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = relabelled(make_file(cells=40), my_batch=["it's", 'a "b"', "1", "or x == 'y'"])
    for number, values in enumerate((("it's",), ('a "b"', "1"))):
        corpus = built(file, base, tmp_path / f"corpus{number}", HoldOut("my batch", values))
        assert corpus.sizes.tolist() == [40 - 10 * len(values)]


def test_what_cannot_be_written_as_a_filter_is_refused(base: Path, make_file: MakeFile, tmp_path: Path) -> None:
    file = relabelled(make_file(cells=40), both=['it\'s "b"', "x"])
    with pytest.raises(UsageError, match="both kinds of quotes in a value, cannot be filtered by"):
        built(file, base, tmp_path / "corpus", HoldOut("both", ('it\'s "b"',)))


def test_every_cell_that_is_not_held_out_is_there_where_labels_are_not_needed(
    base: Path, make_file: MakeFile, tmp_path: Path
) -> None:
    file = make_file(cells=40)
    adata = anndata.read_h5ad(file)
    adata.obs["cell_type"] = np.where(np.arange(40) < 10, "unassigned", adata.obs["cell_type"].astype(str))
    adata.X = csr_matrix(adata.X.toarray() * (np.arange(40) != 5)[:, None])
    adata.write_h5ad(file)
    assert built(file, base, tmp_path / "all", None, labelled=False).sizes.tolist() == [39]  # one has no count
    assert built(file, base, tmp_path / "labelled", None).sizes.tolist() == [30]
    held = HoldOut("donor", ("D1",))
    assert built(file, base, tmp_path / "held", held, labelled=False).sizes.tolist() == [29]  # it is of donor D2


def test_a_file_of_one_label_is_refused(base: Path, make_file: MakeFile) -> None:
    file = make_file(cells=40)
    adata = anndata.read_h5ad(file)
    adata.obs["cell_type"] = "a"
    adata.write_h5ad(file)
    with pytest.raises(InputError, match=r"'cell_type' has fewer than two labels \(a\); name another --labels"):
        read_user_cells(CellsFile(file), load_model(base), column="cell_type")

"""Labels of two data sets made one set: by equal names, by a table, and refusals that name both sides."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError
from uce.evaluation.label_map import harmonise, plain_label, read_label_map

SIDES = (("lung", "lung.h5ad", "homo_sapiens"), ("spleen", "spleen.h5ad", "mus_musculus"))


def written(folder: Path, text: str) -> Path:
    """A file with this text."""
    path = folder / "map.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("one", "other"),
    [("B cell", "b_cell"), ("T-cell, CD4+", "t cell CD4+"), ("NK.cell", " nk  cell "), ("Beta", "BETA")],
)
def test_case_and_punctuation_do_not_tell_labels_apart(one: str, other: str) -> None:
    assert plain_label(one) == plain_label(other)


@pytest.mark.parametrize(("one", "other"), [("CD14+", "CD14-"), ("T cell 1", "T cell 2"), ("B cell", "B cells")])
def test_other_differences_do(one: str, other: str) -> None:
    assert plain_label(one) != plain_label(other)


def test_equal_names_are_shared_in_the_spelling_of_the_first_side() -> None:
    found = harmonise(np.array(["B cell", "NK"]), np.array(["b_cell", "Mast"]), None, SIDES)
    assert found.first.tolist() == ["B cell", "NK"]
    assert found.second.tolist() == ["B cell", "Mast"]
    assert found.shared == ("B cell",)
    assert found.mapping[2] == {"file": "spleen", "label": "Mast", "shared": "Mast", "both": False}


def test_a_map_decides_alone_and_says_so(tmp_path: Path) -> None:
    read = read_label_map(written(tmp_path, "label,shared\nB cell,lymphocyte\nNK,lymphocyte\nb_cell,lymphocyte\n"))
    found = harmonise(np.array(["B cell", "NK", "Mast"]), np.array(["b_cell", "Mast"]), read, SIDES)
    assert found.first.tolist() == ["lymphocyte", "lymphocyte", "Mast (lung)"]
    assert found.second.tolist() == ["lymphocyte", "Mast (spleen)"]
    assert found.shared == ("lymphocyte",)


@pytest.mark.parametrize("name", ["lung", "lung.h5ad", "homo_sapiens"])
def test_a_row_of_one_file_counts_for_that_file(tmp_path: Path, name: str) -> None:
    text = f"file,label,shared\n{name},X,first kind\n,X,other kind\n,Y,first kind\n"
    found = harmonise(np.array(["X"]), np.array(["X", "Y"]), read_label_map(written(tmp_path, text)), SIDES)
    assert found.first.tolist() == ["first kind"]
    assert found.second.tolist() == ["other kind", "first kind"]


def test_an_empty_shared_label_leaves_cells_out(tmp_path: Path) -> None:
    read = read_label_map(written(tmp_path, "label,shared\nB,B\ndoublet,\n"))
    found = harmonise(np.array(["B", "doublet"]), np.array(["B", "doublet"]), read, SIDES)
    assert found.first.tolist() == ["B", ""]
    assert found.shared == ("B",)


def test_no_shared_label_names_both_lists_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"lung has B, NK and spleen has Mast.*--label-map"):
        harmonise(np.array(["B", "NK"]), np.array(["Mast"]), None, SIDES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,shared\n", "no rows"),
        ("label\nB\n", "no column shared"),
        ("label,shared\nB,x\nb,y\n", "line 3.*two shared labels"),
    ],
)
def test_a_broken_map_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"map\.csv: .*{words}"):
        read_label_map(written(tmp_path, text))


def test_a_map_of_another_file_is_refused(tmp_path: Path) -> None:
    read = read_label_map(written(tmp_path, "file,label,shared\nkidney,B,B\n"))
    with pytest.raises(InputError, match="kidney is neither 'lung' nor 'spleen'"):
        harmonise(np.array(["B"]), np.array(["B"]), read, SIDES)


@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.text(min_size=1), min_size=1))
def test_shared_labels_are_those_of_both_sides(first: list[str], second: list[str]) -> None:
    one, other = (np.array([f"x{label}" for label in [*labels, "both"]]) for labels in (first, second))
    found = harmonise(one, other, None, SIDES)
    assert set(found.shared) == set(found.first.tolist()) & set(found.second.tolist())
    assert (len(found.first), len(found.second)) == (len(one), len(other))
    for before, after in zip([*one, *other], [*found.first, *found.second], strict=True):
        assert plain_label(before) == plain_label(after)

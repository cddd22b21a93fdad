"""Filters in a manifest: what the grammar takes, what it means, and that nothing else gets through."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.corpus.expressions import parse_expression
from uce.errors import InputError

COLUMNS = {
    "tissue": np.array(["lung", "liver", "lung", "unknown"]),
    "n_genes": np.array(["100", "900.5", "1e3", "unknown"]),
    "cell type": np.array(["B", "T", "it's", "and"]),
}


def chosen(text: str) -> list[bool]:
    return parse_expression(text).mask(lambda name: COLUMNS[name]).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tissue == 'lung'", [1, 0, 1, 0]),
        ('tissue != "lung"', [0, 1, 0, 1]),
        ("n_genes >= 900.5", [0, 1, 1, 0]),
        ("n_genes<1e3 and tissue=='lung'", [1, 0, 0, 0]),
        ("tissue == 'liver' or tissue == 'lung' and n_genes > 500", [0, 1, 1, 0]),
        ("(tissue == 'liver' or tissue == 'lung') and n_genes > 950", [0, 0, 1, 0]),
        ("`cell type` == \"it's\" or `cell type` == 'and'", [0, 0, 1, 1]),
        ("n_genes == 100", [1, 0, 0, 0]),
        ("n_genes != 100", [0, 1, 1, 1]),
        (" ( ( tissue == 'lung' ) ) ", [1, 0, 1, 0]),
    ],
)
def test_a_filter_means_what_it_says(text: str, expected: list[int]) -> None:
    assert chosen(text) == [bool(value) for value in expected]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tissue",
        "tissue == lung",
        "tissue = 'lung'",
        "tissue == 'lung",
        "tissue == 'lung' and",
        "and == 1",
        "tissue > 'lung'",
        "(tissue == 'lung'",
        "tissue == 'lung')",
        "tissue == 'lung' tissue == 'liver'",
        "__import__('os').system('id')",
        "tissue.str.len() == 1",
        "@x == 1",
        "n_genes == 1; n_genes == 2",
        "n_genes == 12abc",
        "(" * 30 + "n_genes == 1" + ")" * 30,
        "n_genes == 1 or " * 500 + "n_genes == 1",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="filter"):
        parse_expression(text)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_expression(text)

"""The picture of a gene table: it is one, says the verdict, and survives any name."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from uce.errors import StorageError, UsageError
from uce.genes.judging.health import judge_table
from uce.genes.judging.pictures import chromosome_bars, draw_table
from uce.genes.tables import GeneTable

HEADS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


def table_of(genes: int = 300, *, species: str = "homo_sapiens", **columns: Sequence[object]) -> GeneTable:
    symbols = [f"fam{chr(97 + n // 4 % 26)}{chr(97 + n // 104)}{n % 4}" for n in range(genes)]
    rng = np.random.default_rng(0)
    given = {"symbols": symbols, "chromosomes": [str(n % 22 + 1) for n in range(genes)], **columns}
    return GeneTable.from_rows(
        species=species,
        encoder="esm2_made_up",
        ids=[f"G{n:05d}" for n in range(genes)],
        vectors=rng.normal(size=(genes, 8)),
        **given,
    )


def drawn(table: GeneTable, path: Path, against: Sequence[GeneTable] = ()) -> Path:
    return draw_table(table, judge_table(table, against=against), path, against=against)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Draws into an SVG with its texts kept as texts, and returns them."""
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")

    def read(table: GeneTable, against: Sequence[GeneTable] = ()) -> list[str]:
        tree = ET.parse(drawn(table, tmp_path / "picture.svg", against))
        return [element.text or "" for element in tree.iter() if element.tag.endswith("text")]

    return read


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg", ".PNG"])
def test_the_ending_chooses_the_format(ending: str, tmp_path: Path) -> None:
    path = drawn(table_of(), tmp_path / f"table{ending}", against=[table_of(200, species="mus_musculus")])
    assert path.read_bytes().startswith(HEADS[ending.lower()])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_another_ending_is_refused_and_a_missing_folder_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"table.jpg: not a picture. Use a name that ends in .png, .pdf or .svg"):
        drawn(table_of(), tmp_path / "table.jpg")
    with pytest.raises(StorageError, match="nowhere"):
        drawn(table_of(), tmp_path / "nowhere" / "table.png")
    assert not list(tmp_path.iterdir())


def test_the_verdict_is_the_title_and_curves_are_named(texts) -> None:
    alone = texts(table_of())
    assert "health of homo_sapiens (esm2_made_up): not usable" in alone
    assert any(text.startswith("genes of one family are no nearer") for text in alone)
    found = texts(table_of(), [table_of(200, species="mus_musculus")])
    assert any(text.startswith("random pairs (") for text in found)
    assert any(text.startswith("pairs of one family, ") for text in found)
    assert any(text.startswith("one symbol, mouse (mus_musculus), 100% above others (200)") for text in found)


def test_where_the_vectors_come_from_or_else_how_many_proteins(texts) -> None:
    mixed = texts(table_of(origins=["protein"] * 299 + ["ortholog"]))
    assert {"Where the vectors come from", "protein", "299", "ortholog", "1"} <= set(mixed)
    counted = texts(table_of(origins=["protein"] * 300, proteins=[1] * 200 + [2] * 60 + [40] * 40))
    assert {"Proteins per gene", "200", "60", "8 or more"} <= set(counted)


def test_chromosomes_stand_in_natural_order_with_the_small_and_the_unplaced_last() -> None:
    names = ["10", "2", "X", "1", "chr10", "chr9", "MT"] * 3 + [f"scaffold_{n}" for n in range(60)] + ["unplaced"] * 5
    bars = chromosome_bars(table_of(len(names), chromosomes=names))
    assert [name for name, _ in bars[:7]] == ["1", "2", "10", "MT", "X", "chr9", "chr10"]
    assert bars[-2:] == [("27 others", 27), ("unplaced", 5)]
    assert len(bars) == 42
    assert sum(count for _, count in bars) == len(names)


@pytest.mark.parametrize("name", ["a$b$", "\\frac{", "$\\frac{$", "染色体", "x" * 500, "\x1b[31m", " ", "²3"])
def test_any_name_of_a_chromosome_or_origin_can_be_drawn(name: str, tmp_path: Path) -> None:
    assert drawn(table_of(30, chromosomes=[name] * 30, origins=[name] * 30), tmp_path / "table.png").is_file()


@pytest.mark.parametrize("genes", [1, 2, 3])
def test_the_smallest_tables_can_be_drawn(genes: int, tmp_path: Path) -> None:
    assert drawn(table_of(genes), tmp_path / "table.png", against=[table_of(2, species="mus_musculus")]).is_file()


def test_equal_vectors_can_be_drawn(tmp_path: Path) -> None:
    table = GeneTable.from_rows(species="homo_sapiens", encoder="x", ids=list("abc"), vectors=np.ones((3, 4)))
    assert drawn(table, tmp_path / "table.png").is_file()

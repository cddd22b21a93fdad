"""Parts of a corpus: nested, sound, with the cells of other splits as they were."""

from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpus.conftest import cells_file, content, write_manifest
from uce.cli.main import main
from uce.corpus.build import build_corpus
from uce.corpus.choosing import SubsetRule, cell_sequence, first_cells, first_datasets, training_cells
from uce.corpus.layout import read_index
from uce.corpus.orders import boxes, in_turns, random_order, spiked
from uce.corpus.quality import SWITCHES, QualityRules
from uce.corpus.subset import subset_corpus
from uce.corpus.verify import verify_corpus
from uce.errors import OutputExistsError, UsageError
from uce.training.corpus import open_corpus
from uce.training.settings import DataSettings

TYPES = ["common"] * 40 + ["rare"] * 8 + ["", "unknown"] * 6


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three training datasets (60, 40 and 20 cells) and one for validation (30), with types and donors."""
    folder = tmp_path_factory.mktemp("pieces")
    rows: list[dict[str, object]] = []
    for seed, (name, cells) in enumerate({"one": 60, "two": 40, "three": 20, "kept": 30}.items()):
        obs = {"cell_type": TYPES[:cells] if name == "one" else ["common"] * cells, "donor": ["a", "b"] * (cells // 2)}
        cells_file(folder / f"{name}.h5ad", cells, seed=seed, obs=obs)
        split = "validation" if name == "kept" else "train"
        rows.append({"dataset_id": name, "path": f"{name}.h5ad", "species": "human", "split": split})
    manifest = write_manifest(folder / "manifest.csv", rows)
    build_corpus(manifest, folder / "corpus", rules=QualityRules(off=SWITCHES))
    return folder / "corpus"


def cells_of(corpus: Path, split: str = "train") -> set[tuple[str, int]]:
    """Dataset and source row of every cell of a split."""
    opened = open_corpus(DataSettings(corpus=str(corpus)), split=split)
    rows = {dataset.name: dataset.labels("src_row") for dataset in opened.datasets}
    return {(name, int(row)) for name, own in rows.items() if own is not None for row in own}


@given(groups=st.lists(st.integers(0, 4), min_size=1, max_size=60), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_turns_fill_equal_quotas(groups: list[int], seed: int) -> None:
    order = in_turns(np.array(groups), random_order(seed, len(groups)))
    assert sorted(order.tolist()) == list(range(len(groups)))
    there = Counter(groups)
    for size in range(1, len(groups) + 1):
        taken = Counter(np.array(groups)[order[:size]].tolist())
        most = max(taken.values())
        # A group with fewer than the others has given all it has, or its turn in this round is yet to come.
        assert all(taken[group] >= most - 1 or taken[group] == there[group] for group in there)


@given(cells=st.integers(1, 200), share=st.floats(0.05, 0.95), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_every_beginning_of_a_spike_has_its_share(cells: int, share: float, seed: int) -> None:
    inside = np.random.default_rng(seed).random(cells) < 0.5
    order = spiked(inside, random_order(seed, cells), share)
    assert len(set(order.tolist())) == len(order)
    taken = np.cumsum(inside[order])
    assert np.all(np.abs(taken - share * np.arange(1, len(order) + 1)) < 1)
    # It ends only where one side has no more to give.
    if len(order) < cells:
        next_is_inside = np.floor((len(order) + 1) * share + 1e-9) > np.floor(len(order) * share + 1e-9)
        assert np.isin(np.flatnonzero(inside == next_is_inside), order).all()


def test_boxes_thin_out_what_is_dense() -> None:
    random = np.random.default_rng(0)
    vectors = np.concatenate([random.normal(0, 0.01, (900, 3)), random.uniform(-5, 5, (100, 3))])
    box = boxes(vectors, 50)
    assert abs(box.max() + 1 - 50) <= 5
    sketch = in_turns(box, random_order(0, 1000))[:60]
    assert np.mean(sketch >= 900) > 0.6, "the sparse tenth of the cells fills most of the sketch"


@pytest.mark.parametrize("scheme", ["random", "reweighted", "sketch", "spike"])
def test_subsets_are_sound_and_nested(scheme: str, pieces: Path, tmp_path: Path) -> None:
    spike = {"spike": "two", "share": 0.5} if scheme == "spike" else {}
    rule = SubsetRule(scheme, seed=3, **spike)  # type: ignore[arg-type]
    chosen = {}
    for cells in (10, 25, 70):
        folder = subset_corpus(pieces, tmp_path / str(cells), cells=cells, rule=rule)
        verdict = verify_corpus(folder)
        assert verdict.ok, str(verdict)
        assert verdict.cells == cells + 30
        chosen[cells] = cells_of(folder)
        assert len(chosen[cells]) == cells
        assert cells_of(folder, "validation") == cells_of(pieces, "validation")
    assert chosen[10] < chosen[25] < chosen[70] <= cells_of(pieces)


def test_the_counts_and_columns_of_the_cells_stay(pieces: Path, tmp_path: Path) -> None:
    folder = subset_corpus(pieces, tmp_path / "sub", cells=50)
    shard = "data/one/shard-00000.zarr"
    whole, part = (anndata.io.read_zarr(corpus / shard) for corpus in (pieces, folder))
    places = np.searchsorted(np.sort(whole.obs["src_row"]), part.obs["src_row"])
    rows = np.argsort(whole.obs["src_row"].to_numpy())[places]
    assert (whole.X[rows] != part.X).nnz == 0
    assert part.X.dtype == whole.X.dtype
    assert part.obs["cell_type"].astype(str).tolist() == whole.obs["cell_type"].astype(str).iloc[rows].tolist()
    assert part.var["measured"].equals(whole.var["measured"])
    np.testing.assert_array_equal(part.var["n_cells"], part.X.getnnz(axis=0))


def test_equal_seeds_give_equal_bytes_and_others_other_cells(pieces: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        subset_corpus(pieces, tmp_path / name, cells=40, rule=SubsetRule(seed=seed))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert cells_of(tmp_path / "a") != cells_of(tmp_path / "c")


def test_reweighting_takes_rare_types_whole_and_unlabelled_cells_last(pieces: Path) -> None:
    pool = training_cells(pieces, ("one",))
    types = open_corpus(DataSettings(corpus=str(pieces))).datasets
    labels = next(dataset for dataset in types if dataset.name == "one").labels("cell_type")
    assert labels is not None
    order = cell_sequence(pool, SubsetRule("reweighted"))
    assert Counter(labels[order[:16]].tolist()) == {"common": 8, "rare": 8}
    assert not np.isin(labels[order[:48]], ["", "unknown"]).any()


def test_whole_datasets_are_nested_too(pieces: Path, tmp_path: Path) -> None:
    pool = training_cells(pieces)
    masks = [first_datasets(pool, SubsetRule(seed=1), count) for count in (1, 2, 3)]
    assert np.all(masks[0] <= masks[1])
    assert masks[2].all()
    folder = subset_corpus(pieces, tmp_path / "sub", datasets=2, rule=SubsetRule(seed=1))
    assert verify_corpus(folder).ok
    names = {name for name, _ in cells_of(folder)}
    assert len(names) == 2
    assert cells_of(folder) == {cell for cell in cells_of(pieces) if cell[0] in names}


def test_only_named_datasets_give_cells(pieces: Path, tmp_path: Path) -> None:
    folder = subset_corpus(pieces, tmp_path / "sub", cells=15, rule=SubsetRule(only=("three",)))
    assert {name for name, _ in cells_of(folder)} == {"three"}
    assert set(read_index(folder).stores) == {"three", "kept"}


def test_the_corpus_itself_is_not_touched(pieces: Path, tmp_path: Path) -> None:
    before = content(pieces)
    subset_corpus(pieces, tmp_path / "sub", cells=33)
    assert content(pieces) == before


def test_what_cannot_be_had_is_said_before_anything_is_written(pieces: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub"
    for cells, datasets, rule, reason in (
        (121, None, SubsetRule(), r"121 cells of .*: 1 to 120 can be had"),
        (0, None, SubsetRule(), "0 cells"),
        (None, 4, SubsetRule(), r"4 datasets of .*: 1 to 3"),
        (None, None, SubsetRule(), "how large"),
        (5, None, SubsetRule(only=("on",)), "no training cells of a dataset on. Did you mean one"),
        (5, None, SubsetRule("spike", spike="kept"), "no training cells of kept"),
    ):
        with pytest.raises(UsageError, match=reason):
            subset_corpus(pieces, out, cells=cells, datasets=datasets, rule=rule)
    with pytest.raises(UsageError, match=r"scheme 'sketsh': one of .* Did you mean sketch"):
        SubsetRule("sketsh")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs the name of a dataset"):
        SubsetRule("spike")
    assert not list(tmp_path.iterdir())
    out.mkdir()
    with pytest.raises(OutputExistsError, match="exists"):
        subset_corpus(pieces, out, cells=5)


def test_a_spike_ends_with_its_cells(pieces: Path) -> None:
    pool = training_cells(pieces)
    rule = SubsetRule("spike", spike="three", share=0.5)
    assert len(cell_sequence(pool, rule)) in (40, 41)
    assert np.isin(pool.datasets()[first_cells(pool, rule, 40)], "three").sum() == 20


def test_the_command_writes_a_corpus(pieces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "sub"
    assert main(["corpus", "subset", str(pieces), "--cells", "12", "--scheme", "reweighted", "-o", str(out)]) == 0
    assert "4 datasets, 42 cells" in capsys.readouterr().out
    assert "scheme reweighted, " in (out / "report.md").read_text()
    assert main(["corpus", "subset", str(pieces), "--cells", "12", "-o", str(out)]) == 5

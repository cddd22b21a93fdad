"""Labels between two data sets: what a perfect, a useless and an over-corrected space get; real orthologues."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from uce.cells.matching import Match
from uce.engines import Settings as Computing
from uce.engines import prepare_reader
from uce.errors import InputError
from uce.evaluation import cross, pair_records
from uce.evaluation.cells import Cells
from uce.evaluation.context import Context, Settings
from uce.evaluation.cross import METRICS, judge_cross
from uce.evaluation.embeddings import Embedding
from uce.evaluation.orthology import gene_pairs
from uce.evaluation.pair_records import pair_facts
from uce.evaluation.pairing import pair_up
from uce.evaluation.results import EvalResult, Findings, Row
from uce.genes.collection import load_gene_table
from uce.genes.resolver import resolve
from uce.genes.tables import GeneTable
from uce.model.checkpoint import Model

KINDS = {"human": ["B cell", "T cell", "gland"], "mouse": ["b_cell", "T-cell", "whisker"]}
PLACES = {"B cell": 0, "b_cell": 0, "T cell": 1, "T-cell": 1, "gland": 2, "whisker": 3}
DONORS = 7
QUICK = Settings(bootstrap=200)
Read = Callable[..., tuple[Cells, Cells]]


def plain_cells(name: str, each: int = 35) -> Cells:
    """Cells of one side without counts."""
    labels = np.repeat(KINDS[name], each)
    names = np.array([f"cell{i}" for i in range(len(labels))], dtype=object)
    return Cells(name, names, labels, groups=np.array([f"d{i % DONORS}" for i in range(len(labels))]))


def placed(cells: Cells, *, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    """Vectors in which equal kinds of both sides lie at one place, but for an offset."""
    rng = np.random.default_rng(seed)
    centres = np.eye(6)[[PLACES[label] for label in cells.labels]] * 10 + offset * np.eye(6)[5]
    return (centres + rng.standard_normal(centres.shape)).astype(np.float32)


def space(first: np.ndarray, second: np.ndarray, name: str = "space") -> tuple[Embedding, Embedding]:
    """The vectors of both sides as a given embedding."""
    return Embedding(name, first, "given"), Embedding(name, second, "given")


def judged(first: Cells, second: Cells, *spaces: tuple[Embedding, Embedding], **options: object) -> EvalResult:
    """The evaluation, quick and quiet."""
    return judge_cross(first, second, spaces, QUICK, quiet=True, **options)  # type: ignore[arg-type]


def score(result: EvalResult, embedding: str, metric: str) -> Row:
    """One row."""
    return next(row for row in result.rows if (row.embedding, row.score.metric) == (embedding, metric))


@pytest.fixture(scope="module")
def planted() -> EvalResult:
    """Two sides in a space that is right, one that is dealt at random, and one that is off by an offset."""
    human, mouse = plain_cells("human"), plain_cells("mouse")
    right = space(placed(human), placed(mouse, seed=1), "right")
    wrong = space(np.random.default_rng(2).permutation(placed(human)), placed(mouse, seed=1), "wrong")
    apart = space(placed(human), placed(mouse, offset=60, seed=1), "apart")
    return judged(human, mouse, right, wrong, apart)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("metric", ["knn_f1", "logistic_f1", "accuracy", "bound", "retrieval"])
def test_an_aligned_space_carries_every_label_both_ways(planted: EvalResult, metric: str, direction: str) -> None:
    assert planted.value("right", f"cross_{metric}_{direction}") == 1


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_space_dealt_at_random_carries_none(planted: EvalResult, direction: str) -> None:
    assert planted.value("shuffled", f"cross_knn_f1_{direction}") < 0.65  # chance is 0.5
    assert planted.value("wrong", f"cross_knn_f1_{direction}") < 0.65
    assert planted.value("oracle", f"cross_knn_f1_{direction}") == 1


def test_kinds_of_one_side_alone_stand_out_where_they_lie_elsewhere(planted: EvalResult) -> None:
    assert planted.value("right", "cross_unseen_auroc_forward") == 1
    lines = planted.details["cross"]["right"]["unseen"]
    assert [(line["from"], line["to"], line["label"]) for line in lines] == [
        ("human", "mouse", "whisker"),
        ("mouse", "human", "gland"),
    ]
    assert all(sum(line["called"].values()) == pytest.approx(1) for line in lines)


def test_labels_are_shared_by_name_and_the_rest_is_not_scored(planted: EvalResult) -> None:
    assert planted.facts["shared_labels"] == ["B cell", "T cell"]
    assert [side["own_labels"] for side in planted.facts["sides"]] == [["gland"], ["whisker"]]
    row = score(planted, "right", "cross_knn_f1_forward").score
    assert (row.n_cells, row.n_labels, row.n_groups) == (70, 2, DONORS)
    assert row.headline
    assert {line["shared"] for line in planted.facts["label_mapping"] if line["both"]} == {"B cell", "T cell"}


def test_intervals_come_from_donors_of_the_side_that_is_tested(planted: EvalResult) -> None:
    row = score(planted, "wrong", "cross_knn_f1_forward").score
    assert row.low < row.value < row.high
    assert f"from {DONORS} resampled groups" in row.note
    few = replace(plain_cells("mouse"), groups=np.resize(["d1", "d2"], 105))
    human = plain_cells("human")
    result = judged(human, few, space(placed(human), placed(few)))
    forward, backward = (score(result, "space", f"cross_knn_f1_{way}").score for way in ("forward", "backward"))
    assert np.isnan(forward.low)
    assert forward.n_groups == 2
    assert np.isfinite(backward.low)


def test_confusion_and_per_label_numbers_belong_to_the_score(planted: EvalResult) -> None:
    forward, backward = planted.details["cross"]["wrong"]["directions"]
    assert (forward["from"], forward["to"]) == ("human", "mouse")
    assert (backward["from"], backward["to"]) == ("mouse", "human")
    for line, way in ((forward, "forward"), (backward, "backward")):
        assert np.sum(line["confusion"]) == 70
        assert line["macro_f1"] == planted.value("wrong", f"cross_knn_f1_{way}")
        assert np.mean([each["f1"] for each in line["per_label"]]) == pytest.approx(line["macro_f1"])
        assert line["bound"]["macro_f1"] == planted.value("wrong", f"cross_bound_{way}")


def test_predictions_give_the_scores_again(planted: EvalResult) -> None:
    columns = planted.predictions["cross"]["wrong"]
    to_mouse = columns["fold"] == "to mouse"
    right = columns["label"][to_mouse] == columns["knn_label"][to_mouse]
    assert right.mean() == planted.value("wrong", "cross_accuracy_forward")
    assert len(set(columns["cell"])) == len(columns["cell"]) == 140
    assert all(group.startswith("mouse: d") for group in columns["group"][to_mouse])


def test_mixing_knows_an_offset_that_transfer_does_not(planted: EvalResult) -> None:
    assert planted.value("right", "cross_mixing") > 0.7
    assert planted.value("apart", "cross_mixing") < 0.05
    assert planted.value("apart", "cross_mixing_ceiling") > 0.7
    checks = [line["check"] for line in planted.details["cross"]["right"]["overcorrection"]]
    assert checks == ["mixing", "mixing of two halves", "labels absorbed"]


def test_baselines_that_need_genes_say_so_and_every_number_has_a_row(planted: EvalResult) -> None:
    for name in ("mean-genes", "ortholog-pca", "ortholog-harmony"):
        row = score(planted, name, "cross_knn_f1_forward")
        assert row.score.status == "skipped"
        assert "needs a model" in row.score.note
    names = {row.embedding for row in planted.rows}
    assert len(planted.rows) == len(names) * len(METRICS)
    assert not [row for row in planted.rows if row.score.status == "failed"]
    assert {metric for metric, _ in METRICS} == {row.score.metric for row in planted.rows}


def test_an_over_corrected_given_space_stands_at_the_top(planted: EvalResult) -> None:
    human, mouse = plain_cells("human", 140), plain_cells("mouse", 140)
    # A few whisker cells are put among the human B cells, and the mouse has no B cells there.
    few = (mouse.labels == "whisker") & (np.arange(len(mouse)) % 28 == 0)
    mouse = mouse.take(np.flatnonzero(few | (mouse.labels == "T-cell")))
    moved = placed(replace(mouse, labels=np.where(mouse.labels == "whisker", "b_cell", mouse.labels)), seed=1)
    result = judged(human, mouse, space(placed(human), moved, "pulled"))
    assert [text for text in result.banners if text.startswith("pulled is over-corrected")]
    assert "whisker (mouse) into B cell" in score(result, "pulled", "cross_absorbed").score.note
    assert not planted.banners


def test_one_shared_label_has_no_f1_but_a_rank(planted: EvalResult, tmp_path: Path) -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    table = tmp_path / "map.csv"
    table.write_text("file,label,shared\nhuman,B cell,lymphocyte\nmouse,T-cell,lymphocyte\n")
    result = judged(human, mouse, space(placed(human), placed(mouse, seed=1)), label_map=table)
    row = score(result, "space", "cross_knn_f1_forward").score
    assert row.status == "undefined"
    assert np.isnan(row.value)
    assert "lymphocyte" in row.note
    # Human B cells are called what mouse T cells are: the nearest place is another label.
    assert result.value("space", "cross_retrieval_forward") < 1
    assert result.value("space", "cross_unseen_auroc_forward") >= 0


def test_a_label_map_decides_what_is_scored(tmp_path: Path) -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    table = tmp_path / "map.csv"
    # Turned around on purpose: a space that is right about the cells is then wrong about the labels.
    table.write_text("file,label,shared\nhuman,B cell,one\nhuman,T cell,two\nmouse,T-cell,one\nmouse,b_cell,two\n")
    result = judged(human, mouse, space(placed(human), placed(mouse, seed=1)), label_map=table)
    assert result.facts["shared_labels"] == ["one", "two"]
    assert result.value("space", "cross_knn_f1_forward") == 0
    assert result.value("space", "cross_bound_forward") == 1


def test_a_map_may_leave_cells_out(tmp_path: Path) -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    table = tmp_path / "map.csv"
    table.write_text("label,shared\nB cell,B\nb_cell,B\nT cell,T\nT-cell,T\ngland,\n")
    result = judged(human, mouse, space(placed(human), placed(mouse, seed=1)), label_map=table)
    assert [(side["cells"], side["left_out"]) for side in result.facts["sides"]] == [(70, 35), (105, 0)]
    assert score(result, "space", "cross_unseen_auroc_backward").score.status == "skipped"
    assert result.value("space", "cross_knn_f1_backward") == 1


def test_no_shared_label_names_both_lists() -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    mouse = replace(mouse, labels=np.resize(["paw", "tail"], len(mouse)))
    with pytest.raises(InputError, match=r"human has B cell, T cell, gland and mouse has paw, tail"):
        judged(human, mouse, space(placed(human), placed(plain_cells("mouse"))))


def test_cells_without_a_vector_are_left_out_on_their_side() -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    holes = placed(mouse, seed=1)
    holes[:5] = np.nan
    result = judged(human, mouse, space(placed(human), holes))
    assert score(result, "space", "cross_knn_f1_forward").score.n_cells == 65
    assert score(result, "space", "cross_knn_f1_backward").score.n_cells == 70
    assert result.embeddings[0]["left_out"] == 5
    assert result.value("space", "cross_knn_f1_forward") == 1


def test_spaces_of_different_width_are_not_one_space() -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    result = judged(human, mouse, space(placed(human), placed(mouse)[:, :4]))
    row = score(result, "space", "cross_knn_f1_forward").score
    assert row.status == "skipped"
    assert "6 wide in one data set and 4 in the other" in row.note


def test_data_sets_of_one_name_are_told_apart() -> None:
    human, mouse = (replace(plain_cells(name), name="cells") for name in KINDS)
    result = judged(human, mouse, space(placed(human), placed(mouse, seed=1)))
    assert [side["name"] for side in result.facts["sides"]] == ["cells (1)", "cells (2)"]
    assert result.value("space", "cross_knn_f1_forward") == 1


def test_a_part_that_breaks_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    parts = tuple((names, broken if names == ("cross_absorbed",) else part) for names, part in cross._PARTS)
    monkeypatch.setattr(cross, "_PARTS", parts)
    human, mouse = plain_cells("human"), plain_cells("mouse")
    result = judged(human, mouse, space(placed(human), placed(mouse, seed=1)))
    failed = score(result, "space", "cross_absorbed").score
    assert (failed.status, failed.note) == ("failed", "ZeroDivisionError: planted")
    assert result.value("space", "cross_knn_f1_forward") == 1


def test_same_cells_same_numbers_and_an_added_space_changes_no_other() -> None:
    human, mouse = plain_cells("human"), plain_cells("mouse")
    one = space(placed(human), np.random.default_rng(0).permutation(placed(mouse)), "one")
    other = space(placed(human), placed(mouse, seed=1), "other")
    alone, again, both = (judged(human, mouse, *spaces) for spaces in ((one,), (one,), (one, other)))
    assert alone.table().equals(again.table())
    mine = [table[table.embedding == "one"].reset_index(drop=True) for table in (alone.table(), both.table())]
    assert mine[0].equals(mine[1])


def test_the_result_is_written_as_json_and_tsv(planted: EvalResult, tmp_path: Path) -> None:
    planted.write(tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["facts"]["shared_labels"] == ["B cell", "T cell"]
    assert {row["metric"] for row in stored["scores"]} == {metric for metric, _ in METRICS}
    assert (tmp_path / "results.tsv").read_text().count("cross_mixing\t") == len(stored["embeddings"])


def reader_of(model: Model, genes: list[str], table: GeneTable) -> object:
    """The model made ready for these columns."""
    match = Match(table, resolve(genes, table), "as given", {}, ())
    return prepare_reader(model, match, Computing(torch.device("cpu"), "fp32"))


@pytest.fixture(scope="module")
def two_species(tiny_model: Model) -> tuple[Cells, Cells]:
    """Human and mouse cells whose shared kinds use the same orthologues; a third of the genes has no partner."""
    tables = load_gene_table("human"), load_gene_table("mouse")
    rng = np.random.default_rng(5)
    pairs = gene_pairs(*tables, None)[0]
    chosen = pairs[rng.choice(len(pairs), 400, replace=False)]
    kinds = rng.gamma(0.3, 1.0, size=(4, 400))
    sides = []
    for number, (name, table) in enumerate(zip(KINDS, tables, strict=True)):
        cells = plain_cells(name)
        alone = np.setdiff1d(np.arange(len(table)), pairs[:, number])[:200]
        kind = [PLACES[label] for label in cells.labels]
        means = np.concatenate([kinds[kind] * rng.lognormal(0, 0.3, 400), np.full((len(cells), 200), 0.4)], axis=1)
        genes = table.ids[np.concatenate([chosen[:, number], alone])].tolist()
        counts = sparse.csr_matrix(rng.poisson(3 * means).astype(np.float64))
        sides.append(replace(cells, counts=counts, reader=reader_of(tiny_model, genes, table)))  # type: ignore[arg-type]
    return sides[0], sides[1]


@pytest.fixture(scope="module")
def species_result(two_species: tuple[Cells, Cells]) -> EvalResult:
    """Human against mouse, with everything that needs genes."""
    return judged(*two_species)


@pytest.mark.parametrize("name", ["ortholog-pca", "ortholog-harmony"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_orthologues_carry_labels_between_species(species_result: EvalResult, name: str, direction: str) -> None:
    assert species_result.value(name, f"cross_knn_f1_{direction}") > 0.95
    assert species_result.value("shuffled", f"cross_knn_f1_{direction}") < 0.65


def test_the_number_of_orthologues_and_their_share_are_told(species_result: EvalResult) -> None:
    facts = species_result.facts
    assert facts["orthologs"] == 400
    assert "bundled" in facts["orthologs_source"]
    assert all(0.5 < side["counts_in_orthologs"] < 0.99 for side in facts["sides"])
    notes = {line["name"]: line["note"] for line in species_result.embeddings}
    assert notes["ortholog-pca"].startswith("400 shared genes (one-to-one orthologues")


def test_what_is_built_in_is_said_for_bundled_vectors_of_two_species_only(
    species_result: EvalResult, two_species: tuple[Cells, Cells]
) -> None:
    told = "one-to-one orthologues have equal gene vectors by construction"
    assert [told in text for text in species_result.banners] == [True]
    notes = {line["name"]: line["note"] for line in species_result.embeddings}
    assert [name for name, note in notes.items() if told in note] == ["tiny", "mean-genes"]
    human = two_species[0]
    halves = [human.take(np.flatnonzero(np.arange(len(human)) % 2 == half)) for half in (0, 1)]
    same = judged(replace(halves[0], name="even"), replace(halves[1], name="odd"))
    assert same.banners == ()
    assert same.facts["orthologs_source"] == "equal gene ids of homo_sapiens"
    assert same.facts["orthologs"] == 600
    assert same.value("ortholog-pca", "cross_knn_f1_forward") > 0.95
    # Two halves of one data set: nothing can be mixed better, and the ceiling says so.
    assert same.value("ortholog-pca", "cross_mixing") > 0.6


def test_what_the_model_was_trained_on_is_told_for_each_side(two_species: tuple[Cells, Cells]) -> None:
    human, mouse = two_species
    assert human.reader is not None
    knows_humans = replace(human.reader.model, gene_tables=[{"species": "homo_sapiens"}])
    sides = [replace(side, reader=replace(side.reader, model=knows_humans)) for side in (human, mouse)]  # type: ignore[type-var]
    pair, _ = pair_up(sides[0], sides[1], None)
    told = [side["species_trained_on"] for side in pair_facts(pair, None, (human, mouse))["sides"]]
    assert told == [True, False]
    unknown = pair_facts(pair_up(human, mouse, None)[0], None, (human, mouse))["sides"]
    assert [side["species_trained_on"] for side in unknown] == [None, None]


def test_leakage_of_either_side_is_leakage(
    two_species: tuple[Cells, Cells], monkeypatch: pytest.MonkeyPatch, species_result: EvalResult
) -> None:
    assert species_result.leakage["status"] == "unknown"
    assert "human: tiny has no training manifest" in species_result.leakage["note"]
    evidence = {"human": ("clean", 0, []), "mouse": ("cell-overlap", 21, [{"dataset": "atlas"}])}

    def planted_leak(context: Context) -> Findings:
        status, cells, rows = evidence[context.cells.name]
        found = {"status": status, "cells": cells, "rows": rows, "note": "so", "manifests": ["m"], "doubts": []}
        return Findings((), found)

    monkeypatch.setattr(pair_records, "find_leakage", planted_leak)
    found = pair_records.pair_leakage(pair_up(*two_species, None)[0], QUICK)
    assert (found["status"], found["share"]) == ("cell-overlap", 0.1)
    assert found["rows"] == [{"side": "mouse", "dataset": "atlas"}]


def test_our_model_embeds_both_sides(species_result: EvalResult) -> None:
    own = species_result.embeddings[0]
    assert (own["name"], own["kind"], own["status"], own["cells"]) == ("tiny", "own", "ok", 210)
    assert np.isfinite(species_result.value("tiny", "cross_knn_f1_forward"))


def test_every_check_of_over_correction_is_there(species_result: EvalResult) -> None:
    checks = [line["check"] for line in species_result.details["cross"]["ortholog-harmony"]["overcorrection"]]
    assert checks == [
        "mixing",
        "mixing of two halves",
        "labels absorbed",
        "labels within",
        "scGraph within human",
        "scGraph within mouse",
    ]
    assert species_result.value("ortholog-pca", "cross_within_drop") == 0
    assert species_result.value("ortholog-pca", "cross_scgraph_first") > 0.8
    assert species_result.value("shuffled", "cross_scgraph_first") < 0.5


def test_a_list_of_orthologues_takes_the_place_of_the_bundled_ones(
    two_species: tuple[Cells, Cells], tmp_path: Path
) -> None:
    human, mouse = two_species
    pairs = gene_pairs(load_gene_table("human"), load_gene_table("mouse"), None)[0]
    ids = np.stack([load_gene_table("mouse").ids[pairs[:, 1]], load_gene_table("human").ids[pairs[:, 0]]], axis=1)
    assert mouse.reader is not None
    there = np.isin(pairs[:, 1], mouse.reader.match.resolution.rows)
    path = tmp_path / "pairs.csv"
    path.write_text("gene,human_gene\n" + "".join(f"{one},{other}\n" for one, other in ids[there][:150]))
    result = judged(human, mouse, orthologs=path)
    assert result.facts["orthologs"] == 150
    assert result.facts["orthologs_source"] == "one-to-one pairs of the list given"


def test_real_blood_of_two_studies(shared: Path, tiny_model: Model) -> None:
    from uce.evaluation.reading import Columns, read_cells

    sides = [
        read_cells(
            shared / "data" / "cells" / f"{name}.h5ad",
            Columns("cell_type_coarse", "batch"),
            model=tiny_model,
            computing=Computing(torch.device("cpu"), "fp32"),
            max_cells=150,
        ).cells
        for name in ("human_pbmc_10x3k", "human_pbmc_kang")
    ]
    result = judged(*sides)
    assert {"B_cell", "NK_cell", "monocyte"} <= set(result.facts["shared_labels"])
    assert result.value("ortholog-pca", "cross_knn_f1_backward") > 0.7
    assert result.value("shuffled", "cross_knn_f1_backward") < 0.3
    assert "no donors are known" in score(result, "ortholog-pca", "cross_knn_f1_forward").score.note
    assert "RANDOM" in score(result, "ortholog-pca", "cross_bound_backward").score.note

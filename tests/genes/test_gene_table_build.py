"""The command that makes the bundled gene tables: its steps on small made-up input, and a species made anew."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import build_gene_tables

    return build_gene_tables


@pytest.fixture
def coexpression(build: ModuleType) -> ModuleType:
    import gene_coexpression

    return gene_coexpression


@pytest.fixture
def records(build: ModuleType) -> ModuleType:
    import gene_records

    return gene_records


def gene(records: ModuleType, name: str, **given: Any) -> Any:
    plain = {"symbol": "", "synonyms": [], "chromosome": "1", "start": 1, "human": [], "evidence": "orthology"}
    return records.Gene(id=name, **{**plain, "coding": "protein_coding", "curated": False, **given})


def test_loadings_are_the_right_singular_vectors(coexpression: ModuleType):
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(80, 6)) * 2.0 ** -np.arange(6) @ rng.normal(size=(6, 120))).astype(np.float32)
    found, values = coexpression.loadings(matrix, width=4)
    _, expected, vt = np.linalg.svd(matrix)
    assert np.allclose(values, expected[:4], rtol=1e-3)
    assert np.allclose(np.abs((found * vt[:4].T).sum(axis=0)), 1, atol=1e-3)


def test_loadings_of_equal_input_are_equal(coexpression: ModuleType):
    matrix = np.random.default_rng(1).normal(size=(50, 70)).astype(np.float32)
    assert np.array_equal(*(coexpression.loadings(matrix, width=5)[0] for _ in range(2)))


def test_every_set_is_centred_and_a_gene_has_unit_spread(coexpression: ModuleType):
    rng = np.random.default_rng(2)
    sets = {name: sp.csr_matrix(rng.random((40, 9)) + shift) for name, shift in (("a", 0), ("b", 5))}
    matrix, seen = coexpression.standardise(sets, floor=0.0)
    assert np.allclose([matrix[:40].mean(axis=0), matrix[40:].mean(axis=0)], 0, atol=1e-6)
    assert np.allclose((matrix[:40].var(axis=0) + matrix[40:].var(axis=0)) / 2 * 40**0.5, 1, atol=1e-5)
    assert (seen == 80).all()


def test_counts_of_a_gene_with_two_anchors_are_halved_and_none_is_lost(coexpression: ModuleType):
    mapped = coexpression.to_anchors([0, 1, -1], [[2], [0, 2]], 3)
    assert np.array_equal(mapped.toarray(), [[0, 0, 1], [0.5, 0, 0.5], [0, 0, 0]])


def test_ridge_finds_a_linear_rule(coexpression: ModuleType):
    inputs = np.random.default_rng(3).normal(size=(200, 3)).astype(np.float32)
    rule = np.array([[1.0, 0], [0, 2], [-1, 1], [0.5, -0.5]])
    found = coexpression.ridge(inputs, inputs @ rule[:3] + rule[3], penalty=1e-6)
    assert np.allclose(found, rule, atol=1e-4)


def test_hardly_seen_genes_have_the_predicted_co_expression(build: ModuleType):
    rng = np.random.default_rng(4)
    annotation = rng.normal(size=(400, 4)).astype(np.float32)
    rule = rng.normal(size=(4, 6)).astype(np.float32)
    seen = np.where(np.arange(400) < 300, 10**6, 0)
    annotated = np.arange(400) < 399
    completed = build.complete((annotation @ rule) * (seen > 0)[:, None], annotation, annotated=annotated, seen=seen)
    assert np.allclose(completed[:300], annotation[:300] @ rule, atol=1e-3)
    assert np.allclose(completed[300:399], annotation[300:399] @ rule, atol=0.5)
    assert not completed[399].any()


def test_a_group_is_one_human_gene_never_a_component(records: ModuleType):
    genes = [gene(records, "A", human=["H1", "H2"]), gene(records, "B", human=["H2", "H3"]), gene(records, "C")]
    assert records.refer(genes, {"H1": 0, "H2": 1, "H3": 2}, {}) == [[0, 1], [1, 2], []]


def test_a_disputed_synonym_stays_with_all_when_no_heir_is_plain(records: ModuleType):
    genes = [
        gene(records, "A", symbol="FOO1", synonyms=["FOO", "BAR"]),
        gene(records, "B", symbol="X", synonyms=["FOO", "BAR"]),
    ]
    records.settle_synonyms(genes, genes)
    assert [each.synonyms for each in genes] == [["FOO", "BAR"], ["BAR"]]


def test_lent_synonyms_never_repeat_a_name_in_use(records: ModuleType):
    human = [gene(records, "H1", symbol="ELOB", synonyms=["TCEB2", "SIII"])]
    genes = [gene(records, "A", symbol="Elob", human=["H1"]), gene(records, "B", symbol="Siii")]
    records.lend_synonyms(genes, human)
    assert genes[0].synonyms == ["TCEB2"]


def test_names_prefer_id_then_symbol_then_case_then_a_unique_synonym(records: ModuleType):
    genes = [
        gene(records, "A", symbol="Abc", synonyms=["old", "both"]),
        gene(records, "B", symbol="ABC", synonyms=["both"]),
    ]
    names = records.Names(genes)
    assert [names.row(name) for name in ("A", "B", "Abc", "ABC", "abc", "old", "both", "no")] == [
        0,
        1,
        0,
        1,
        -1,
        0,
        -1,
        -1,
    ]


def test_a_missing_or_changed_source_stops_the_command(
    build: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert build.main(["--sources", str(tmp_path), "--out", str(tmp_path / "out")]) == 4
    assert "missing or not as in data_manifests: genes/homo_sapiens.csv.gz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_species_made_anew_from_the_sources_is_the_bundled_one(build: ModuleType, shared: Path):
    folder = shared / "data" / "genes"
    data = ROOT / "uce" / "data" / "genes"
    genes = {name: build.read_species(folder, name) for name in ("homo_sapiens", "caenorhabditis_elegans")}
    for listed in genes.values():
        build.settle_synonyms(listed, genes["homo_sapiens"])
    with np.load(data / "groups.npz") as content:
        anchors = content["anchors"].tobytes().decode().split("\n")
    groups = {anchor: row for row, anchor in enumerate(anchors)}
    human = genes["homo_sapiens"]
    references = [
        [groups[human[row].id] for row in rows if human[row].id in groups]
        for rows in build.reference_all(genes)["caenorhabditis_elegans"]
    ]
    made = build._columns("caenorhabditis_elegans", genes["caenorhabditis_elegans"], references)
    with np.load(data / "caenorhabditis_elegans.npz") as content:
        assert all(np.array_equal(content[name], made[name]) for name in content.files)

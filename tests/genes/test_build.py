"""From proteins to gene tables: mean over isoforms, places, going on after a kill, real proteins and vectors."""

import csv
import gzip
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uce.errors import InputError, OutputExistsError
from uce.genes.proteins import build
from uce.genes.proteins.build import build_table, embed_in_parts, table_from_vectors
from uce.genes.proteins.esm2 import ProteinEncoder, embed_sequences, load_esm2
from uce.genes.proteins.sequences import Protein, Proteome, read_proteome
from uce.genes.tables import read_table, write_table


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from esm.model.esm2 import ESM2

    torch.manual_seed(1)
    settings = Namespace(encoder_layers=1, encoder_embed_dim=16, encoder_attention_heads=2, token_dropout=True)
    state = ESM2(num_layers=1, embed_dim=16, attention_heads=2).state_dict()
    named = {
        (f"encoder.{key}" if key.startswith("lm_head") else f"encoder.sentence_encoder.{key}"): value
        for key, value in state.items()
        if not key.startswith("contact_head.regression")
    }
    path = tmp_path_factory.mktemp("esm2") / "esm2_t1_tiny_UR50D.pt"
    torch.save({"cfg": {"model": settings}, "model": named}, path)
    return path


@pytest.fixture(scope="module")
def encoder(weights: Path) -> ProteinEncoder:
    return load_esm2(weights)


PROTEINS = [
    Protein("p3", "G2", "TNF", "MSTESMIRD", "6", 300),
    Protein("p1", "G1", "TP53", "MEEPQSD", "HSCHR17_ALT", 5),
    Protein("p2", "G1", "TP53", "MEEPQSDPSV", "17", 900),
    Protein("p4", "", "Abcb1a", "MELEED"),
    Protein("p5", "G1", "P53", "MEEPQSD", "17", 800),
]


def table_of(proteins: list[Protein], vectors: np.ndarray, **options: Any) -> Any:
    return table_from_vectors(proteins, vectors, species="homo_sapiens", encoder="toy", **options)


def test_a_gene_has_the_plain_mean_of_its_proteins() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    table = table_of(PROTEINS, vectors)
    assert table.ids.tolist() == ["Abcb1a", "G1", "G2"]
    assert table.symbols.tolist() == ["Abcb1a", "TP53", "TNF"]
    assert table.synonyms.tolist() == ["", "P53", ""]
    assert table.chromosomes.tolist() == ["unplaced", "17", "6"]
    assert table.starts.tolist() == [0, 800, 300]
    assert set(table.origins) == {"protein"}
    expected = vectors[[1, 2, 4]].astype(np.float64).mean(0).astype(np.float32)
    np.testing.assert_array_equal(table.vectors, np.stack([vectors[3], expected, vectors[0]]))


def test_the_order_of_the_file_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(1)
    proteins = [Protein(f"p{i}", f"G{i % 7}", f"S{i % 7}", "M" * (1 + i % 5)) for i in range(60)]
    vectors = (rng.normal(size=(60, 6)) * 10.0 ** rng.integers(-6, 6, size=(60, 6))).astype(np.float32)
    order = rng.permutation(60)
    for isoforms in ("mean", "longest"):
        one = table_of(proteins, vectors, isoforms=isoforms)
        two = table_of([proteins[i] for i in order], vectors[order], isoforms=isoforms)
        assert one.sha256 == two.sha256


def test_the_longest_isoform_can_stand_for_the_gene() -> None:
    vectors = np.arange(1, 41, dtype=np.float32).reshape(5, 8)
    table = table_of(PROTEINS, vectors, isoforms="longest")
    np.testing.assert_array_equal(table.vectors[1], vectors[2])
    assert table.metadata["isoforms"] == "longest"


def test_given_places_win_by_id_then_by_symbol() -> None:
    places = {"G1": ("17", 7668421), "Abcb1a": ("5", 8710077), "TP53": ("1", 1)}
    table = table_of(PROTEINS, np.ones((5, 2)), places=places)
    assert list(zip(table.chromosomes.tolist(), table.starts.tolist(), strict=True)) == [
        ("5", 8710077),
        ("17", 7668421),
        ("6", 300),
    ]


def test_a_vector_for_every_protein_is_demanded() -> None:
    with pytest.raises(InputError, match=r"vectors of shape \(4, 2\) for 5 proteins"):
        table_of(PROTEINS, np.ones((4, 2)))


# Resuming


def random_sequences(n: int) -> list[str]:
    rng = np.random.default_rng(3)
    return ["M" + "".join(rng.choice(list("LAGVSERTIDPKQNFYHWC"), rng.integers(1, 90))) for _ in range(n)]


def test_parts_give_the_vectors_of_one_go_and_equal_sequences_are_embedded_once(
    encoder: ProteinEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = random_sequences(150)
    seen: list[int] = []
    monkeypatch.setattr(
        build, "embed_sequences", lambda *args, **kw: (seen.append(len(args[1])), embed_sequences(*args, **kw))[1]
    )
    vectors = embed_in_parts(encoder, sequences + sequences[:50], tmp_path / "parts", progress=False)
    assert seen == [64, 64, 22]
    np.testing.assert_allclose(vectors[:150], embed_sequences(encoder, sequences), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(vectors[150:], vectors[:50])


def test_finished_parts_are_not_computed_again_and_damaged_ones_are(
    encoder: ProteinEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = random_sequences(150)
    vectors = embed_in_parts(encoder, sequences, tmp_path / "parts", progress=False)
    damaged = tmp_path / "parts" / "000001.npy"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    seen: list[int] = []
    monkeypatch.setattr(
        build, "embed_sequences", lambda *args, **kw: (seen.append(len(args[1])), embed_sequences(*args, **kw))[1]
    )
    again = embed_in_parts(encoder, sequences, tmp_path / "parts", progress=False)
    np.testing.assert_array_equal(vectors, again)
    assert seen == [64]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"sha256": "0" * 64}}, r"parts: holds parts with encoder_sha256 .*Delete it to start again"),
        ({"encoder": {"name": "other"}}, r"holds parts with encoder esm2_t1_tiny_UR50D, not other"),
        ({"long_proteins": "window"}, r"holds parts with long_proteins truncate, not window"),
        ({"sequences": ["MKV"]}, r"holds parts with proteins_sha256"),
    ],
)
def test_parts_of_another_run_are_not_mixed_in(
    change: dict[str, Any], message: str, encoder: ProteinEncoder, tmp_path: Path
) -> None:
    embed_in_parts(encoder, ["MKL"], tmp_path / "parts", progress=False)
    with pytest.raises(OutputExistsError, match=message):
        embed_in_parts(
            replace(encoder, **change.get("encoder", {})),
            change.get("sequences", ["MKL"]),
            tmp_path / "parts",
            long_proteins=change.get("long_proteins", "truncate"),
            progress=False,
        )


KILLED = """
import sys, time
from uce.genes.proteins import build
from uce.genes.proteins.esm2 import embed_sequences, load_esm2
def slow(*args, **kw):
    time.sleep(0.3)
    return embed_sequences(*args, **kw)
build.embed_sequences = slow
build.embed_in_parts(load_esm2(sys.argv[1]), open(sys.argv[2]).read().split(), sys.argv[3], progress=False)
"""


def test_a_killed_run_goes_on_to_equal_numbers(encoder: ProteinEncoder, weights: Path, tmp_path: Path) -> None:
    sequences = random_sequences(400)
    (tmp_path / "sequences").write_text("\n".join(sequences))
    parts = tmp_path / "parts"
    command = [sys.executable, "-c", KILLED, str(weights), str(tmp_path / "sequences"), str(parts)]
    with subprocess.Popen(command) as process:
        while not (parts / "000001.npy").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert not (parts / "000006.npy").exists()
    untouched = (parts / "000000.npy").stat().st_mtime_ns
    resumed = embed_in_parts(encoder, sequences, parts, progress=False)
    straight = embed_in_parts(encoder, sequences, tmp_path / "other", progress=False)
    np.testing.assert_array_equal(resumed, straight)
    assert (parts / "000000.npy").stat().st_mtime_ns == untouched


# Real proteins, real vectors


@pytest.mark.parametrize(
    ("name", "species", "gene"),
    [
        ("human_partial", "homo_sapiens", "ENSG00000141510"),
        ("mouse_partial", "mus_musculus", "Abcb1a"),
        ("yeast_s288c", "saccharomyces_cerevisiae", "ROY1"),
    ],
)
def test_real_proteins_become_a_gene_table(
    name: str, species: str, gene: str, shared: Path, encoder: ProteinEncoder, tmp_path: Path
) -> None:
    proteome = read_proteome(shared / "data" / "proteins" / f"{name}.fasta.gz")
    some = [protein for protein in proteome.proteins if gene in (protein.gene, protein.symbol)]
    proteome = Proteome(
        (*proteome.proteins[:300], *(p for p in some if p not in proteome.proteins[:300])), proteome.dropped
    )
    table = build_table(proteome, encoder, tmp_path / "parts", species=species, metadata={"taxon": 1}, progress=False)
    write_table(table, tmp_path / "table.h5ad")
    table = read_table(tmp_path / "table.h5ad")
    assert table.species == species
    assert table.encoder == "esm2_t1_tiny_UR50D"
    assert table.metadata["encoder_sha256"] == encoder.sha256
    assert table.metadata["proteins"] == len(proteome.proteins)
    row = table.ids.tolist().index(gene)
    expected = embed_sequences(encoder, [protein.sequence for protein in some]).mean(axis=0)
    np.testing.assert_allclose(table.vectors[row], expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def families(shared: Path) -> dict[str, set[str]]:
    """HGNC gene groups by symbol."""
    with gzip.open(shared / "data" / "genes" / "human_gene_groups.csv.gz", "rt") as stream:
        return {row["symbol"]: set(filter(None, row["gene_group_id"].split("|"))) for row in csv.DictReader(stream)}


def test_real_esm2_vectors_put_families_together_after_the_way_through_a_table(
    shared: Path, families: dict[str, set[str]], tmp_path: Path
) -> None:
    with np.load(shared / "data" / "gene_vectors" / "esm2_8m_kinases.npz") as content:
        stored = dict(content)
        named = np.flatnonzero(stored["symbol"] != "")
        proteins = [
            Protein(
                f"{stored['dataset'][i]}:{stored['key'][i]}", "", str(stored["symbol"][i]), str(stored["sequence"][i])
            )
            for i in named
        ]
        vectors = stored["vectors"][named]
    table = table_from_vectors(proteins, vectors, species="homo_sapiens", encoder="esm2_t6_8M_UR50D")
    write_table(table, tmp_path / "kinases.h5ad")
    table = read_table(tmp_path / "kinases.h5ad")
    assert table.vectors.shape == (326, 320)
    centred = table.vectors - table.vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T
    np.fill_diagonal(cosines, -2)
    groups = [families.get(symbol, set()) for symbol in table.ids]
    kin = np.array([[bool(one & other) for other in groups] for one in groups])
    np.fill_diagonal(kin, False)
    near = kin[np.arange(326), cosines.argmax(axis=1)].mean()
    chance = kin.sum() / (326 * 325)
    assert 0.48 < near < 0.58
    assert chance < 0.05

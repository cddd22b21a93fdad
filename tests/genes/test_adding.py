"""A species is added, from the user's side: files and options in, and a table that models read out, or one line."""

import gzip
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import uce
from uce.cells.sentences import SentenceRule
from uce.cli.main import main
from uce.errors import InputError, ModelError, OutputExistsError, StorageError, UsageError
from uce.genes.adding import add_species
from uce.genes.collection import load_gene_table, table_path
from uce.genes.proteins import run
from uce.genes.proteins.esm2 import ProteinEncoder, embed_sequences, load_esm2
from uce.genes.requests import Making, Sources
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder, ModelConfig

SCRIPT = Path(__file__).parents[2] / "scripts" / "random_esm2.py"
SPECIES, TAXON = "lepus_europaeus", 9983
GENES = 40


def random_esm2(path: Path, seed: int, dim: int = 32) -> Path:
    spec = importlib.util.spec_from_file_location("random_esm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    torch.save(script.random_esm2(1, dim, 2, seed=seed), path)
    return path


@pytest.fixture(scope="session")
def esm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_esm2(tmp_path_factory.mktemp("weights") / "esm2_t1_toy.pt", seed=3)


@pytest.fixture(scope="module")
def symbols() -> list[str]:
    """Symbols of human genes with a vector that says something, none of which is anything else in another case."""
    human = load_gene_table("human")
    good = human.symbols[(human.origins == "group") & (human.symbols != "")]
    return np.random.default_rng(0).choice(good, GENES, replace=False).tolist()


@pytest.fixture
def files(tmp_path: Path, symbols: list[str]) -> dict[str, Path]:
    """A proteome with two isoforms for every third gene, its GTF, and lists of orthologues."""
    random = np.random.default_rng(1)
    human = load_gene_table("human")
    ids = dict(zip(human.symbols.tolist(), human.ids.tolist(), strict=True))
    fasta, gtf, pairs = [], ["#!genome-build LepEur2.1"], ["gene,human_gene,weight"]
    for number, symbol in enumerate(symbols):
        gene = f"ENSLEUG{number:011d}"
        place = f"{1 + number % 3}:{1000 * number + 1}:{1000 * number + 900}"
        for isoform in range(1 + (number % 3 == 0)):
            residues = "".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), random.integers(20, 90)))
            fasta.append(
                f">ENSLEUP{number:010d}{isoform}.1 pep primary_assembly:LepEur2.1:{place}:1 gene:{gene}.1 "
                f"transcript:ENSLEUT{number:010d}{isoform}.1 gene_symbol:{symbol} description:some protein\n{residues}"
            )
        facts = f'gene_id "{gene}"; gene_name "{symbol}"; gene_biotype "protein_coding";'
        chromosome, start, end = place.split(":")
        gtf.append("\t".join([chromosome, "ensembl", "gene", start, end, ".", "+", ".", facts]))
        pairs.append(f"{gene},{ids[symbol]},{1 + number % 2}")
    paths = {name: tmp_path / name for name in ("pep.fa", "genes.gtf", "orthologs.csv")}
    for path, lines in zip(paths.values(), (fasta, gtf, pairs), strict=True):
        path.write_text("\n".join(lines) + "\n")
    return {name.split(".")[0]: path for name, path in paths.items()}


@pytest.fixture
def add(files: dict[str, Path], esm2: Path) -> Callable[..., Any]:
    """Add from the proteome of `files`, quietly."""

    def add(species: str = SPECIES, taxon: int | None = TAXON, encoder: str | Path = esm2, **options: Any) -> Any:
        sources = options.pop("sources", Sources(fasta=files["pep"], annotation=files["genes"]))
        return add_species(species, sources, taxon=taxon, encoder=str(encoder), quiet=True, **options)

    return add


def everything_in(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def cells_of(symbols: list[str], n: int = 20) -> anndata.AnnData:
    counts = np.random.default_rng(2).poisson(2.0, size=(n, len(symbols))).astype(np.float32)
    return anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=symbols))


def test_proteins_become_a_table_that_is_found_by_the_name_of_the_species(
    add: Callable[..., Any], esm2: Path, uce_home: Path, symbols: list[str], files: dict[str, Path]
) -> None:
    added = add()
    folder = "genes/esm2_t1_toy"
    assert everything_in(uce_home) == [f"{folder}/{SPECIES}.h5ad", f"{folder}/{SPECIES}.png"]
    table = load_gene_table(SPECIES, encoder="esm2_t1_toy")
    assert table.sha256 == added.table.sha256
    assert sorted(table.symbols.tolist()) == sorted(symbols)
    assert table.ids.tolist() == [f"ENSLEUG{number:011d}" for number in range(GENES)]
    assert table.proteins.tolist() == [2 if number % 3 == 0 else 1 for number in range(GENES)]
    assert table.chromosomes[:4].tolist() == ["1", "2", "3", "1"]
    assert table.starts[:3].tolist() == [1, 1001, 2001]
    assert set(table.origins) == {"protein"}
    facts = table.metadata
    assert (facts["taxon"], facts["assembly"], facts["isoforms"]) == (TAXON, "LepEur2.1", "mean")
    assert facts["fasta"] == "pep.fa"
    assert len(str(facts["fasta_sha256"])) == len(str(facts["encoder_sha256"])) == 64
    assert facts["health"] == added.health.verdict
    records = [text.split("\n")[1] for text in files["pep"].read_text().split(">")[1:]]
    first = embed_sequences(load_esm2(esm2), records[:2]).mean(axis=0)
    np.testing.assert_allclose(table.vectors[0], first, atol=1e-5)


def test_cells_are_embedded_with_a_model_that_reads_the_kind_and_refused_by_others(
    add: Callable[..., Any], symbols: list[str], tmp_path: Path, tiny_folder: Path
) -> None:
    add()
    config = ModelConfig(layers=1, dim=16, heads=2, hidden=32, protein_dim=32, out_dim=8, decoder_dim=16)
    torch.manual_seed(0)
    folder = save_model(
        tmp_path / "fits",
        encoder=Encoder(config),
        rule=SentenceRule(draws=32, max_tokens=96),
        specials=np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32),
        gene_encoder="esm2_t1_toy",
        gene_tables=[],
        info={},
    )
    cells = cells_of(symbols)
    uce.embed(cells, model=folder, species=SPECIES, quiet=True)
    assert np.isfinite(cells.obsm["X_uce"]).all()
    assert cells.uns["uce"]["X_uce"]["gene_vectors"] == "esm2_t1_toy"
    with pytest.raises(
        ModelError,
        match=r"with orthogroups-v1 vectors\. There is one with vectors of esm2_t1_toy;",
    ):
        uce.embed(cells, model=tiny_folder, species=SPECIES, key_added="X", quiet=True)


def test_a_killed_run_goes_on_with_the_proteins_it_had_finished(
    tmp_path: Path, uce_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = random_esm2(tmp_path / "esm2_t1_wide.pt", seed=3, dim=128)
    random = np.random.default_rng(5)
    texts = ["".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), 250)) for _ in range(240)]
    header = ">P{0} pep primary_assembly:A:1:{0}:9999:1 gene:G{0:03d} gene_symbol:S{0}\n{1}\n"
    many = tmp_path / "many.fa"
    many.write_text("".join(header.format(number, text) for number, text in enumerate(texts, start=1)))
    command = [sys.executable, "-m", "uce", "species", "add", "--name", SPECIES, "--taxon", str(TAXON)]
    command += ["--fasta", str(many), "--encoder", str(wide), "--batch-tokens", "900"]
    parts = uce_home / "genes" / "esm2_t1_wide" / f"{SPECIES}.parts"
    kept = parts / "rank-0000.sqlite"
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not (kept.exists() and kept.stat().st_size > 30_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert not table_path(SPECIES, "esm2_t1_wide").exists()
    computed: list[str] = []

    def counted(encoder: ProteinEncoder, sequences: Sequence[str], **options: Any) -> np.ndarray:
        computed.extend(sequences)
        return embed_sequences(encoder, sequences, **options)

    monkeypatch.setattr(run, "embed_sequences", counted)
    sources, making = Sources(fasta=many), Making(batch_tokens=900)
    added = add_species(SPECIES, sources, taxon=TAXON, encoder=str(wide), making=making, quiet=True)
    assert added is not None
    assert 0 < len(computed) < len(texts)
    np.testing.assert_allclose(added.table.vectors, embed_sequences(load_esm2(wide), texts), atol=1e-5)
    assert not parts.exists()


def test_a_table_that_is_there_is_not_replaced_unasked(add: Callable[..., Any], uce_home: Path) -> None:
    add()
    before = (uce_home / "genes/esm2_t1_toy" / f"{SPECIES}.h5ad").read_bytes()
    with pytest.raises(OutputExistsError, match=r"already.*--overwrite"):
        add(making=Making(isoforms="longest"))
    assert (uce_home / "genes/esm2_t1_toy" / f"{SPECIES}.h5ad").read_bytes() == before
    longest = add(making=Making(isoforms="longest"), overwrite=True)
    assert longest.table.metadata["isoforms"] == "longest"
    with pytest.raises(
        OutputExistsError, match=r"chicken \(gallus_gallus\) with orthogroups-v1 vectors already \(bundled\)"
    ):
        add("chicken", None, "orthogroups-v1", sources=Sources(orthologs=Path("x.csv")))


def test_orthologues_make_a_table_for_the_bundled_model(
    files: dict[str, Path], symbols: list[str], tiny_model: Any
) -> None:
    sources = Sources(orthologs=files["orthologs"], annotation=files["genes"])
    added = add_species(SPECIES, sources, taxon=TAXON, quiet=True)
    assert added is not None
    assert added.table.encoder == "orthogroups-v1"
    human = load_gene_table("human")
    rows = {symbol: row for row, symbol in enumerate(human.symbols.tolist())}
    expected = human.vectors[[rows[symbol] for symbol in added.table.symbols]]
    np.testing.assert_allclose(added.table.vectors, expected, atol=1e-6)
    cells = cells_of(symbols)
    uce.embed(cells, model=tiny_model, species=SPECIES, quiet=True)
    assert np.isfinite(cells.obsm["X_uce"]).all()
    by_symbol = Sources(by_symbol=True, annotation=files["genes"])
    again = add_species(SPECIES, by_symbol, taxon=TAXON, quiet=True, overwrite=True)
    assert again is not None
    assert set(again.table.origins) == {"same-symbol"}
    np.testing.assert_allclose(again.table.vectors, expected, atol=1e-6)


def test_a_gene_without_a_protein_takes_its_orthologues_vector_of_the_same_kind(
    add: Callable[..., Any], files: dict[str, Path], tmp_path: Path, esm2: Path
) -> None:
    whole = files["pep"].read_text()
    human = load_gene_table("human")
    known = dict(zip(human.symbols.tolist(), human.ids.tolist(), strict=True))
    renamed = whole
    for number in range(GENES):
        symbol = next(
            line.split("gene_symbol:")[1].split()[0] for line in whole.split(">")[1:] if f"G{number:011d}." in line
        )
        renamed = renamed.replace(f"gene:ENSLEUG{number:011d}.1", f"gene:{known[symbol]}.1")
    (tmp_path / "human.fa").write_text(renamed)
    add("human", None, sources=Sources(fasta=tmp_path / "human.fa"))
    records = whole.split(">")[1:]
    (tmp_path / "part.fa").write_text("".join(f">{text}" for text in records if "ENSLEUG00000000005" not in text))
    added = add(sources=Sources(fasta=tmp_path / "part.fa", annotation=files["genes"], orthologs=files["orthologs"]))
    table = added.table
    assert table.origins.tolist().count("ortholog") == 1
    assert table.origins[5] == "ortholog"
    assert table.proteins[5] == 0
    source = load_gene_table("human", encoder="esm2_t1_toy")
    row = source.symbols.tolist().index(str(table.symbols[5]))
    np.testing.assert_array_equal(table.vectors[5], source.vectors[row])


def test_vectors_made_elsewhere_are_imported_and_have_the_published_tokens_of_chromosomes(
    files: dict[str, Path], symbols: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    torch.save({symbol: torch.randn(5120) for symbol in symbols}, tmp_path / "hare.pt")
    sources = Sources(embeddings=tmp_path / "hare.pt", annotation=files["genes"])
    with pytest.raises(UsageError, match="--embeddings needs --encoder"):
        add_species(SPECIES, sources, taxon=TAXON, quiet=True)
    added = add_species(SPECIES, sources, taxon=TAXON, encoder="esm2_t48_15B_UR50D", quiet=True)
    assert added is not None
    named = load_gene_table(SPECIES, encoder="esm2_t48_15B_UR50D").chromosome_vectors
    torch.manual_seed(TAXON)
    drawn = torch.normal(mean=0.0, std=1.0, size=(3, 5120)).numpy()
    assert sorted(named) == ["1", "2", "3"]
    np.testing.assert_array_equal(np.stack([named[name] for name in ("1", "2", "3")]), drawn)


def test_orthologues_are_read_before_the_proteins_are_embedded(
    add: Callable[..., Any], files: dict[str, Path], uce_home: Path
) -> None:
    files["orthologs"].write_text("gene,human_gene,weight\nENSLEUG00000000001,TP53,heavy\n")
    add("human", None, sources=Sources(fasta=files["pep"], orthologs=None))
    before = everything_in(uce_home)
    with pytest.raises(InputError, match="line 2: weight 'heavy'"):
        add(sources=Sources(fasta=files["pep"], orthologs=files["orthologs"]))
    assert everything_in(uce_home) == before


def test_what_a_large_encoder_takes_is_said_once_and_before_the_work(
    files: dict[str, Path], esm2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uce.genes.adding._LARGE", 0)
    add_species(SPECIES, Sources(fasta=files["pep"]), taxon=TAXON, encoder=str(esm2))
    said = capsys.readouterr().err
    assert said.index("An estimate from a sample") < said.index("embedding")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert add_species("lepus_timidus", Sources(fasta=files["pep"]), taxon=62621, encoder=str(esm2)) is None
    assert capsys.readouterr().err == ""


def test_the_only_table_of_a_kind_can_be_replaced_by_one_of_other_weights(
    add: Callable[..., Any], tmp_path: Path
) -> None:
    first = add()
    second = add(encoder=random_esm2(tmp_path / "esm2_t1_toy.pt", seed=4), overwrite=True)
    assert first.table.metadata["encoder_sha256"] != second.table.metadata["encoder_sha256"]


def test_a_home_that_cannot_be_made_is_one_line(
    files: dict[str, Path], esm2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UCE_HOME", str(files["pep"] / "home"))
    command = ["species", "add", "--name", SPECIES, "--taxon", str(TAXON), "--encoder", str(esm2)]
    for words in ([*command, "--fasta", str(files["pep"])], ["species", "check", "human"]):
        assert main(words) == StorageError.exit_code
        said = capsys.readouterr().err.splitlines()[-1]
        assert "cannot be made" in said
        assert "Point UCE_HOME at a folder of yours" in said


@pytest.mark.parametrize(
    ("kind", "width"), [("esm2_t48_15B_UR50D", 5120), ("orthogroups-v1", 256), ("esm2_t6_8M_UR50D", 320)]
)
def test_vectors_of_another_width_than_their_kind_are_refused(
    kind: str, width: int, symbols: list[str], tmp_path: Path, uce_home: Path
) -> None:
    torch.save({symbol: torch.randn(48) for symbol in symbols}, tmp_path / "hare.pt")
    with pytest.raises(ModelError, match=rf"hare.pt: vectors 48 wide; those of {kind} are {width:,} wide"):
        add_species(SPECIES, Sources(embeddings=tmp_path / "hare.pt"), taxon=TAXON, encoder=kind, quiet=True)
    assert list(uce_home.rglob("*")) == [uce_home / "genes"]


def test_the_width_of_a_kind_of_ones_own_is_that_of_its_first_table(symbols: list[str], tmp_path: Path) -> None:
    for name, width in (("a", 8), ("b", 9)):
        torch.save({symbol: torch.randn(width) for symbol in symbols}, tmp_path / f"{name}.pt")
    add_species(SPECIES, Sources(embeddings=tmp_path / "a.pt"), taxon=TAXON, encoder="mine", quiet=True)
    with pytest.raises(ModelError, match=r"b\.pt: vectors 9 wide; those of mine are 8 wide"):
        add_species("lepus_timidus", Sources(embeddings=tmp_path / "b.pt"), taxon=62621, encoder="mine", quiet=True)


def test_proteins_that_are_left_out_are_counted_in_a_note(add: Callable[..., Any], files: dict[str, Path]) -> None:
    with files["pep"].open("a") as stream:
        stream.write(">PX pep gene:ENSLEUG00000000099 gene_symbol:XX\nMK*TAY\n>PY pep\nMKTAYKK\n")
    notes = add(sources=Sources(fasta=files["pep"])).notes
    assert "2 proteins are left out (1 inner stop, 1 without a gene)" in notes


def test_a_table_that_is_not_usable_is_said_wherever_it_is_used(
    symbols: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    torch.save({symbol: torch.ones(256) + 1e-4 * torch.randn(256) for symbol in symbols}, tmp_path / "flat.pt")
    command = ["species", "add", "--name", SPECIES, "--taxon", str(TAXON), "--embeddings", str(tmp_path / "flat.pt")]
    assert main([*command, "--encoder", "orthogroups-v1"]) == ModelError.exit_code
    said = capsys.readouterr().err
    assert "not usable" in said
    assert "embed its cells" not in said
    cells = cells_of(symbols)
    uce.embed(cells, model=tiny_folder, species=SPECIES)
    assert "warning: the gene table of lepus_europaeus was judged not usable" in capsys.readouterr().err
    assert any("judged not usable" in note for note in uce.check(cells, model=tiny_folder, species=SPECIES).notes)


def test_one_kind_is_made_by_one_file_of_weights(add: Callable[..., Any], tmp_path: Path) -> None:
    add()
    other = random_esm2(tmp_path / "esm2_t1_toy.pt", seed=4)
    with pytest.raises(ModelError, match=r"lepus_europaeus.h5ad: was made by weights .* do not fit together"):
        add("lepus_timidus", 62621, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"taxon": None}, "--taxon is needed: the NCBI taxonomy id of lepus_europaeus"),
        ({"taxon": -5}, "--taxon -5: not an NCBI taxonomy id"),
        ({"taxon": 9606}, r"--taxon 9606 is that of human \(homo_sapiens\); --name says lepus_europaeus"),
        ({"species": "chicken", "taxon": 9606}, r"--taxon 9606 is that of human .*--name says gallus_gallus"),
        ({"species": "chicken", "taxon": 12345}, r"--taxon 12345: that of chicken \(gallus_gallus\) is 9031"),
        ({"species": "hare"}, "species 'hare' is not known"),
        ({"encoder": ""}, "--fasta needs --encoder"),
        ({"species": "bad!!"}, r"species 'bad!!' is not known"),
    ],
)
def test_contradictions_are_refused_before_any_work(
    add: Callable[..., Any], uce_home: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        add(**options)
    assert everything_in(uce_home) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing to make vectors from"),
        ({"fasta": Path("a"), "embeddings": Path("b")}, "--fasta and --embeddings exclude"),
        ({"orthologs": Path("a"), "by_symbol": True}, "exclude each other"),
        ({"by_symbol": True}, "--by-symbol needs --gtf"),
        ({"orthologs": Path("a"), "gene_map": Path("b")}, "--gene-map"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Sources(**given)


def test_proteins_of_another_species_are_refused(add: Callable[..., Any], files: dict[str, Path]) -> None:
    files["pep"].write_text(files["pep"].read_text().replace("ENSLEUG", "ENSGALG"))
    with pytest.raises(InputError, match=r"proteins are of chicken \(gallus_gallus\) \(ENSGALG.*--name says lepus"):
        add(sources=Sources(fasta=files["pep"]))


@pytest.mark.parametrize("form", ["uniprot", "refseq"])
def test_the_organism_of_the_headers_must_be_the_species(form: str, add: Callable[..., Any], tmp_path: Path) -> None:
    header = {
        "uniprot": "sp|P{0}|X{0}_YEAST Protein OS=Saccharomyces cerevisiae (strain S288c) OX=559292 GN=ABC{0}",
        "refseq": "lcl|NC_1.1_prot_NP_{0}.1_1 [gene=ABC{0}] [protein_id=NP_{0}.1] [Saccharomyces cerevisiae]",
    }[form]
    path = tmp_path / "yeast.fa"
    path.write_text("".join(f">{header.format(10000 + i)}\nMKTAYIAK{'A' * i}\n" for i in range(40)))
    with pytest.raises(InputError, match=r"headers name yeast \(saccharomyces_cerevisiae\); --name says fly"):
        add("fly", None, sources=Sources(fasta=path))
    assert len(add("yeast", None, sources=Sources(fasta=path)).table) == 40


BROKEN: dict[str, Callable[[dict[str, Path]], None]] = {
    "not a FASTA": lambda files: files["pep"].write_text("gene,protein\nA,MKT\n") and None,
    "empty": lambda files: files["pep"].write_text("") and None,
    "nucleotides": lambda files: files["pep"].write_text(">a gene:G1\nACGTACGTACGTACGTNNACGT\n" * 1) and None,
    "no gene named": lambda files: files["pep"].write_text(">prot1\nMKTAYIAK\n>prot2\nMKLVT\n") and None,
    "one id twice": lambda files: files["pep"].write_text(">a gene:G1\nMKT\n>a gene:G1\nMKL\n") and None,
    "no such GTF": lambda files: files["genes"].unlink(),
    "not a GTF": lambda files: files["genes"].write_text("1\tensembl\tgene\n") and None,
    "GTF of another assembly": lambda files: (
        files["genes"].write_text(
            files["genes"].read_text().replace("ENSLEUG", "OTHERG").replace('gene_name "', 'gene_name "x')
        )
        and None
    ),
    "truncated gzip": lambda files: (
        files["pep"].write_bytes(gzip.compress(files["pep"].read_bytes(), mtime=0)[:-40]) and None
    ),
}


@pytest.mark.parametrize("fault", list(BROKEN))
def test_broken_files_are_one_clear_line_and_nothing_is_written(
    fault: str, files: dict[str, Path], esm2: Path, uce_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BROKEN[fault](files)
    command = ["species", "add", "--name", SPECIES, "--taxon", str(TAXON), "--encoder", str(esm2)]
    code = main([*command, "--fasta", str(files["pep"]), "--gtf", str(files["genes"])])
    error = capsys.readouterr().err
    assert code == InputError.exit_code
    assert error.count("\n") == 1
    assert error.startswith(("error: ", f"error: {files['pep']}", f"error: {files['genes']}"))
    assert str(files["pep"]) in error or str(files["genes"]) in error
    assert everything_in(uce_home) == []


def test_a_dry_run_estimates_and_writes_nothing(
    files: dict[str, Path], uce_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["species", "add", "--name", SPECIES, "--taxon", str(TAXON), "--fasta", str(files["pep"]), "--dry-run"]
    assert main([*command, "--encoder", "esm2_t6_8M_UR50D"]) == 0
    said = capsys.readouterr().out
    assert "esm2_t6_8M_UR50D" in said
    assert "to download" in said
    assert everything_in(uce_home) == []
    assert main(command) == UsageError.exit_code
    assert main([*command[:-1], "--encoder", "esm2_t6_8M_UR50D"]) == ModelError.exit_code
    assert "uce models download esm2_t6_8M_UR50D" in capsys.readouterr().err


def test_the_commands_add_check_list_and_show(
    files: dict[str, Path], esm2: Path, uce_home: Path, symbols: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["species", "add", "--name", SPECIES, "--taxon", str(TAXON), "--encoder", str(esm2)]
    assert main([*command, "--fasta", str(files["pep"]), "--gtf", str(files["genes"])]) == 0
    out, said = capsys.readouterr()
    assert out == f"{uce_home / 'genes' / 'esm2_t1_toy' / SPECIES}.h5ad\n"
    assert "health of lepus_europaeus (esm2_t1_toy)" in said
    assert "no model here reads esm2_t1_toy vectors yet" in said
    assert main(["species", "list"]) == 0
    assert f"{SPECIES} " in capsys.readouterr().out
    assert main(["species", "check", SPECIES]) == 0
    checked = capsys.readouterr()
    assert "health of lepus_europaeus" in checked.out
    assert (uce_home / "pictures" / "esm2_t1_toy" / f"{SPECIES}.png").is_file()
    assert main(["species", "show", SPECIES, symbols[0]]) == 0
    shown = capsys.readouterr().out
    assert symbols[0] in shown
    assert "nearest" in shown
    assert main(["species", "show", SPECIES, "NOSUCHGENE"]) == UsageError.exit_code

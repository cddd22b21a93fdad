"""One command for all species of the manifest: made, found again, estimated; what is wrong with one is told."""

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from uce.genes.catalogue import catalogue
from uce.genes.collection import load_gene_table

ROOT = Path(__file__).parents[2]
Run = Callable[..., int]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command for two species of a manifest, one of which has its files."""
    torch.save(script("random_esm2").random_esm2(1, 32, 2, seed=3), tmp_path / "esm2_t1_toy.pt")
    rows = ["species,taxon,assembly,release,fasta,gtf,licence"]
    for species, taxon in (("saccharomyces_cerevisiae", 4932), ("bos_taurus", 9913)):
        rows.append(f"{species},{taxon},A,1,https://x.org/{species}.fa.gz,https://x.org/{species}.gtf,none")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    random = np.random.default_rng(0)
    fasta, gtf = [], []
    for number in range(40):
        gene = f"YAL{number:03d}W"
        letters = "".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), 40))
        place = f"chromosome:R64-1-1:I:{number + 1}:{number + 9}:1"
        fasta.append(f">{gene} pep {place} gene:{gene} gene_symbol:ABC{number}\n{letters}")
        facts = f'gene_id "{gene}"; gene_name "ABC{number}"; gene_biotype "protein_coding";'
        gtf.append("\t".join(["I", "sgd", "gene", str(number + 1), str(number + 9), ".", "+", ".", facts]))
    (tmp_path / "saccharomyces_cerevisiae.fa.gz").write_text("\n".join(fasta))
    (tmp_path / "saccharomyces_cerevisiae.gtf").write_text("\n".join(gtf))
    main = script("build_protein_tables").main

    def run(*options: str) -> int:
        words = ["--encoder", str(tmp_path / "esm2_t1_toy.pt"), "--proteomes", str(tmp_path)]
        code: int = main([*words, "--manifest", str(tmp_path / "manifest.csv"), *options])
        return code

    return run


def test_species_with_files_are_made_once_and_others_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 3
    said = capsys.readouterr()
    assert "bos_taurus.fa.gz: no such file" in said.err
    assert said.out.endswith("saccharomyces_cerevisiae.h5ad\n")
    assert len(load_gene_table("yeast", encoder="esm2_t1_toy")) == 40
    assert run("--species", "saccharomyces_cerevisiae") == 0
    assert "there already" in capsys.readouterr().err


def test_a_dry_run_says_hours_and_makes_nothing(
    run: Run, uce_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--dry-run", "--species", "saccharomyces_cerevisiae") == 0
    assert "all together: 0.0 hours" in capsys.readouterr().out
    assert list(uce_home.rglob("*")) == []
    with pytest.raises(SystemExit):
        run("--species", "unicorn")
    assert "not in manifest.csv: unicorn" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        run("--fetch")


def test_the_manifest_names_at_least_twelve_species_of_the_catalogue_with_their_taxa() -> None:
    with (ROOT / "data_manifests" / "proteomes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) >= 12
    for row in rows:
        assert catalogue()[row["species"]].taxon == int(row["taxon"])
        assert all(row[key].startswith("https://ftp.ensembl.org/pub/release-") for key in ("fasta", "gtf"))
        assert row["assembly"] in row["fasta"]
        assert row["assembly"] in row["gtf"]
        assert row["licence"]

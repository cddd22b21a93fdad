import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import read_elem

from uce.errors import InputError, UsageError
from uce.genes.bundled import bundled_species
from uce.genes.collection import load_gene_table
from uce.genes.names import split_id
from uce.genes.species import canonical_species, catalogue, confirm_species, detect_species, symbol_matches
from uce.genes.tables import write_table


def var_of(names, **columns):
    return pd.DataFrame(columns, index=list(names))


def symbols_of(species):
    table = load_gene_table(species)
    return sorted(set(table.symbols.tolist()) - {""})


@pytest.mark.parametrize(
    ("name", "species"),
    [
        ("human", "homo_sapiens"),
        ("Homo sapiens", "homo_sapiens"),
        ("NCBITaxon:9606", "homo_sapiens"),
        ("9606", "homo_sapiens"),
        (" MOUSE ", "mus_musculus"),
        ("rat", "rattus_norvegicus"),
        ("zebrafish", "danio_rerio"),
        ("macaca_mulatta", "macaca_mulatta"),
        ("rhesus", "macaca_mulatta"),
        ("macaca_fascicularis", "macaca_fascicularis"),
        ("crab-eating macaque", "macaca_fascicularis"),
        ("mouse_lemur", "microcebus_murinus"),
        ("mouse lemur", "microcebus_murinus"),
        ("pig", "sus_scrofa"),
        ("frog", "xenopus_tropicalis"),
        ("chicken", "gallus_gallus"),
        ("fly", "drosophila_melanogaster"),
        ("C. elegans", "caenorhabditis_elegans"),
        ("yeast", "saccharomyces_cerevisiae"),
        ("marmoset", "callithrix_jacchus"),
        # Not in the catalogue, but formed like a name: a user may have a table of it.
        ("Hydra vulgaris", "hydra_vulgaris"),
    ],
)
def test_a_species_goes_by_many_names(name, species):
    assert canonical_species(name) == species


def test_an_unknown_species_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"species 'humans' is not known. Did you mean human\?"):
        canonical_species("humans")
    with pytest.raises(UsageError, match="Give a Latin name"):
        canonical_species("42")
    with pytest.raises(UsageError, match="Did you mean homo_sapiens"):
        canonical_species("homo_sapien")


def test_the_catalogue_is_consistent():
    species = catalogue()
    assert set(bundled_species()) <= set(species)
    names = [name.lower() for entry in species.values() for name in (entry.name, *entry.common)]
    taxa = [entry.taxon for entry in species.values()]
    prefixes = [prefix for entry in species.values() for prefix in entry.prefixes]
    assert len(set(taxa)) == len(taxa)
    assert len(set(prefixes)) == len(prefixes)
    owners = {}
    for entry in species.values():
        for name in {entry.name, *entry.common}:
            assert owners.setdefault(name.lower().replace(" ", "_"), entry.name) == entry.name
    assert len(owners) <= len(names)


@pytest.mark.parametrize("species", bundled_species())
def test_every_bundled_id_is_known_as_its_species(species):
    table = load_gene_table(species)
    owners = [split_id(name)[0] for name in table.ids.tolist()]
    assert np.mean([owner == species for owner in owners]) > 0.97
    assert set(owners) <= {species, ""}


@pytest.mark.parametrize("species", bundled_species())
def test_ids_tell_the_species_wherever_they_stand(species):
    ids = [name for name in load_gene_table(species).ids.tolist() if split_id(name)[0]][:200]
    found = detect_species(var_of(ids))
    assert (found.species, found.column) == (species, "index")
    assert "200 of 200 names in index are its ids" in found.reason
    versions = [f"{name}.3" for name in ids]
    var = var_of([f"g{i}" for i in range(200)], gene_ids=versions, feature_type="Gene Expression")
    found = detect_species(var)
    assert (found.species, found.column) == (species, "gene_ids")


@pytest.mark.parametrize("species", bundled_species())
def test_symbols_tell_the_species_and_the_nearest_one_is_named(species):
    names = symbols_of(species)
    names += [f"RP11-{i}H1.{i % 7}" for i in range(len(names) // 2)]
    found = detect_species(var_of(names))
    assert (found.species, found.column) == (species, "index")
    assert "names in index are its symbols" in found.reason
    assert "the other way round" in found.reason
    assert next(iter(found.scores)) == species
    assert 0.6 <= found.scores[species] <= 1


def test_ids_in_place_of_missing_symbols_decide():
    rhesus = load_gene_table("rhesus")
    shared = sorted(symbol_matches(symbols_of("rhesus"))["homo_sapiens"])
    ids = [name for name, symbol in zip(rhesus.ids.tolist(), rhesus.symbols.tolist(), strict=True) if not symbol]
    assert detect_species(var_of([*shared, *ids[:1000]])).species == "macaca_mulatta"


def test_names_that_several_species_share_are_not_guessed_at():
    matches = symbol_matches(symbols_of("human"))
    shared = sorted(matches["homo_sapiens"] & matches["macaca_mulatta"] & matches["sus_scrofa"])
    with pytest.raises(
        InputError, match=r"x.h5ad: the gene names do not tell the species.*homo_sapiens.*Give --species"
    ):
        detect_species(var_of(shared), file="x.h5ad")
    found = detect_species(var_of(shared), organism="Sus scrofa")
    assert found.species == "sus_scrofa"
    assert "the file says so" in found.reason


def test_what_the_file_says_must_not_contradict_the_names():
    ids = load_gene_table("human").ids[:300].tolist()
    assert detect_species(var_of(ids), organism="NCBITaxon:9606").species == "homo_sapiens"
    assert detect_species(var_of(ids), organism="not recorded").species == "homo_sapiens"
    with pytest.raises(InputError, match=r"the file says mouse .*names are of human .*Give --species homo_sapiens"):
        detect_species(var_of(ids), organism="Mus musculus")
    with pytest.raises(InputError, match="the file says mouse"):
        detect_species(var_of(ids, feature_reference="NCBITaxon:10090"))


def test_a_species_without_a_table_is_named():
    yeast = [f"YAL{i:03d}{strand}" for i in range(1, 90) for strand in "WC"]
    with pytest.raises(
        InputError, match=r"names are of yeast \(saccharomyces_cerevisiae\): 178 of 178.*There is no gene table"
    ):
        detect_species(var_of(yeast))
    marmoset = symbols_of("human")[:3000] + [f"ENSCJAG{i:011d}" for i in range(300)]
    with pytest.raises(InputError, match="names are of marmoset"):
        detect_species(var_of(marmoset))


def test_a_table_of_the_users_own_is_found_by_its_names(make_table, uce_home):
    folder = uce_home / "genes" / "mine"
    folder.mkdir(parents=True)
    rows = [(f"Hv{i}", f"hydra-{i}", "", "1", i) for i in range(60)]
    write_table(make_table(rows, species="hydra_vulgaris", encoder="mine"), folder / "hydra_vulgaris.h5ad")
    for names in ([f"Hv{i}" for i in range(50)], [f"hydra-{i}" for i in range(50)]):
        assert detect_species(var_of(names), encoder="mine").species == "hydra_vulgaris"


def test_prefixes_tell_the_species_and_two_are_refused():
    human = [f"GRCh38___{name}" for name in symbols_of("human")[:50]]
    mouse = [f"mm10___{name}" for name in symbols_of("mouse")[:50]]
    found = detect_species(var_of(human))
    assert found.species == "homo_sapiens"
    assert "carry its assembly prefix" in found.reason
    with pytest.raises(InputError, match="joins several species"):
        detect_species(var_of(human + mouse))
    ids = load_gene_table("human").ids[:50].tolist() + load_gene_table("mouse").ids[:50].tolist()
    with pytest.raises(InputError, match=r"index holds ids of human .* and mouse .*Split the file"):
        detect_species(var_of(ids))


def test_spikes_and_viruses_do_not_count():
    ids = load_gene_table("human").ids[:40].tolist()
    company = [f"ERCC-{i:05d}" for i in range(92)] + [f"ENSSASG0000500000{i}" for i in range(9)]
    assert detect_species(var_of(ids + company)).species == "homo_sapiens"


def test_a_given_species_is_kept_unless_the_ids_are_anothers():
    mouse = load_gene_table("mouse")
    ids = mouse.ids[:100].tolist()
    with pytest.raises(InputError, match=r"--species human, but the names are of mouse .*Give --species mus_musculus"):
        confirm_species("human", var_of(ids))
    given = confirm_species("Mus musculus", var_of(ids))
    assert (given.species, given.reason, given.column) == ("mus_musculus", "given by --species", "index")
    # Mouse cells whose genes were mapped to human ids, beside the original ones: the user knows.
    both = var_of(ids, human_ids=load_gene_table("human").ids[:100])
    assert confirm_species("human", both).species == "homo_sapiens"
    assert confirm_species("human", var_of(mouse.symbols[:100].tolist())).species == "homo_sapiens"


def test_candidates_limit_the_choice():
    assert (
        detect_species(var_of(symbols_of("human")), candidates=["sus_scrofa", "homo_sapiens"]).species == "homo_sapiens"
    )
    names = symbols_of("mouse")
    assert symbol_matches(names, candidates=["saccharomyces_cerevisiae"]) == {}
    assert set(symbol_matches(names, candidates=["rattus_norvegicus", "danio_rerio"])) <= {
        "rattus_norvegicus",
        "danio_rerio",
    }


REAL = {
    "cele_embryo_packer": "caenorhabditis_elegans",
    "dmel_gut_fca": "drosophila_melanogaster",
    "pber_blood_howick": "rodent malaria parasite",
    "pfal_blood_howick": "malaria parasite",
    "scer_culture_chickenplot": "yeast",
    "tadh_body_sebepedros": "trichoplax",
}


def test_every_real_file_is_told_right_or_refused_for_its_species(shared):
    paths = sorted((shared / "data" / "cells").glob("*.h5ad"))
    assert len(paths) == 20
    for path in paths:
        with h5py.File(path) as file:
            var = read_elem(file["var"])
        latin = {"human": "homo_sapiens", "mouse": "mus_musculus"}
        expected = REAL.get(path.stem, latin.get(path.stem.split("_")[0], ""))
        if expected in bundled_species():
            assert detect_species(var, file=path.name).species == expected, path.name
        else:
            with pytest.raises(InputError, match=rf"{path.name}: the names are of {expected} .*There is no"):
                detect_species(var, file=path.name)


def test_whole_annotations_with_their_noncoding_names_are_told_right(shared):
    for species in ("danio_rerio", "macaca_mulatta", "caenorhabditis_elegans"):
        with gzip.open(shared / "data" / "genes" / f"{species}.csv.gz", "rt") as stream:
            genes = pd.read_csv(stream, dtype=str, keep_default_na=False)
        as_10x = np.where(genes.symbol == "", genes.gene_id, genes.symbol)
        assert detect_species(var_of(as_10x)).species == species
        assert detect_species(var_of(genes.symbol[genes.symbol != ""])).species == species


@pytest.mark.parametrize(
    "name", ["lepus_europaeus", "mus_musculus_c57bl6nj", "canis_lupus_dingo", "drosophila_simulans"]
)
def test_species_that_the_catalogue_does_not_know_go_by_their_latin_name(name):
    assert canonical_species(name.replace("_", " ").capitalize()) == name


def test_a_slip_of_the_pen_is_refused_unless_it_is_the_name_of_a_new_species():
    with pytest.raises(UsageError, match=r"'gallus_galus' is not known. Did you mean gallus_gallus"):
        canonical_species("gallus_galus")
    assert canonical_species("gallus_galus", new=True) == "gallus_galus"
    for bad in ("hare", "1abc_def", "a/b_c", "gallus_"):
        with pytest.raises(UsageError):
            canonical_species(bad, new=True)

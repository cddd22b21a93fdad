import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError, UsageError
from uce.genes.collection import load_gene_table
from uce.genes.names import classify, from_spreadsheet, mangled, split_id, split_prefix, tidy
from uce.genes.resolver import check_coverage, choose_column, names_in, resolve


def found(names, table):
    """Ids (or "") and reasons, name by name."""
    resolution = resolve(names, table)
    return [
        (str(table.ids[row]) if row >= 0 else "", str(why))
        for row, why in zip(resolution.rows, resolution.reasons, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "gene", "reason"),
    [
        ("ENSG00000198851", "ENSG00000198851", "id"),
        ("ENSG00000198851.15", "ENSG00000198851", "id"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378", "id"),
        ("ENSG00000182378_PAR_Y", "ENSG00000182378", "id"),
        ("ENSG99999999999", "", "unlisted-id"),
        ("ENSMUSG00000032093", "", "other-species"),
        ("CD3E", "ENSG00000198851", "symbol"),
        ("  'CD3E'\t", "ENSG00000198851", "symbol"),
        ('"CD3E"', "ENSG00000198851", "symbol"),
        ("C\x00D3E", "ENSG00000198851", "symbol"),
        ("ＣＤ３Ｅ", "ENSG00000198851", "symbol"),
        ("HLA-A", "ENSG00000206503", "symbol"),
        ("cd3e", "ENSG00000198851", "case"),
        ("C1ORF112", "ENSG00000000460", "case"),
        ("HLA.A", "ENSG00000206503", "mangled"),
        ("NKX2.1", "ENSG00000136352", "mangled"),
        ("MT.ND1", "ENSG00000198888", "mangled"),
        ("T3D", "ENSG00000167286", "alias"),
        ("okt3", "ENSG00000167286", "alias"),
        ("ND1", "ENSG00000198888", "alias"),
        ("DUP-1", "", "ambiguous"),
        ("2-Sep", "ENSG00000168385", "excel"),
        ("Sep-08", "ENSG00000164402", "excel"),
        ("3-Mar", "ENSG00000173926", "excel"),
        ("Mar-03", "ENSG00000173926", "excel"),
        ("1-Dec", "ENSG00000173077", "excel"),
        ("1-Mar", "", "date"),
        ("Mar-02", "", "date"),
        ("43891", "", "date"),
        ("2.31E+19", "", "date"),
        ("RP11-34P13.7", "", "noncoding"),
        ("AC012345.1", "", "noncoding"),
        ("LOC100130476", "", "noncoding"),
        ("MALAT1", "", "noncoding"),
        ("Gm1992", "", "noncoding"),
        ("IGKC", "", "immune-receptor"),
        ("ERCC-00002", "", "spike-in"),
        ("CD3_TotalSeqB", "", "antibody"),
        ("EGFP", "", "transgene"),
        ("tdTomato", "", "transgene"),
        ("chr1:10109-10357", "", "peak"),
        ("12", "", "number"),
        ("", "", "empty"),
        ("NOSUCHGENE", "", "unknown"),
    ],
)
def test_every_kind_of_name_is_resolved_or_given_its_reason(human, name, gene, reason):
    assert found([name], human) == [(gene, reason)]


def test_a_suffix_is_taken_off_only_where_the_bare_name_stands_too(human):
    assert found(["CD3E-1"], human) == [("", "unknown")]
    for suffixed in ("CD3E-1", "CD3E.1", "CD3E_1", "CD3E__1"):
        assert found(["CD3E", suffixed], human)[1] == ("ENSG00000198851", "suffix")
    # A symbol that looks like a suffixed one is itself.
    assert found(["NKX2", "NKX2-1"], human)[1] == ("ENSG00000136352", "symbol")


def test_an_exact_symbol_wins_over_case_and_alias(make_table):
    table = make_table(
        [
            ("G1", "Abc", "XYZ", "1", 1),
            ("G2", "ABC", "", "1", 2),
            ("G3", "xyz", "Other", "2", 3),
            ("G4", "G1", "", "2", 4),
        ]
    )
    assert found(["Abc", "ABC", "XYZ", "xyz", "G1"], table) == [
        ("G1", "symbol"),
        ("G2", "symbol"),
        ("G3", "case"),
        ("G3", "symbol"),
        ("G1", "id"),
    ]
    assert found(["aBc"], table) == [("", "ambiguous")]


def test_the_gene_of_a_shared_symbol_is_the_one_on_the_largest_chromosome(human):
    resolution = resolve(["HLA-A", "CD3E"], human)
    assert human.chromosomes[resolution.rows[0]] == "6"
    assert resolution.normalised["shared symbol"] == 1
    # Its other locus is still found by id.
    assert found(["ENSG00000229215"], human) == [("ENSG00000229215", "id")]
    # Both loci have the alias; it is not ambiguous.
    assert found(["HLAA"], human) == [("ENSG00000206503", "alias")]


def test_prefixes_of_mixed_references_are_taken_off_ids_and_symbols(human):
    names = ["GRCh38_CD3E", "GRCh38___HLA-A", "GRCh38_ENSG00000167286.2", "GRCh38-TBP"]
    resolution = resolve(names, human)
    assert resolution.reasons.tolist() == ["symbol", "symbol", "id", "symbol"]
    assert resolution.normalised["prefix stripped"] == 4
    assert resolution.normalised["version stripped"] == 1


def test_a_mixed_reference_is_refused_and_explained(human):
    names = [f"GRCh38_{symbol}" for symbol in human.symbols] + ["mm10___Cd3e", "mm10___Cd4", "mm10___Cd8a"]
    with pytest.raises(
        InputError, match=r"joins several species \(human.*on 17 names, mouse.*on 3 names.*Split the genes"
    ):
        resolve(names, human)
    with pytest.raises(InputError, match=r"prefix of mouse .*Give --species mus_musculus"):
        resolve(["mm10_CD3E", "mm10_TBP"], human)


def test_symbols_keep_their_dots(make_table):
    table = make_table([("WBGene00000001", "F23F1.10", "", "I", 1), ("WBGene00000002", "aap-1", "", "I", 5)])
    assert found(["F23F1.10", "F23F1", "WBGene00000001.1"], table) == [
        ("WBGene00000001", "symbol"),
        ("", "unknown"),
        ("WBGene00000001", "id"),
    ]


def test_names_that_begin_with_a_digit_come_back_from_r(make_table):
    table = make_table([("FBgn0000001", "14-3-3epsilon", "", "3R", 1), ("FBgn0000002", "128up", "", "2R", 5)])
    assert found(["X14.3.3epsilon", "X128up"], table) == [("FBgn0000001", "mangled"), ("FBgn0000002", "mangled")]


def test_the_report_accounts_for_every_name_and_count(human):
    names = ["CD3E", "T3E", "CD3E-1", "ENSG00000167286", "MALAT1", "NEAT1", "ERCC-00002", "odd", "odd2"]
    counts = np.array([10, 5, 1, 4, 60, 10, 5, 3, 2], dtype=float)
    resolution = resolve(names, human)
    report = resolution.report(names, counts)
    assert report["names"] == 9 == sum(report["reasons"].values())
    assert report["resolved"] == 4
    assert report["genes"] == 2 == resolution.n_genes
    assert report["columns_summed"] == 2
    assert report["counts_resolved"] == pytest.approx(0.2) == resolution.share(counts)
    assert sum(report["counts_by_reason"].values()) == pytest.approx(1)
    assert report["counts_by_reason"]["noncoding"] == pytest.approx(0.7)
    assert report["examples"] == {
        "noncoding": ["MALAT1", "NEAT1"],
        "spike-in": ["ERCC-00002"],
        "unknown": ["odd", "odd2"],
    }
    assert "counts_resolved" not in resolution.report(names)


ANY_NAME = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["CD3E", "cd3d", "T3D", "HLA.A", "2-Sep", "1-Mar", "ENSG00000198851.3", "MALAT1", "CD3E-1"]),
)


@given(names=st.lists(ANY_NAME, max_size=30), seed=st.integers(0, 99))
def test_any_names_in_any_order_are_accounted_for(human, names, seed):
    names = [name for name in names if not split_prefix(tidy(name))[0]]
    resolution = resolve(names, human)
    assert sum(resolution.report(names)["reasons"].values()) == len(names)
    order = np.random.default_rng(seed).permutation(len(names))
    again = resolve([names[i] for i in order], human)
    np.testing.assert_array_equal(again.rows, resolution.rows[order])
    np.testing.assert_array_equal(again.reasons, resolution.reasons[order])


@pytest.mark.parametrize("species", ["human", "danio_rerio", "fly", "xenopus_tropicalis"])
def test_every_gene_of_a_bundled_table_is_found_by_its_id_and_its_symbol(species):
    table = load_gene_table(species)
    by_id = resolve(table.ids.tolist(), table)
    np.testing.assert_array_equal(by_id.rows, np.arange(len(table)))
    named = table.symbols != ""
    by_symbol = resolve(table.symbols[named].tolist(), table)
    assert (by_symbol.rows >= 0).all()
    np.testing.assert_array_equal(table.symbols[by_symbol.rows], table.symbols[named])


def test_the_best_column_is_chosen_and_ids_win_ties(human):
    var = pd.DataFrame(
        {"gene_ids": human.ids, "n_cells": 3, "feature_type": "gene"}, index=[f"x{i}" for i in range(18)]
    )
    assert choose_column(var, human) == "gene_ids"
    symbols = human.symbols.copy()
    symbols[symbols == ""] = "CD3E"
    twins = pd.DataFrame({"ids": human.ids[:5]}, index=symbols[:5])
    assert choose_column(twins.assign(same=symbols[:5]), human) == "ids"
    assert choose_column(var.assign(gene_ids=var["gene_ids"].astype("category")), human) == "gene_ids"
    assert choose_column(var, human, column="index") == "index"
    with pytest.raises(UsageError, match=r"no gene column 'gene_id'. Did you mean gene_ids\?"):
        choose_column(var, human, column="gene_id", file="a.h5ad")


def test_missing_names_are_empty_not_nan():
    var = pd.DataFrame({"symbol": pd.Categorical(["CD3E", None, "TBP"])}, index=["a", "b", "c"])
    assert names_in(var, "symbol") == ["CD3E", "", "TBP"]
    assert names_in(var, "index") == ["a", "b", "c"]


def _covered(names, table, **options):
    return check_coverage(resolve(names, table), names, table, file="x.h5ad", **options)


def test_a_panel_passes_with_a_warning_and_a_full_file_without():
    table = load_gene_table("human")
    symbols = sorted(set(table.symbols.tolist()) - {""})
    assert _covered(symbols[:2000], table, column_counts=np.ones(2000)) == []
    (warning,) = _covered(symbols[:300], table, column_counts=np.ones(300))
    assert "only 300 genes were resolved" in warning
    assert _covered(symbols[:300], table, column_counts=np.ones(300), min_genes=100) == []
    # Genes without a protein do not raise what a small file needs.
    chromosome = [*table.ids[:200].tolist(), *(f"ENSG9{i:010d}" for i in range(300))]
    assert len(_covered(chromosome, table)) == 1
    with pytest.raises(InputError, match="them: 200; at least 250 are needed"):
        _covered([*table.ids[:200].tolist(), *(f"odd{i}" for i in range(300))], table)


def test_too_few_genes_show_names_of_the_file_beside_names_of_the_table():
    table = load_gene_table("human")
    symbols = sorted(set(table.symbols.tolist()) - {""})
    names = [*symbols[:499], *(f"odd{i}" for i in range(9000))]
    with pytest.raises(
        InputError, match=r"found among them: 499; at least 500 are.*Not found: odd0, odd1.*In the table: \w+"
    ):
        _covered(names, table)
    with pytest.raises(InputError, match=r"genes of human .*: 19; at least 20 are needed\. That is too few"):
        _covered(symbols[:19], table)
    assert _covered([*symbols[:500], *names[499:]], table) == []


def test_the_share_of_counts_is_held_to_its_limits():
    table = load_gene_table("human")
    names = [*sorted(set(table.symbols.tolist()) - {""})[:1000], "MALAT1"]
    for rest, outcome in ((100.0, 0), (400.0, 1)):
        warnings = _covered(names, table, column_counts=np.array([*np.ones(1000), rest]))
        assert len(warnings) == outcome
    assert "only 71.4% of the counts lie in resolved genes (names left out: noncoding 1)" in warnings[0]
    with pytest.raises(InputError, match=r"with 47.6% of the counts; at least 50% is needed"):
        _covered(names, table, column_counts=np.array([*np.ones(1000), 1100.0]))
    assert len(_covered(names, table, column_counts=np.array([*np.ones(1000), 1100.0]), min_share=0.3)) == 1


def test_spreadsheet_names_are_warned_about():
    table = load_gene_table("human")
    names = [*sorted(set(table.symbols.tolist()) - {""})[:600], "1-Mar", "2-Sep"]
    (warning,) = _covered(names, table)
    assert "2 gene names were turned into dates" in warning


def test_the_work_is_a_few_calls_per_name():
    table = load_gene_table("human")
    names = [*table.symbols.tolist(), *table.ids.tolist()][:8000] + [f"RP11-{i}H{i % 30}.{i % 7}" for i in range(4000)]
    resolve(names, table)
    # Calls and not seconds: they are the same on every machine, however busy it is.
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    previous = sys.getprofile()
    sys.setprofile(count)
    try:
        resolve(names, table)
    finally:
        sys.setprofile(previous)
    assert 12_000 < calls < 25 * 12_000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ENSG00000182378.15_PAR_Y", ("homo_sapiens", "ENSG00000182378")),
        ("ENSMUSG00000000001.4", ("mus_musculus", "ENSMUSG00000000001")),
        ("FBgn0000001", ("drosophila_melanogaster", "FBgn0000001")),
        ("YLR438C-A", ("saccharomyces_cerevisiae", "YLR438C-A")),
        ("ENSXYZG00000000001.2", ("unlisted_species", "ENSXYZG00000000001")),
        ("ENSSASG00005000002", ("", "ENSSASG00005000002")),
        ("F23F1.10", ("", "F23F1.10")),
    ],
)
def test_ids_tell_their_species(name, expected):
    assert split_id(name) == expected


def test_prefixes_are_those_of_known_assemblies_only():
    assert split_prefix("mm10___Cd3e") == ("mus_musculus", "Cd3e")
    assert split_prefix("GRCh38-2020-A_CD3E") == ("homo_sapiens", "CD3E")
    assert split_prefix("HLA-A") == ("", "HLA-A")
    assert split_prefix("GRCh38_") == ("", "GRCh38_")


def test_dates_are_read_only_where_one_gene_fits():
    assert from_spreadsheet("9-Sep") == ("SEPTIN9", "SEPT9")
    assert from_spreadsheet("MAR-11") == ("MARCHF11", "MARCH11")
    assert from_spreadsheet("2-Mar") == ()
    assert from_spreadsheet("CD3E") is None


def test_r_names_follow_make_names():
    assert [mangled(name) for name in ("HLA-A", "7SK", "si:ch211", "A_b")] == ["HLA.A", "X7SK", "si.ch211", "A_b"]


def test_company_of_genes_is_classed():
    assert {classify(name) for name in ("TRAC", "IGHG1", "Trbc1", "IGLV3-9")} == {"immune-receptor"}
    assert {classify(name) for name in ("SARS-CoV-2", "ENSSASG00005000002")} == {"virus"}
    assert {classify(name) for name in ("FOXD2-AS1", "HOXA11os", "ANXA2P2", "Rps25-ps1", "21ur-10")} == {"noncoding"}

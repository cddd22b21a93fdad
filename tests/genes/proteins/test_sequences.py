"""Proteome files: every header form, every way a FASTA can be wrong, genes from a map or an annotation."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError
from uce.genes.annotations.gene import Gene
from uce.genes.annotations.reading import Annotation, read_annotation
from uce.genes.proteins.gene_map import read_gene_map
from uce.genes.proteins.headers import Protein, read_assembly, read_header, read_organism
from uce.genes.proteins.sequences import (
    RESIDUES,
    Proteome,
    clean_residues,
    place_proteins,
    read_proteome,
)

ENSEMBL = (
    "ENSGALP00010000002.1 pep primary_assembly:bGalGal1.mat.broiler.GRCg7b:MT:2824:3798:1 "
    "gene:ENSGALG00010000007.1 transcript:ENSGALT00010000007.1 gene_biotype:protein_coding "
    "transcript_biotype:protein_coding gene_symbol:ND1 description:NADH dehydrogenase gene:ENSG00000000001"
)
ZEBRAFISH = (
    "ENSDARP00000000042.5 pep chromosome:GRCz11:5:500:900:-1 gene:ENSDARG00000000011.3 "
    "transcript:ENSDART00000000012.4 gene_symbol:si:ch211-161h7.4"
)
GENCODE = (
    "ENSP00000493376.2|ENST00000641515.2|ENSG00000186092.7|"
    "OTTHUMG00000001094.4|OTTHUMT00000003223.4|OR4F5-201|OR4F5|326"
)
PAR = "ENSP00000370000.3_PAR_Y|ENST00000381657.7_PAR_Y|ENSG00000182378.15_PAR_Y|-|-|PLCXD1-201|PLCXD1|323"
UNIPROT = "sp|P04637|P53_HUMAN Cellular tumor antigen p53 OS=Homo sapiens OX=9606 GN=TP53 PE=1 SV=4"
ISOFORM = "sp|P04637-2|P53_HUMAN Isoform 2 of Cellular tumor antigen p53 OS=Homo sapiens OX=9606 GN=TP53"
REFSEQ = "NP_000005.3 alpha-2-macroglobulin isoform a precursor [Homo sapiens]"
REFSEQ_CDS = (
    "lcl|NC_000001.11_prot_NP_001005484.2_1 [gene=OR4F5] [db_xref=GeneID:79501] "
    "[protein=olfactory receptor 4F5] [protein_id=NP_001005484.2] [location=65565..71585]"
)


@pytest.mark.parametrize(
    ("header", "protein"),
    [
        (ENSEMBL, Protein("ENSGALP00010000002.1", "ENSGALG00010000007", "ND1", "", "MT", 2824)),
        (ZEBRAFISH, Protein("ENSDARP00000000042.5", "ENSDARG00000000011", "si:ch211-161h7.4", "", "5", 500)),
        ("F23F1.10a pep chromosome:WBcel235:V:1:9:1 gene:F23F1.10", Protein("F23F1.10a", "F23F1.10", "", "", "V", 1)),
        ("P1 pep scaffold:A1:KZ5.1:7:9:1 gene:G1", Protein("P1", "G1", "", "", "KZ5.1", 7)),
        ("P1 pep group:A:5:5:9:-1 gene:ENSDARG00000000011.3", Protein("P1", "ENSDARG00000000011", "", "", "5", 5)),
        (GENCODE, Protein("ENSP00000493376.2", "ENSG00000186092", "OR4F5", "", aliases=("OTTHUMG00000001094",))),
        ("P|T|ENSG00000238009.6|-|-|T-201|ENSG00000238009|9", Protein("P", "ENSG00000238009", "", "")),
        (PAR, Protein("ENSP00000370000.3_PAR_Y", "ENSG00000182378", "PLCXD1", "")),
        (UNIPROT, Protein("P04637", "", "TP53", "", aliases=("P04637",))),
        (ISOFORM, Protein("P04637-2", "", "TP53", "", aliases=("P04637",))),
        ("tr|Q9Y6Z7|Q9Y6Z7_HUMAN G GN=ORF 1 PE=3 SV=1", Protein("Q9Y6Z7", "", "ORF 1", "", aliases=("Q9Y6Z7",))),
        ("sp|P0CX61|YJ41B_YEAST Transposon OS=S. cerevisiae", Protein("P0CX61", "", "", "", aliases=("P0CX61",))),
        (REFSEQ, Protein("NP_000005.3", "", "", "")),
        (REFSEQ_CDS, Protein("NP_001005484.2", "", "OR4F5", "", aliases=("GeneID:79501",))),
        (
            "lcl|NC_001133.9_prot_NP_009332.1_1 [gene=PAU8] [locus_tag=YAL068C] [protein_id=NP_009332.1]",
            Protein("NP_009332.1", "YAL068C", "PAU8", ""),
        ),
        ("A1BG|ENSG00000121410|ENSP00000263100|shs", Protein("ENSP00000263100", "ENSG00000121410", "A1BG", "")),
        ("Abcb1a||P21447|dta", Protein("P21447", "", "Abcb1a", "", aliases=("P21447",))),
        ("P1 pep chromosome:A:chrM:7:9:1 gene:G1", Protein("P1", "G1", "", "", "MT", 7)),
        ("", Protein("", "", "", "")),
    ],
)  # fmt: skip
def test_headers_of_every_source_are_told_apart(header: str, protein: Protein) -> None:
    assert read_header(header) == protein


YEAST = "sp|P40505|SDS3_YEAST Protein OS=Saccharomyces cerevisiae (strain ATCC 204508 / S288c) OX=559292 GN=SDS3"


@pytest.mark.parametrize(
    ("header", "organism", "assembly"),
    [
        (YEAST, ("Saccharomyces cerevisiae", "559292"), ""),
        (ENSEMBL, ("", ""), "bGalGal1.mat.broiler.GRCg7b"),
        (ZEBRAFISH, ("", ""), "GRCz11"),
        (UNIPROT, ("Homo sapiens", "9606"), ""),
        (REFSEQ, ("Homo sapiens", ""), ""),
        ("XP_1.1 kinase [ATP] like [[Candida] auris]", ("[Candida] auris", ""), ""),
        (REFSEQ_CDS + " [gbkey=CDS]", ("", ""), ""),
        (GENCODE, ("", ""), ""),
    ],
)
def test_organism_and_assembly_are_read_from_headers(header: str, organism: tuple[str, str], assembly: str) -> None:
    assert (read_organism(header), read_assembly(header)) == (organism, assembly)


@given(st.text())
def test_any_header_is_read_without_an_error(header: str) -> None:
    assert read_header(header.strip()).sequence == ""
    read_organism(header)
    read_assembly(header)


@given(st.text(alphabet=sorted(set(RESIDUES) | set("jlagv .-*\t")), max_size=60))
def test_cleaned_residues_are_those_esm2_knows(text: str) -> None:
    cleaned = clean_residues(text)
    assert set(cleaned) <= set(RESIDUES) | {"*"}
    assert not cleaned.endswith("*")
    assert clean_residues(cleaned) == cleaned


def fasta(folder: Path, *records: tuple[str, str], end: str = "\n") -> Path:
    path = folder / "pep.fa"
    path.write_bytes(end.join(f">{header}{end}{lines}" for header, lines in records).encode() + end.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("zipped", [False, True])
def test_line_ends_wrapping_case_and_compression_do_not_matter(end: str, zipped: bool, tmp_path: Path) -> None:
    path = fasta(tmp_path, (ENSEMBL, f"mkl{end}VJ-L*"), (UNIPROT, "MEEPQSD"), end=end)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    proteome = read_proteome(path)
    assert [(protein.id, protein.sequence) for protein in proteome.proteins] == [
        ("ENSGALP00010000002.1", "MKLVXL"),
        ("P04637", "MEEPQSD"),
    ]
    assert proteome.dropped == {}


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    records = [
        ("A||a|x", "MK*L"),
        ("B||b|x", "*"),
        ("C||c|x", ""),
        ("D||d|x", "MKL"),
        ("D||d|x", "MKL"),
        (REFSEQ, "MW"),
    ]
    proteome = read_proteome(fasta(tmp_path, *records))
    assert [protein.symbol for protein in proteome.proteins] == ["D", ""]
    assert proteome.dropped == {"inner stop": 1, "empty": 2, "repeated": 1}
    named, notes = place_proteins(proteome, None)
    assert [protein.symbol for protein in named.proteins] == ["D"]
    assert named.dropped == {"inner stop": 1, "empty": 2, "repeated": 1, "without a gene": 1}
    assert notes == ()


def test_most_headers_say_the_species_and_the_assembly(tmp_path: Path) -> None:
    found = read_proteome(fasta(tmp_path, (UNIPROT, "MK"), (ISOFORM, "ML"), (ENSEMBL, "MV"), ("B||b|x", "MW")))
    assert (found.taxon, found.assembly) == (9606, "bGalGal1.mat.broiler.GRCg7b")
    found = read_proteome(fasta(tmp_path, (REFSEQ, "MK"), ("NP_2.1 x [Unknown thing]", "ML"), (REFSEQ + " ", "MK")))
    assert (found.taxon, found.assembly) == (9606, "")
    assert read_proteome(fasta(tmp_path, ("NP_2.1 x [Unknown thing]", "ML"))).taxon is None


def test_a_protein_with_only_a_symbol_joins_the_one_gene_of_that_symbol(tmp_path: Path) -> None:
    records = [("A|G1|a|x", "ML"), ("A||b|y", "MLV"), ("B|G2|c|x", "MF"), ("B|G3|d|x", "MR"), ("B||e|y", "MS")]
    proteome = read_proteome(fasta(tmp_path, *records))
    assert [protein.gene for protein in proteome.proteins] == ["G1", "G1", "G2", "G3", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"pep\.fa: no records; a FASTA file of proteins is needed"),
        (b"\n\n", r"no records"),
        (b"gene,count\nA,1\n", r"starts with 'gene,count', not with '>'"),
        (b"PK\x03\x04\x00\x1b[31m", r"starts with 'PK.*x1b.* not with '>'"),
        (b">A||a|x\nMK7L\n", r"record 1 \(a\), position 3: '7' is not an amino acid\. Correct"),
        (b">A||a|x\nML\n>B||b|x\nM<mask>L\n", r"record 2 \(b\), position 2: '<' is not an amino acid"),
        (b">A||a|x\nMK\xc3\xa9L\n", r"record 1 \(a\), position 3: .* is not an amino acid"),
        (b">A||a|x\nATGGCGTTAN\n>B||b|x\nACGTACGTAA\n", r"nucleotides .* proteins are needed"),
        (b">A||a|x\nAUGGCGUUAN\n", r"nucleotides"),
        (b">A||a|x\nMKL\n>A||a|x\nMKV\n", r"record 2: id a stands for two different proteins"),
        (b">A||a|x\n\n", r"no usable protein \(1 empty\)"),
        (
            gzip.compress(b">A||a|x\n" + bytes(range(65, 85)) * 400, mtime=0)[:-30],
            r"cannot be read to its end .*get it again",
        ),
        (b"\x1f\x8bnot gzip", r"cannot be read to its end"),
    ],
)
def test_a_broken_fasta_is_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pep.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_proteome(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def test_a_genome_is_known_long_before_its_end(tmp_path: Path) -> None:
    path = tmp_path / "genome.fa.gz"
    records = (f">chr{n}\n{'ACGTTGCAAC' * 1000}\n" for n in range(40))
    path.write_bytes(gzip.compress("".join(records).encode(), mtime=0)[:-12])  # so cut that its end cannot be read
    with pytest.raises(InputError, match=r"genome\.fa\.gz: nucleotides"):
        read_proteome(path)


def test_a_missing_fasta_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.fa: no such file; a FASTA file of proteins is expected"):
        read_proteome(tmp_path / "none.fa")


def test_a_titin_is_read_whole(tmp_path: Path) -> None:
    proteome = read_proteome(fasta(tmp_path, ("TTN||Q8WZ42|x", "MTTQAPTF" * 5000)))
    assert len(proteome.proteins[0].sequence) == 40_000


def test_the_real_proteomes_are_read_whole(shared: Path) -> None:
    found = {name: read_proteome(shared / "data" / "proteins" / f"{name}.fasta.gz") for name in FILES}
    for name, (proteins, genes, left_out) in FILES.items():
        named, _ = place_proteins(found[name], None)
        keys = {protein.gene or protein.symbol for protein in named.proteins}
        assert (len(named.proteins), len(keys), named.dropped) == (proteins, genes, left_out)
    assert found["yeast_s288c"].taxon == 4932  # of the species; the headers name the strain, 559292
    assert found["human_partial"].proteins[0].gene == "ENSG00000121410"


FILES = {
    "human_partial": (8191, 7925, {}),
    "mouse_partial": (614, 614, {}),
    "yeast_s288c": (6751, 6722, {"without a gene": 7}),
}


# Genes from a map


def test_a_gene_map_wins_over_headers_with_or_without_versions(tmp_path: Path) -> None:
    (tmp_path / "map.tsv").write_text(
        "protein_id\tgene_id\tsymbol\nNP_000005\tENSG00000175899.5\tA2M\n\nP04637\tENSG00000141510\t\n"
    )
    gene_map = read_gene_map(tmp_path / "map.tsv")
    found = read_proteome(fasta(tmp_path, (REFSEQ, "MK"), (UNIPROT, "ML"), ("B||b|x", "MV")), gene_map=gene_map)
    assert [(protein.gene, protein.symbol, protein.aliases) for protein in found.proteins] == [
        ("ENSG00000175899", "A2M", ()),
        ("ENSG00000141510", "TP53", ("P04637",)),
        ("", "B", ()),
    ]
    (tmp_path / "map.tsv").write_text("NP_000005.3\tG1\r\nNP_7.1\tG2\r\n")
    assert read_gene_map(tmp_path / "map.tsv")["NP_7"] == ("G2", "")


def test_a_gene_map_of_other_proteins_is_refused(tmp_path: Path) -> None:
    message = r"pep\.fa: the gene map names none of the proteins \(NP_000005\.3 here, XP_1 there\)"
    with pytest.raises(InputError, match=message):
        read_proteome(fasta(tmp_path, (REFSEQ, "MK")), gene_map={"XP_1": ("G1", "")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"no rows\. Lines protein_id<TAB>gene_id"),
        ("protein_id\tgene_id\n", r"no rows"),
        ("P1,G1\n", r"line 1 is not protein_id<TAB>gene_id\[<TAB>symbol\] \(P1,G1\)"),
        ("P1\tG1\nP2\t\n", r"line 2 is not"),
        ("P1\tG1\tA\tB\n", r"line 1 is not"),
        ("protein1\tG1\nprotein1\tG2\n", r"line 2: protein protein1 has two genes"),
        ("P1\tG1\nP1\tG2\n", r"line 2: protein P1 has two genes"),
    ],
)
def test_a_broken_gene_map_is_one_clear_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_gene_map(tmp_path / "map.tsv")


# Genes and places from an annotation

TP53 = Gene("ENSG00000141510", "TP53", ("LFS1", "GeneID:7157"), "protein_coding", "17", 7661779)
A2M = Gene("ENSG00000175899", "A2M", (), "protein_coding", "12", 9067708)
UNNAMED = Gene("ENSG00000000003", "", (), "protein_coding")
CD20 = Gene("ENSG00000156738", "MS4A1", ("CD20",), "protein_coding", "11", 60455846)
ANNOTATION = Annotation({gene.id: gene for gene in (UNNAMED, TP53, CD20, A2M)}, {"NP_000005": A2M.id}, (), "genes.gff3")


def placed(*proteins: Protein) -> list[Protein]:
    proteome, _ = place_proteins(Proteome(proteins, {}, file="pep.fa"), ANNOTATION)
    return list(proteome.proteins)


def test_genes_are_found_by_id_protein_symbol_and_alias() -> None:
    found = placed(
        Protein("p1", "ENSG00000141510", "P53", "MK", "17", 5, ("X1",)),
        Protein("NP_000005.3", "", "", "MK"),
        Protein("p2", "", "TP53", "MK", aliases=("P04637",)),
        Protein("p3", "", "CD20", "MK"),
        Protein("p4", "ENSG00000000003", "TSPAN6", "MK", "X", 9),
    )
    place = {"chromosome": "17", "start": 7661779}
    assert found == [
        Protein("p1", TP53.id, "TP53", "MK", **place, aliases=("P53", "X1", "LFS1", "GeneID:7157")),
        Protein("NP_000005.3", A2M.id, "A2M", "MK", "12", 9067708),
        Protein("p2", TP53.id, "TP53", "MK", **place, aliases=("P04637", "LFS1", "GeneID:7157")),
        Protein("p3", CD20.id, "MS4A1", "MK", "11", 60455846, aliases=("CD20",)),
        Protein("p4", UNNAMED.id, "TSPAN6", "MK", "X", 9),
    ]


def test_proteins_that_have_their_places_keep_them() -> None:
    once = placed(Protein("p1", TP53.id, "P53", "MK"), Protein("p3", "", "CD20", "MK", "1", 1, ("B1",)))
    assert placed(*once) == once


def test_all_proteins_of_a_gene_go_where_one_of_them_leads() -> None:
    found = placed(Protein("AP_9.1", "A2M-like", "", "MK"), Protein("NP_000005.3", "A2M-like", "", "ML"))
    assert {protein.gene for protein in found} == {A2M.id}


def test_genes_the_annotation_does_not_know_stay_as_they_are_and_are_told() -> None:
    known = [Protein(f"p{i}", TP53.id if i % 2 else A2M.id, "", "MK") for i in range(6)]
    lost = Protein("q", "", "NEW1", "MW", "5", 7)
    proteome, notes = place_proteins(Proteome((*known, lost), {}, file="pep.fa"), ANNOTATION)
    assert proteome.proteins[-1] == lost
    assert notes == ("pep.fa: 2 of 3 genes are in genes.gff3; unknown are NEW1",)
    assert place_proteins(Proteome(tuple(known), {}, file="pep.fa"), ANNOTATION)[1] == ()


def test_an_annotation_of_something_else_is_refused_with_ids_of_both() -> None:
    proteins = tuple(Protein(f"p{i}", f"ENSMUSG0000000000{i}", "", "MK") for i in range(3))
    message = (
        r"^pep\.fa: 1 of 4 genes are in genes\.gff3; unknown are ENSMUSG00000000000, .*"
        r"known there are ENSG00000000003.*another assembly"
    )
    with pytest.raises(InputError, match=message):
        place_proteins(Proteome((*proteins, Protein("q", TP53.id, "", "MK")), {}, file="pep.fa"), ANNOTATION)
    message = r"0 of 1 proteins are in genes\.gff3; unknown are XP_7\.1; known there are NP_000005"
    with pytest.raises(InputError, match=message):
        place_proteins(Proteome((Protein("XP_7.1", "", "", "MK"),), {}, file="pep.fa"), ANNOTATION)


def test_proteins_that_name_no_gene_need_an_annotation_or_a_map(tmp_path: Path) -> None:
    proteome = read_proteome(fasta(tmp_path, (REFSEQ, "MK")))
    with pytest.raises(InputError, match=r"pep\.fa: no header names a gene .* Give the GFF3 .* by --gene-map"):
        place_proteins(proteome, None)
    assert place_proteins(proteome, ANNOTATION)[0].proteins[0].gene == A2M.id


@pytest.mark.parametrize(
    ("name", "species", "unplaced"), [("human_partial", "homo_sapiens", 1), ("mouse_partial", "mus_musculus", 1)]
)
def test_real_proteins_find_their_places(name: str, species: str, unplaced: int, shared: Path) -> None:
    annotation = read_annotation(shared / "data" / "genes" / f"{species}.csv.gz")
    proteome = read_proteome(shared / "data" / "proteins" / f"{name}.fasta.gz")
    found, notes = place_proteins(proteome, annotation)
    assert len(found.proteins) == len(proteome.proteins)
    assert sum(protein.chromosome == "unplaced" for protein in found.proteins) == unplaced
    assert sum(not protein.gene for protein in found.proteins) == unplaced
    assert notes == ()
    other = read_annotation(shared / "data" / "genes" / "caenorhabditis_elegans.csv.gz")
    with pytest.raises(InputError, match=r"genes are in .*caenorhabditis_elegans\.csv\.gz; unknown are"):
        place_proteins(proteome, other)

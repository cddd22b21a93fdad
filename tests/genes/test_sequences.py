"""Proteome files: every header form, every way a FASTA, GTF or GFF3 can be wrong."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError
from uce.genes.proteins.sequences import RESIDUES, Protein, clean_residues, read_header, read_positions, read_proteome

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
        (GENCODE, Protein("ENSP00000493376.2", "ENSG00000186092", "OR4F5", "")),
        (PAR, Protein("ENSP00000370000.3_PAR_Y", "ENSG00000182378", "PLCXD1", "")),
        (UNIPROT, Protein("P04637", "", "TP53", "")),
        (ISOFORM, Protein("P04637-2", "", "TP53", "")),
        ("sp|P0CX61|YJ41B_YEAST Transposon OS=S. cerevisiae", Protein("P0CX61", "", "", "")),
        (REFSEQ, Protein("NP_000005.3", "", "", "")),
        (REFSEQ_CDS, Protein("NP_001005484.2", "", "OR4F5", "")),
        ("A1BG|ENSG00000121410|ENSP00000263100|shs", Protein("ENSP00000263100", "ENSG00000121410", "A1BG", "")),
        ("Abcb1a||P21447|dta", Protein("P21447", "", "Abcb1a", "")),
        ("", Protein("", "", "", "")),
    ],
)  # fmt: skip
def test_headers_of_every_source_are_told_apart(header: str, protein: Protein) -> None:
    assert read_header(header) == protein


@given(st.text())
def test_any_header_is_read_without_an_error(header: str) -> None:
    assert read_header(header.strip()).sequence == ""


@given(st.text(alphabet=sorted(RESIDUES | set("jlagv .-*\t")), max_size=60))
def test_cleaned_residues_are_those_esm2_knows(text: str) -> None:
    cleaned = clean_residues(text)
    assert set(cleaned) <= RESIDUES | {"*"}
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
    assert [protein.symbol for protein in proteome.proteins] == ["D"]
    assert proteome.dropped == {"inner stop": 1, "empty": 2, "repeated": 1, "without a gene": 1}


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
        (b">NP_1.1 text [Homo sapiens]\nMKL\n", r"no usable protein \(1 without a gene\)\. Headers must name the gene"),
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


def test_a_missing_fasta_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.fa: no such file; a FASTA file of proteins is expected"):
        read_proteome(tmp_path / "none.fa")


def test_a_titin_is_read_whole(tmp_path: Path) -> None:
    proteome = read_proteome(fasta(tmp_path, ("TTN||Q8WZ42|x", "MTTQAPTF" * 5000)))
    assert len(proteome.proteins[0].sequence) == 40_000


def test_the_real_proteomes_are_read_whole(shared: Path) -> None:
    found = {name: read_proteome(shared / "data" / "proteins" / f"{name}.fasta.gz") for name in FILES}
    for name, (proteins, genes, left_out) in FILES.items():
        keys = {protein.gene or protein.symbol for protein in found[name].proteins}
        assert (len(found[name].proteins), len(keys), found[name].dropped) == (proteins, genes, left_out)
    assert found["human_partial"].proteins[0].gene == "ENSG00000121410"


FILES = {
    "human_partial": (8191, 7925, {}),
    "mouse_partial": (614, 614, {}),
    "yeast_s288c": (6751, 6722, {"without a gene": 7}),
}

GTF = """#!genome-build GRCh38
1\thavana\tgene\t65419\t71585\t.\t+\t.\tgene_id "ENSG00000186092.7"; gene_name "OR4F5"; gene_type "protein_coding";
1\thavana\texon\t1\t9\t.\t+\t.\tgene_id "ENSG00000186092.7"; gene_name "OR4F5";
HSCHR6_ALT\te\tgene\t5\t9\t.\t+\t.\tgene_id "ENSG00000204490"; gene_name "TNF";
6\te\tgene\t31575565\t31578336\t.\t+\t.\tgene_id "ENSG00000204490"; gene_name "TNF";
"""
GFF = """##gff-version 3
1\te\tgene\t65419\t71585\t.\t+\t.\tID=gene:ENSG00000186092;Name=OR4F5;biotype=protein_coding
1\tr\tpseudogene\t7\t9\t.\t+\t.\tID=gene-A%3BB;Dbxref=GeneID:79501;gene=A%3BB
##FASTA
>1
ACGT
"""


def test_genes_get_their_chromosome_before_alternative_loci(tmp_path: Path) -> None:
    (tmp_path / "a.gtf").write_text(GTF)
    assert read_positions(tmp_path / "a.gtf") == {
        "ENSG00000186092": ("1", 65419),
        "OR4F5": ("1", 65419),
        "ENSG00000204490": ("6", 31575565),
        "TNF": ("6", 31575565),
    }


def test_gff3_of_ensembl_and_refseq_is_read_up_to_its_sequences(tmp_path: Path) -> None:
    (tmp_path / "a.gff3.gz").write_bytes(gzip.compress(GFF.encode(), mtime=0))
    assert read_positions(tmp_path / "a.gff3.gz") == {
        "ENSG00000186092": ("1", 65419),
        "OR4F5": ("1", 65419),
        "A;B": ("1", 7),
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1\te\tgene\t5\t9\n", r"line 1 is no row of a GTF or GFF3 file"),
        ('1\te\tgene\t9\t5\t.\t+\t.\tgene_id "A";\n', r"line 1 is no row"),
        ('1\te\tgene\t0\t5\t.\t+\t.\tgene_id "A";\n', r"line 1 is no row"),
        ("chr1\t0\t5\tA\t.\t+\t0\t5\t0\n", r"line 1 is no row"),  # BED
        ('1\te\texon\t5\t9\t.\t+\t.\tgene_id "A";\n', r"no row of type gene"),
        ("", r"no row of type gene"),
    ],
)
def test_broken_places_are_one_clear_line(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.gtf").write_text(row)
    with pytest.raises(InputError, match=message):
        read_positions(tmp_path / "a.gtf")

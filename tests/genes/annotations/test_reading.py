"""Annotations: GTF and GFF3 of every provider, tables of genes, and every way in which they can be wrong."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.errors import InputError
from uce.genes.annotations.gene import Gene, chromosome_name, place_order, stable_id, stable_protein
from uce.genes.annotations.reading import Annotation, read_annotation


def row(sequence: str, kind: str, start: int, end: int, attributes: str) -> str:
    return f"{sequence}\tsource\t{kind}\t{start}\t{end}\t.\t+\t.\t{attributes}\n"


def read(folder: Path, *rows: str) -> Annotation:
    path = folder / "genes.txt"
    path.write_bytes("".join(rows).encode())
    return read_annotation(path)


ENSEMBL_GTF = (
    "#!genome-build GRCh38.p14\n",
    row(
        "1", "gene", 65419, 71585,
        'gene_id "ENSG00000186092"; gene_version "7"; gene_name "OR4F5"; gene_source "ensembl_havana"; '
        'gene_biotype "protein_coding";',
    ),
    row("1", "exon", 65419, 65433, 'gene_id "ENSG00000186092"; gene_name "OR4F5"; tag "basic"; tag "MANE_Select";'),
    row(
        "1", "CDS", 65565, 65573,
        'gene_id "ENSG00000186092"; gene_version "7"; transcript_id "ENST00000641515"; gene_name "OR4F5"; '
        'protein_id "ENSP00000493376"; protein_version "2"; tag "basic"; tag "Ensembl_canonical";',
    ),
    row("1", "gene", 5, 9, 'gene_id "ENSG00000238009"; gene_version "6"; gene_biotype "lncRNA";'),
)  # fmt: skip
GENCODE_GTF = (
    "##description: evidence-based annotation\n",
    row(
        "chr1", "gene", 65419, 71585,
        'gene_id "ENSG00000186092.7"; gene_type "protein_coding"; gene_name "OR4F5"; level 2; '
        'hgnc_id "HGNC:14825"; havana_gene "OTTHUMG00000001094.4";',
    ),
    row(
        "chr1", "CDS", 65565, 65573,
        'gene_id "ENSG00000186092.7"; transcript_id "ENST00000641515.2"; gene_name "OR4F5"; '
        'protein_id "ENSP00000493376.2"; tag "basic"; tag "CCDS";',
    ),
    row("chr1", "gene", 5, 9, 'gene_id "ENSG00000238009.6"; gene_type "lncRNA"; gene_name "ENSG00000238009"; level 2;'),
)  # fmt: skip
ENSEMBL_GFF3 = (
    "##gff-version 3\n",
    row("1", "chromosome", 1, 248956422, "ID=chromosome:1;Alias=CM000663.2,chr1,NC_000001.11"),
    row(
        "1", "gene", 65419, 71585,
        "ID=gene:ENSG00000186092;Name=OR4F5;biotype=protein_coding;description=olfactory%3B [Source:HGNC];"
        "gene_id=ENSG00000186092;version=7",
    ),
    row("1", "mRNA", 65419, 71585, "ID=transcript:ENST00000641515;Parent=gene:ENSG00000186092;Name=OR4F5-201"),
    row("1", "exon", 65419, 65433, "Parent=transcript:ENST00000641515;Name=ENSE00003812156;rank=1"),
    row("1", "CDS", 65565, 65573, "ID=CDS:E;Parent=transcript:ENST00000641515;protein_id=ENSP00000493376"),
    row("1", "ncRNA_gene", 5, 9, "ID=gene:ENSG00000238009;biotype=lncRNA;gene_id=ENSG00000238009;version=6"),
    "##FASTA\n>1\nACGT\n",
)  # fmt: skip
GENCODE_GFF3 = (
    row(
        "chr1", "gene", 65419, 71585,
        "ID=ENSG00000186092.7;gene_id=ENSG00000186092.7;gene_type=protein_coding;gene_name=OR4F5;hgnc_id=HGNC:14825",
    ),
    row("chr1", "transcript", 65419, 71585, "ID=ENST00000641515.2;Parent=ENSG00000186092.7;gene_id=ENSG00000186092.7"),
    row(
        "chr1", "CDS", 65565, 65573,
        "ID=CDS:ENST00000641515.2;Parent=ENST00000641515.2;gene_id=ENSG00000186092.7;protein_id=ENSP00000493376.2",
    ),
    row("chr1", "gene", 5, 9, "ID=ENSG00000238009.6;gene_id=ENSG00000238009.6;gene_type=lncRNA"),
)  # fmt: skip


@pytest.mark.parametrize("rows", [ENSEMBL_GTF, GENCODE_GTF, ENSEMBL_GFF3, GENCODE_GFF3])
def test_every_form_of_ensembl_and_gencode_gives_the_same_genes(rows: tuple[str, ...], tmp_path: Path) -> None:
    found = read(tmp_path, *rows)
    assert list(found.genes) == ["ENSG00000186092", "ENSG00000238009"]
    gene = found.genes["ENSG00000186092"]
    assert (gene.symbol, gene.biotype, gene.place) == ("OR4F5", "protein_coding", ("1", 65419))
    assert found.genes["ENSG00000238009"] == Gene("ENSG00000238009", "", (), "lncRNA", "1", 5)
    assert found.find("ENSP00000493376") == found.find("ENSP00000493376.2") == gene
    assert found.find("ENSG00000186092.9") == found.find("OR4F5") == gene
    assert found.find("NONE") is found.find("") is None
    assert (found.notes, found.file) == ((), str(tmp_path / "genes.txt"))


def refseq_region(sequence: str, facts: str) -> str:
    return row(sequence, "region", 1, 248956422, f"ID={sequence}:1..9;Dbxref=taxon:9606;{facts};mol_type=genomic DNA")


REFSEQ_GFF3 = (
    "##gff-version 3\n#!processor NCBI annotwriter\n",
    refseq_region("NC_000001.11", "Name=1;chromosome=1;gbkey=Src;genome=chromosome"),
    row(
        "NC_000001.11", "gene", 65419, 71585,
        "ID=gene-OR4F5;Dbxref=GeneID:79501,HGNC:HGNC:14825,MIM:6;Name=OR4F5;gbkey=Gene;gene=OR4F5;"
        "gene_biotype=protein_coding;gene_synonym=OR-A%2CB,OLFR5",
    ),
    row("NC_000001.11", "mRNA", 65419, 71585, "ID=rna-NM_001005484.2;Parent=gene-OR4F5;Dbxref=GeneID:79501;gene=OR4F5"),
    row("NC_000001.11", "exon", 65419, 65433, "ID=exon-NM_001005484.2-1;Parent=rna-NM_001005484.2;gene=OR4F5"),
    row(
        "NC_000001.11", "CDS", 65565, 65573,
        "ID=cds-NP_001005484.2;Parent=rna-NM_001005484.2;Dbxref=GeneID:79501,GenBank:NP_001005484.2;gene=OR4F5;"
        "protein_id=NP_001005484.2",
    ),
    refseq_region("NC_012920.1", "Name=MT;gbkey=Src;genome=mitochondrion"),
    row("NC_012920.1", "gene", 3307, 4262, "ID=gene-ND1;Dbxref=GeneID:4535;Name=ND1;gene=ND1;gene_synonym=MTND1"),
    row("NC_012920.1", "CDS", 3307, 4262, "ID=cds-YP_003024026.1;Parent=gene-ND1;gene=ND1;protein_id=YP_003024026.1"),
    refseq_region("NT_187361.1", "Name=1;chromosome=1;gbkey=Src;genome=genomic"),
    row("NT_187361.1", "pseudogene", 7, 9, "ID=gene-A%3BB;Dbxref=GeneID:5;Name=A%3BB;gene=A%3BB;locus_tag=T_1"),
)  # fmt: skip


def test_refseq_names_chromosomes_proteins_and_synonyms(tmp_path: Path) -> None:
    found = read(tmp_path, *REFSEQ_GFF3)
    aliases = ("OR-A,B", "OLFR5", "GeneID:79501", "HGNC:14825")
    assert found.genes == {
        "A;B": Gene("A;B", "A;B", ("T_1", "GeneID:5"), "", "NT_187361.1", 7),
        "ND1": Gene("ND1", "ND1", ("MTND1", "GeneID:4535"), "", "MT", 3307),
        "OR4F5": Gene("OR4F5", "OR4F5", aliases, "protein_coding", "1", 65419),
    }
    assert found.proteins == {
        "NP_001005484": "OR4F5", "NP_001005484.2": "OR4F5", "YP_003024026": "ND1", "YP_003024026.1": "ND1",
    }  # fmt: skip
    assert found.find("OLFR5") == found.find("GeneID:79501") == found.genes["OR4F5"]
    assert found.find("79501") is None
    assert found.notes == ()


def test_copies_of_a_refseq_gene_are_one_gene_on_its_chromosome(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row("NC_000006.12", "gene", 31575565, 31578336, "ID=gene-TNF;Dbxref=GeneID:7124;gene=TNF"),
        row("NT_187361.1", "gene", 7, 9, "ID=gene-TNF-2;Dbxref=GeneID:7124;gene=TNF;gene_synonym=DIF"),
        row("NT_187361.1", "CDS", 7, 9, "ID=cds-1;Parent=gene-TNF-2;protein_id=NP_000585.2"),
    )
    assert list(found.genes) == ["TNF"]
    gene = found.genes["TNF"]
    assert (gene.symbol, gene.place, gene.aliases) == ("TNF", ("NC_000006.12", 31575565), ("GeneID:7124", "DIF"))
    assert found.find("NP_000585.2") == found.find("TNF") == gene
    several, accessions = found.notes
    assert several.startswith("genes on several sequences, placed on the main one: 1 (TNF on NC_000006.12, NT_1873")
    assert accessions.startswith("chromosomes go by accession (NC_...)")


def test_the_gtf_of_refseq_is_read_too(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row(
            "NC_000001.11", "gene", 65419, 71585,
            'gene_id "OR4F5"; transcript_id ""; db_xref "GeneID:79501"; db_xref "HGNC:HGNC:14825"; gbkey "Gene"; '
            'gene "OR4F5"; gene_biotype "protein_coding"; gene_synonym "A"; gene_synonym "B";',
        ),
        row("NC_000001.11", "CDS", 65565, 65573, 'gene_id "OR4F5"; gene "OR4F5"; protein_id "NP_001005484.2";'),
    )  # fmt: skip
    assert found.genes["OR4F5"].aliases == ("A", "B", "GeneID:79501", "HGNC:14825")
    assert found.proteins["NP_001005484.2"] == "OR4F5"


@pytest.mark.parametrize(
    ("sequence", "start"),
    [("HSCHR6_MHC_COX_CTG1", 3), ("CHR_HSCHR6_MHC_APD", 3), ("chr6_GL000250v2_alt", 3), ("KI270728.1", 3), ("6", 90)],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_gene_lies_on_its_chromosome_before_other_sequences(
    sequence: str, start: int, reverse: bool, tmp_path: Path
) -> None:
    rows = [
        row("6", "gene", 31, 40, 'gene_id "ENSG00000204490"; gene_name "TNF";'),
        row(sequence, "gene", start, 99, 'gene_id "ENSG00000204490"; gene_name "TNF";'),
    ]
    found = read(tmp_path, *(reversed(rows) if reverse else rows))
    assert found.genes["ENSG00000204490"].place == ("6", 31)
    assert len(found.notes) == (sequence != "6")


def test_the_copy_on_y_of_a_pseudoautosomal_gene_is_that_on_x(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row("chrY", "gene", 276322, 303356, 'gene_id "ENSG00000182378.15_PAR_Y"; gene_name "PLCXD1";'),
        row("chrX", "gene", 276324, 303356, 'gene_id "ENSG00000182378.15"; gene_name "PLCXD1";'),
        row("chrY", "CDS", 276322, 303356, 'gene_id "ENSG00000182378.15_PAR_Y"; protein_id "ENSP00000370000.3_PAR_Y";'),
        row("chrX", "gene", 1386152, 1392113, 'gene_id "ENSG00000169100.14"; gene_name "SLC25A6";'),
        row("chrY", "gene", 1386152, 1392113, 'gene_id "ENSG00000292334.1"; gene_name "SLC25A6";'),
    )
    assert found.genes["ENSG00000182378"].place == ("X", 276324)
    assert found.find("ENSP00000370000.3_PAR_Y") == found.find("PLCXD1") == found.genes["ENSG00000182378"]
    assert found.find("SLC25A6") == found.genes["ENSG00000169100"]


def test_without_rows_of_genes_they_begin_at_their_first_base(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row("chr2L", "exon", 500, 600, 'gene_id "g1"; transcript_id "g1.t1"; gene_name "Adh";'),
        row("chr2L", "transcript", 90, 600, 'gene_id "g1"; transcript_id "g1.t1"; gene_name "Adh";'),
        row("chr2L", "CDS", 510, 600, 'gene_id "g1"; protein_id "P1";'),
        row("chr2L", "exon", 7, 8, 'transcript_id "lost";'),
    )
    assert found.genes == {"g1": Gene("g1", "Adh", (), "", "2L", 90)}
    assert found.proteins == {"P1": "g1"}


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + row("1", "gene", 5, 9, "ID=A")).genes["A"].chromosome == "1"


def test_rows_of_genes_count_alone_wherever_they_stand(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        row("1", "exon", 5, 9, 'gene_id "A";'),
        row("1", "exon", 5, 9, 'gene_id "B";'),
        row("1", "gene", 7, 9, 'gene_id "A";'),
    )
    assert found.genes == {"A": Gene("A", "", (), "", "1", 7)}


def test_a_symbol_or_alias_of_several_genes_is_that_of_the_one_on_a_chromosome_or_nobody_s(tmp_path: Path) -> None:
    table = (
        "gene_id,symbol,aliases,chromosome,start\n"
        "A1,TNF,X1|SAME,6,5\nA2,TNF,X1,HSCHR6_MHC_COX,5\nA3,TNF,,,\n"
        "B1,DUP,SAME,1,5\nB2,DUP,TNF|B1,2,5\n"
    )
    found = read(tmp_path, table)
    assert found.find("TNF") == found.find("X1") == found.genes["A1"]
    assert found.find("DUP") is found.find("SAME") is None
    assert found.find("B1") == found.genes["B1"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_table_of_genes_needs_only_their_ids(end: str, separator: str, zipped: bool, tmp_path: Path) -> None:
    lines = ["\ufeffstart,gene_id,other,symbol,chromosome", "3747.0,ENSG00000186092.7,x,OR4F5,chr1", ",G2,,NA,", "", ""]
    content = end.join(lines).replace(",", separator).encode()
    path = tmp_path / "genes.csv"
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    assert read_annotation(path).genes == {
        "ENSG00000186092": Gene("ENSG00000186092", "OR4F5", (), "", "1", 3747),
        "G2": Gene("G2", ""),
    }
    path.write_text("gene_id\nA\nB\n")
    assert list(read_annotation(path).genes) == ["A", "B"]


@pytest.mark.parametrize(
    "content",
    [
        "#!genome-build GRCz11\n\n# by hand\ngene_id,symbol,chromosome,start\nG1,tp53,5,24086227\n",
        "Gene ID,Symbol,Chromosome,Start\nG1,tp53,5,24086227\n",
        "Gene stable ID\tGene name\tChromosome/scaffold name\tGene start (bp)\nG1\ttp53\t5\t24086227\n",
        '"gene-id","symbol","chromosome","start"\n"G1","tp53","5","24086227"\n',
    ],
    ids=["comments", "other spelling", "BioMart", "quoted"],
)
def test_a_table_of_genes_is_known_by_its_header_however_that_is_written(content: str, tmp_path: Path) -> None:
    assert read(tmp_path, content).genes == {"G1": Gene("G1", "tp53", (), "", "5", 24086227)}


LONG = "c" * 129


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"no rows; a GTF, a GFF3 or a table of genes is needed"),
        ("# only\n\n#comments\n", r"no rows"),
        ("##FASTA\n", r"no rows"),
        (row("1", "exon", 5, 9, "ID=e1"), r"no row describes a gene"),
        (row("1", "gene", 5, 9, ""), r"no row describes a gene"),
        ("gene_id,symbol\n", r"no row describes a gene"),
        ("1\te\tgene\t5\t9\n", r"line 1: 5 columns instead of 9 \(.*\)\. Give GTF, GFF3, or CSV"),
        ("#\nchr1\t0\t5\tA\n", r"line 2: 4 columns instead of 9, a BED file by its look"),
        ("chr1\t0\t5\tA\t.\t+\t0\t5\t0\n", r"line 1: A to \. is no range of bases"),
        (row("1", "gene", 5, 9, "ID=a") + row("1", "gene", 9, 5, "ID=b"), r"line 2: 9 to 5 is no range of bases"),
        (row("1", "gene", 0, 5, "ID=a"), r"line 1: 0 to 5 is no range"),
        (row("1", "gene", 1, 10**20, "ID=a"), r"line 1: 1 to 10+ is no range"),
        (row("1\x1b[31m", "gene", 1, 5, "ID=a"), r"line 1: '1.*x1b\[31m' cannot name a chromosome"),
        (row(LONG, "gene", 1, 5, "ID=a"), r"line 1: 'c+\.\.\.' cannot name a chromosome"),
        ("ensembl,symbol\nA,B\n", r"line 1: 1 columns instead of 9"),
        ("gene_id;symbol\nA;B\n", r"line 1: 1 columns instead of 9 .* or CSV with a column gene_id"),
        ("gene_id,symbol\nA,B\nC\n", r"line 3: 1 fields where the header has 2"),
        ("\n#made by hand\ngene_id,symbol\nA,B\nC\n", r"line 5: 1 fields where the header has 2"),
        ("gene_id,symbol\n,B\n", r"line 2: no gene_id"),
        ("gene_id,chromosome,start\nA,1,0\n", r"line 2: start '0' is not a base"),
        ("gene_id,chromosome,start\nA,1,1e5\n", r"line 2: start '1e5' is not a base"),
        (f"gene_id,chromosome,start\nA,{LONG},5\n", r"line 2: 'c+\.\.\.' cannot name a chromosome"),
    ],
)
def test_a_broken_annotation_is_one_clear_line(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "genes.txt"))
    assert str(caught.value).isprintable()


def test_a_truncated_or_missing_annotation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gtf.gz"
    with pytest.raises(InputError, match=r"a\.gtf\.gz: no such file; a GTF, a GFF3 or a table of genes is expected"):
        read_annotation(path)
    rows = "".join(row("1", "gene", n, n + 9, f'gene_id "g{n * n}";') for n in range(1, 999))
    path.write_bytes(gzip.compress(rows.encode(), mtime=0)[:-40])
    with pytest.raises(InputError, match=r"a\.gtf\.gz: cannot be read to its end .*get it again"):
        read_annotation(path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chr1", "1"), ("Chr4", "4"), ("chrX", "X"), ("chr2L", "2L"), ("chrXVIII", "XVIII"), ("chrLG1", "LG1"),
        ("chrM", "MT"), ("chrMT", "MT"), ("chrmt", "MT"), ("M", "MT"), ("MT", "MT"), ("Mt", "Mt"), ("MtDNA", "MtDNA"),
        ("mitochondrion_genome", "mitochondrion_genome"), ("chrUn", "chrUn"), ("KI270728.1", "KI270728.1"),
        ("chr6_GL000250v2_alt", "chr6_GL000250v2_alt"), ("", None), ("a\tb", None), ("1\u202e", None),
    ],
)  # fmt: skip
def test_chromosomes_get_the_names_of_ensembl(text: str, name: str | None) -> None:
    assert chromosome_name(text) == name


@given(st.text())
def test_a_name_of_a_chromosome_stays_when_it_is_made_again(text: str) -> None:
    name = chromosome_name(text)
    assert name is None or chromosome_name(name) in (name, chromosome_name(f"chr{name}"))


def test_places_sort_from_chromosomes_to_what_is_unplaced() -> None:
    places = [("2", 1), ("2", 9), ("X", 1), ("Y", 1), ("10", 1), ("MtDNA", 1), ("AEMK02000127.1", 1)]
    places += [("NT_187361.1", 1), ("CHR_HG107_PATCH", 1), ("unplaced", 0)]
    shuffled = sorted(places)
    assert sorted(shuffled, key=place_order) == places


@pytest.mark.parametrize(
    ("name", "bare"),
    [("ENSG00000182378.15_PAR_Y", "ENSG00000182378"), ("MGP_CAROLIEiJ_G0012345.1", "MGP_CAROLIEiJ_G0012345"),
     ("F23F1.10", "F23F1.10"), ("AC012345.1", "AC012345.1"), ("FBgn0000055", "FBgn0000055")],
)  # fmt: skip
def test_only_ids_lose_their_version(name: str, bare: str) -> None:
    assert stable_id(name) == bare


@pytest.mark.parametrize(
    ("name", "bare"),
    [("NP_000005.3", "NP_000005"), ("XP_011508921.1", "XP_011508921"), ("ENSDARP00000000042.5", "ENSDARP00000000042"),
     ("EAW89118.1", "EAW89118"), ("P04637-2", "P04637"), ("A0A024R161-11", "A0A024R161"),
     ("Y74C9A.3.1", "Y74C9A.3.1"), ("AT1G01010.1", "AT1G01010.1")],
)  # fmt: skip
def test_only_proteins_of_the_archives_lose_their_version(name: str, bare: str) -> None:
    assert stable_protein(name) == bare


@pytest.mark.parametrize(
    ("species", "genes", "gene"),
    [
        ("homo_sapiens", 87770, Gene("ENSG00000290825", "DDX11L16", ("DDX11L2",), "lncRNA", "1", 11121)),
        ("microcebus_murinus", 26798, Gene("ENSMICG00000000003", "ECPAS", (), "protein_coding")),
    ],
)
def test_real_tables_of_genes_are_read(species: str, genes: int, gene: Gene, shared: Path) -> None:
    found = read_annotation(shared / "data" / "genes" / f"{species}.csv.gz")
    assert len(found.genes) == genes
    assert found.genes[gene.id] == gene
    assert list(found.genes) == sorted(found.genes)
    if species == "homo_sapiens":
        tnf = found.find("TNF")
        assert tnf is not None
        assert (tnf.id, tnf.chromosome) == ("ENSG00000232810", "6")

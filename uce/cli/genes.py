"""The commands about species and their gene tables."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uce.cli.parsers import Commands, add_command

if TYPE_CHECKING:
    from uce.genes.adding import Added
    from uce.genes.judging.health import TableHealth
    from uce.genes.tables import GeneTable


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    parser = add_command(
        commands, "species", "add, check, list and show the gene tables of species", example="species show human TP53"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_list(actions)
    _add_show(actions)
    _add_check(actions)
    _add_add(actions)


def _add_list(actions: Commands) -> None:
    parser = add_command(actions, "list", "list the species with a gene table", example="species list --json")
    parser.add_argument("--encoder", help="kind of gene vectors (all kinds)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run_list)


def _run_list(args: argparse.Namespace) -> int:
    from uce.genes.catalogue import catalogue
    from uce.genes.collection import all_kinds, list_species, table_path

    rows = [
        {
            "species": name,
            "name": catalogue()[name].label if name in catalogue() else "",
            "encoder": kind,
            "file": str(path) if (path := table_path(name, kind)).is_file() else "bundled",
        }
        for kind in ([args.encoder] if args.encoder else all_kinds())
        for name in list_species(encoder=kind)
    ]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no gene tables with vectors of {args.encoder}")
    for row in rows:
        print(f"{row['species']:28} {row['name']:20} {row['encoder']:22} {row['file']}")
    return 0


def _add_show(actions: Commands) -> None:
    parser = add_command(actions, "show", "say and draw what a gene table holds", example="species show human TP53")
    parser.add_argument("species", help="name of a species, or path of a gene table")
    parser.add_argument("gene", nargs="?", help="id, symbol or alias of a gene: its row, place and nearest genes")
    _add_table_options(parser)
    parser.set_defaults(run=_run_show)


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", help="kind of gene vectors (the bundled ones, or the only kind there is)")
    parser.add_argument("--against", metavar="SPECIES", help="compare with the table of this species (human or mouse)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="where to draw it (the user's folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --picture")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_show(args: argparse.Namespace) -> int:
    from uce.errors import UsageError
    from uce.genes.judging.summary import describe, describe_gene

    if args.gene and (args.picture or args.against):
        msg = f"--picture and --against are of a whole table; leave out {args.gene}, or these."
        raise UsageError(msg)
    table = _table(args)
    facts = describe_gene(table, args.gene) if args.gene else describe(table)
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            print(f"{name:24} {_shown(value)}")
    if args.picture or not (args.gene or args.json):
        health = _judged(table, args)
        print(health, file=sys.stderr if args.json else sys.stdout)
    return 0


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(f"{name} ({cosine:.3f})" for name, cosine in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(args: argparse.Namespace) -> "GeneTable":
    """The table asked for; without --encoder the bundled kind, or the only one there is."""
    from uce.genes.catalogue import canonical_species
    from uce.genes.collection import load_gene_table, table_kinds
    from uce.genes.kinds import BUNDLED_ENCODER
    from uce.progress import say

    if args.species.endswith(".h5ad"):
        return load_gene_table(Path(args.species))
    kinds = table_kinds(canonical_species(args.species))
    usual = BUNDLED_ENCODER if BUNDLED_ENCODER in kinds or not kinds else kinds[0]
    if not args.encoder and len(kinds) > 1:
        say(f"tables of this species: {', '.join(kinds)}; this is {usual}, --encoder shows another")
    return load_gene_table(args.species, encoder=args.encoder or usual)


def _add_check(actions: Commands) -> None:
    parser = add_command(
        actions, "check", "judge a gene table: collapse, wrong vectors, shuffled names", example="species check chicken"
    )
    parser.add_argument("species", help="name of a species, or path of a gene table")
    _add_table_options(parser)
    parser.set_defaults(run=_run_check)


def _run_check(args: argparse.Namespace) -> int:
    from uce.errors import ModelError

    health = _judged(_table(args), args)
    print(json.dumps(health.to_dict(), indent=1) if args.json else health)
    return 0 if health.ok else ModelError.exit_code


def _judged(table: "GeneTable", args: argparse.Namespace) -> "TableHealth":
    """The health of a table, which is drawn as well."""
    from uce.files import make_folder, refuse_overwrite, user_folder
    from uce.genes.collection import comparable, load_gene_table
    from uce.genes.judging.health import judge_table
    from uce.genes.judging.pictures import draw_table

    if args.picture:
        refuse_overwrite(args.picture, overwrite=args.overwrite)
    others = [load_gene_table(args.against, encoder=table.encoder)] if args.against else comparable(table)
    health = judge_table(table, against=others)
    path = args.picture or make_folder(user_folder() / "pictures" / table.encoder) / f"{table.species}.png"
    draw_table(table, health, path, against=others)
    print(f"picture: {path}", file=sys.stderr)
    return health


def _add_add(actions: Commands) -> None:
    example = "species add --name gallus_gallus --taxon 9031 --fasta pep.fa.gz --gtf genes.gtf.gz"
    parser = add_command(
        actions,
        "add",
        "make a gene table from proteins, from human orthologues or from vectors made elsewhere",
        example=example,
    )
    parser.add_argument("--name", required=True, help="Latin name (gallus_gallus), or one that is known (chicken)")
    parser.add_argument("--taxon", type=int, help="NCBI taxonomy id; needed where the species is not known")
    sources = parser.add_argument_group("what the vectors are made from")
    sources.add_argument(
        "--fasta", type=Path, help="proteins (.fa, .fa.gz) of Ensembl, GENCODE, UniProt or NCBI RefSeq"
    )
    sources.add_argument("--gene-map", type=Path, metavar="TSV", help="protein id, gene id[, symbol], for bare headers")
    sources.add_argument(
        "--embeddings", type=Path, metavar="FILE", help="vectors made elsewhere: .pt, .h5, .h5ad, .npz"
    )
    sources.add_argument("--orthologs", type=Path, metavar="CSV", help="gene, human gene[, weight]")
    sources.add_argument("--by-symbol", action="store_true", help="take the human gene of the same symbol")
    sources.add_argument("--relative", default="homo_sapiens", metavar="SPECIES", help="instead of human")
    places = parser.add_argument_group("names and places of the genes")
    places.add_argument(
        "--gtf",
        "--gff3",
        "--genes",
        dest="annotation",
        type=Path,
        metavar="FILE",
        help="GTF, GFF3, or a CSV with gene_id, symbol, aliases, chromosome, start",
    )
    making = parser.add_argument_group("how proteins become vectors")
    making.add_argument("--encoder", help="ESM2 by name or file (esm2_t33_650M_UR50D); kind of vectors of --embeddings")
    making.add_argument("--isoforms", choices=["mean", "longest"], default="mean", help="of one gene (mean)")
    making.add_argument(
        "--long-proteins",
        choices=["truncate", "window"],
        default="truncate",
        help="beyond 1,022 residues: cut, as published (default), or read in windows",
    )
    making.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="(auto)")
    making.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto", help="auto is fp32")
    making.add_argument("--batch-tokens", type=int, default=4096, help="residues of a batch (4096)")
    making.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with the proteins that an interrupted run has finished (default)",
    )
    making.add_argument("--dry-run", action="store_true", help="only say hours, memory and gigabytes, from a sample")
    parser.add_argument("--overwrite", action="store_true", help="replace a table of this species and kind")
    parser.set_defaults(run=_run_add)


def _run_add(args: argparse.Namespace) -> int:
    from uce.genes.adding import add_species, estimate_species
    from uce.genes.requests import Making, Sources

    sources = Sources(
        fasta=args.fasta,
        gene_map=args.gene_map,
        embeddings=args.embeddings,
        orthologs=args.orthologs,
        by_symbol=args.by_symbol,
        annotation=args.annotation,
        relative=args.relative,
    )
    making = Making(
        isoforms=args.isoforms,
        long_proteins=args.long_proteins,
        device=args.device,
        precision=args.precision,
        batch_tokens=args.batch_tokens,
    )
    if args.dry_run:
        print(estimate_species(args.name, sources, args.encoder, making, taxon=args.taxon))
        return 0
    added = add_species(
        args.name,
        sources,
        taxon=args.taxon,
        encoder=args.encoder,
        making=making,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    return _report(added) if added else 0  # a process beside the first says nothing


def _report(added: "Added") -> int:
    from uce.errors import ModelError
    from uce.model.registry import models_that_read
    from uce.progress import say

    for note in added.notes:
        say(f"note: {note}")
    say(added.health)
    say(f"picture: {added.picture}")
    print(added.path)
    if not added.health.ok:
        return ModelError.exit_code
    if readers := models_that_read(added.table.encoder):
        say(f"embed its cells: uce embed cells.h5ad --species {added.table.species} --model {readers[0]}")
    else:
        say(f"no model here reads {added.table.encoder} vectors yet; `uce pretrain` trains one, see docs/training.md")
    return 0

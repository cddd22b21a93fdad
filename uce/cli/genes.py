"""The commands about species and their gene tables."""

import argparse
import json

from uce.cli.parsers import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    parser = add_command(commands, "species", "list and show the gene tables", example="species show human")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list the species with a gene table", example="species list --json")
    show = add_command(actions, "show", "say what a gene table holds", example="species show human")
    show.add_argument("species", help="name of a species, or path of a gene table")
    for action in (listing, show):
        action.add_argument("--encoder", default="orthogroups-v1", help="kind of gene vectors (orthogroups-v1)")
        action.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_run_list)
    show.set_defaults(run=_run_show)


def _run_list(args: argparse.Namespace) -> int:
    from uce.genes.catalogue import catalogue
    from uce.genes.tables import list_species

    rows = [
        {"species": name, "name": catalogue()[name].label if name in catalogue() else "", "encoder": args.encoder}
        for name in list_species(encoder=args.encoder)
    ]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no gene tables with vectors of {args.encoder}")
    for row in rows:
        print(f"{row['species']:28} {row['name']}")
    return 0


def _run_show(args: argparse.Namespace) -> int:
    from uce.genes.summary import describe
    from uce.genes.tables import load_gene_table

    facts = describe(load_gene_table(args.species, encoder=args.encoder))
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    for name, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name:24} {text}")
    return 0

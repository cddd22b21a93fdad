"""The command `adapt`: a model fitted further to a user's cells."""

import argparse

from uce.adaptation.recipes import RECIPES
from uce.cli.parsers import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "adapt",
        "fit a model further to your cells, with or without labels",
        example="adapt cells.h5ad --recipe full --labels cell_type --hold-out donor=D1,D2 -o runs/mine",
    )
    parser.add_argument("cells", help="the cells: .h5ad, AnnData .zarr, 10x .h5 or 10x matrix folder, of one species")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of training, such as steps=500")
    parser.add_argument("--recipe", required=True, help="; ".join(f"{name}: {what}" for name, what in RECIPES.items()))
    parser.add_argument("--labels", metavar="COLUMN", help="obs column with the labels")
    parser.add_argument("--model", default="uce-mini", help="model folder, or name of an installed one (uce-mini)")
    parser.add_argument(
        "--hold-out",
        type=_values_of_a_column,
        metavar="COLUMN=VALUES",
        help="cells to keep out of training and to score by, such as donor=D1,D2",
    )
    parser.add_argument("--source", metavar="FILE", help="labelled cells of another kind, for recipes that need them")
    parser.add_argument("--species", help="such as human or mus_musculus; may be left out where the names are clear")
    parser.add_argument("--layer", help="layer with the counts, or X, or raw (found if left out)")
    parser.add_argument("--gene-column", metavar="COLUMN", help="var column with gene ids or symbols (the best one)")
    parser.add_argument("--name", help="of the new model (MODEL-RECIPE)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument("-o", "--output", required=True, help="folder of the run")
    parser.add_argument("--quiet", action="store_true", help="no notes")
    parser.set_defaults(run=_run)


def _values_of_a_column(text: str) -> dict[str, list[str]]:
    column, sign, values = text.partition("=")
    if not (column and sign and values):
        msg = f"{text!r}: a column and its values are needed, such as donor=D1,D2"
        raise argparse.ArgumentTypeError(msg)
    return {column: values.split(",")}


_PASSED = ("recipe", "labels", "model", "source", "species", "layer", "gene_column", "name", "seed", "quiet")


def _run(args: argparse.Namespace) -> int:
    from uce.adaptation.adapt import adapt

    passed = {name: getattr(args, name) for name in _PASSED}
    done = adapt(args.cells, out=args.output, hold_out=args.hold_out, settings=args.overrides, **passed)
    print(done.model)
    if done.picture:
        print(done.picture)
    return 0

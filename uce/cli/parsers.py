"""What the rooms of the command line share: a command with help and an example."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(commands: Commands, name: str, summary: str, *, example: str) -> argparse.ArgumentParser:
    """Add the command `name`; `example` is one that can be pasted, without the leading `uce`."""
    return commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example: uce {example}"
    )


def add_source(parser: argparse.ArgumentParser, *, several_species: bool = True) -> None:
    """Options of every command that reads cells: which model, species, genes and counts."""
    parser.add_argument("--model", default="uce-mini", help="model folder, or name of an installed one (uce-mini)")
    parser.add_argument("--species", help="such as human or mus_musculus; may be left out where the names are clear")
    if several_species:
        parser.add_argument("--species-key", metavar="COLUMN", help="obs column with the species of every cell")
    parser.add_argument("--gene-column", metavar="COLUMN", help="var column with gene ids or symbols (the best one)")
    parser.add_argument(
        "--min-coverage", type=float, default=0.5, metavar="SHARE", help="of the counts, in known genes (0.5)"
    )
    parser.add_argument("--layer", help="layer with the counts, or X, or raw (found if left out)")
    parser.add_argument("--use-raw", action="store_true", help="take the counts from .raw")
    parser.add_argument("--genome", help="which genome of a 10x file that holds several")
    parser.add_argument(
        "--counts-policy",
        choices=["strict", "round", "invert", "as-is"],
        default="invert",
        help="values that are not whole: refuse, round, undo an exact log1p (default), or take as they are",
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs a model on cells: how to compute."""
    parser.add_argument("--batch-size", type=whole_or_auto, default="auto", help="cells per batch (auto)")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="auto: bf16 for a large model where this machine is faster with it, else fp32",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="(auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of genes (0)")


def whole_or_auto(text: str) -> int | str:
    """The argument of an option that takes a whole number above 0, or `auto`."""
    if text == "auto":
        return text
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a whole number above 0")

"""The commands about cells: embed, check, verify and demo."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.cli.parsers import Commands, add_command, add_computing, add_source

if TYPE_CHECKING:
    from uce.embedding import Outcome


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    _add_embed(commands)
    _add_check(commands)
    _add_verify(commands)
    _add_demo(commands)


def _add_embed(commands: Commands) -> None:
    parser = add_command(
        commands, "embed", "write the cell vectors of a file", example="embed pbmc.h5ad --species human --umap pbmc.png"
    )
    parser.add_argument("input", help=".h5ad, AnnData .zarr, 10x .h5 or 10x matrix folder with raw counts")
    parser.add_argument("-o", "--output", help="result file (INPUT.uce.h5ad in the current folder)")
    add_source(parser)
    parser.add_argument("--key-added", default="X_uce", help="name of the result in obsm (X_uce)")
    add_computing(parser)
    parser.add_argument("--replicates", type=int, default=1, help="draws per cell whose vectors are averaged (1)")
    parser.add_argument("--num-workers", type=int, default=1, help="0 reads in line, 1 reads ahead (1)")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with what an interrupted run of the same plan has left (default)",
    )
    parser.add_argument("--inplace", action="store_true", help="add the vectors to the input .h5ad itself")
    parser.add_argument("--format", choices=["h5ad", "npy", "parquet"], default="h5ad", help="(h5ad)")
    parser.add_argument("--overwrite", action="store_true", help="replace an output or a key that is there")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON on stdout")
    parser.add_argument("--umap", metavar="FILE.png", help="also draw a UMAP of the vectors")
    parser.add_argument("--color", nargs="+", metavar="KEY", default=[], help="obs columns to colour it by")
    parser.set_defaults(run=_run_embed)


def _run_embed(args: argparse.Namespace) -> int:
    from uce.files import refuse_overwrite

    if args.umap:
        refuse_overwrite(args.umap, overwrite=args.overwrite)
    from uce.embedding import embed_file
    from uce.plotting import check_columns

    check_columns(args.input, args.color)

    outcome = embed_file(
        args.input,
        args.output,
        model=args.model,
        species=args.species,
        species_key=args.species_key,
        gene_column=args.gene_column,
        min_coverage=args.min_coverage,
        layer=args.layer,
        use_raw=args.use_raw,
        counts_policy=args.counts_policy,
        genome=args.genome,
        key_added=args.key_added,
        seed=args.seed,
        replicates=args.replicates,
        batch_size=args.batch_size,
        precision=args.precision,
        device=args.device,
        num_workers=args.num_workers,
        file_format=args.format,
        overwrite=args.overwrite,
        inplace=args.inplace,
        resume=args.resume,
    )
    if outcome.health is None:  # a rank above 0: rank 0 speaks for all
        return 0
    if args.umap:
        _draw_umap(outcome, args)
    _report_embed(outcome, as_json=args.json)
    return 0


def _draw_umap(outcome: "Outcome", args: argparse.Namespace) -> None:
    from uce.plotting import draw_umap, read_for_plot

    vectors, columns = read_for_plot(outcome.path, args.input, key=args.key_added, columns=args.color)
    draw_umap(vectors, columns, args.umap, title=Path(args.input).name)
    print(f"picture: {args.umap}", file=sys.stderr)


def _report_embed(outcome: "Outcome", *, as_json: bool) -> None:
    if as_json:
        done = {"output": str(outcome.path), "cells": outcome.cells, "seconds": round(outcome.seconds, 3)}
        print(json.dumps({**done, **plain(outcome.record)}, indent=1))
        return
    print(f"{outcome.path}: {outcome.cells:,} cells in {outcome.seconds:.1f} s")


def plain(value: Any) -> Any:
    """`value` with arrays as lists, for JSON."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def _add_check(commands: Commands) -> None:
    parser = add_command(
        commands, "check", "say whether a file can be embedded, before any work", example="check pbmc.h5ad --json"
    )
    parser.add_argument("input", help="the file or folder with the cells")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.set_defaults(run=_run_check)


def _run_check(args: argparse.Namespace) -> int:
    from uce.checking import check
    from uce.errors import InputError

    report = check(
        args.input,
        model=args.model,
        species=args.species,
        species_key=args.species_key,
        gene_column=args.gene_column,
        min_coverage=args.min_coverage,
        layer=args.layer,
        use_raw=args.use_raw,
        counts_policy=args.counts_policy,
        genome=args.genome,
    )
    print(json.dumps(plain(report.to_dict()), indent=1) if args.json else report)
    return 0 if report.ok else InputError.exit_code


def _add_verify(commands: Commands) -> None:
    parser = add_command(
        commands, "verify", "recompute a sample of cells of a result and compare", example="verify pbmc.uce.h5ad"
    )
    parser.add_argument("input", help="a .h5ad that uce has written")
    parser.add_argument("--key", default="X_uce", help="which obsm to verify (X_uce)")
    parser.add_argument("--cells", type=int, default=64, help="how many cells to recompute (64)")
    parser.add_argument("--model", help="the model folder, where the recorded name is not installed here")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.set_defaults(run=_run_verify)


def _run_verify(args: argparse.Namespace) -> int:
    from uce.checking import verify
    from uce.errors import InputError

    verdict = verify(args.input, key=args.key, cells=args.cells, model=args.model)
    print(json.dumps(verdict.to_dict(), indent=1) if args.json else verdict)
    return 0 if verdict.ok else InputError.exit_code


def _add_demo(commands: Commands) -> None:
    parser = add_command(
        commands, "demo", "embed the 700 blood cells that travel inside scanpy, and draw them", example="demo -o demo"
    )
    parser.add_argument("-o", "--output", default="uce-demo", help="name of the results, without ending (uce-demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> int:
    from uce.demo import run_demo

    for path in run_demo(args.output, overwrite=args.overwrite):
        print(path)
    return 0

"""The commands about cells: embed, check, verify and demo."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.cli.parsers import Commands, add_command, add_computing, add_source

if TYPE_CHECKING:
    from uce.atlas import Outcome


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
    parser.add_argument("--compile", action="store_true", help="through torch.compile, for long runs on a GPU")
    parser.add_argument("--cycles", type=int, metavar="N", help="of a recursive model (as many as in training)")
    parser.add_argument("--replicates", type=int, default=1, help="draws per cell whose vectors are averaged (1)")
    parser.add_argument("--num-workers", type=int, default=1, help="0 reads in line, 1 reads ahead (1)")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with what an interrupted run of the same plan has left (default)",
    )
    parser.add_argument("--shard", metavar="i/N", help="compute the i-th (from 0) of N shares of the blocks, and leave")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="ray: actors of a cluster (local)")
    parser.add_argument("--ray-actors", type=int, metavar="N", help="how many (one per graphics processor or core)")
    parser.add_argument("--dry-run", action="store_true", help="say how long it takes and how much disk, write nothing")
    parser.add_argument("--inplace", action="store_true", help="add the vectors to the input .h5ad itself")
    parser.add_argument("--format", choices=["h5ad", "npy", "parquet"], default="h5ad", help="(h5ad)")
    parser.add_argument("--overwrite", action="store_true", help="replace an output or a key that is there")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON on stdout")
    parser.add_argument("--umap", metavar="FILE.png", help="also draw a UMAP of the vectors")
    parser.add_argument("--color", nargs="+", metavar="KEY", default=[], help="obs columns to colour it by")
    parser.set_defaults(run=_run_embed)


def _run_embed(args: argparse.Namespace) -> int:
    if args.dry_run:
        return _run_estimate(args)
    from uce.files import refuse_overwrite

    if args.umap:
        refuse_overwrite(args.umap, overwrite=args.overwrite)
    from uce.embedding import embed_file
    from uce.plotting import check_columns

    check_columns(args.input, args.color)

    outcome = embed_file(
        args.input,
        args.output,
        **_source_options(args),
        key_added=args.key_added,
        seed=args.seed,
        replicates=args.replicates,
        batch_size=args.batch_size,
        precision=args.precision,
        device=args.device,
        compile=args.compile,
        cycles=args.cycles,
        num_workers=args.num_workers,
        file_format=args.format,
        overwrite=args.overwrite,
        inplace=args.inplace,
        resume=args.resume,
        shard=args.shard,
        engine=args.engine,
        ray_actors=args.ray_actors,
    )
    if outcome.health is None:  # a rank above 0, for which rank 0 speaks, or a shard
        if args.shard:
            _report_shard(outcome, as_json=args.json)
        return 0
    if args.umap:
        _draw_umap(outcome, args)
    _report_embed(outcome, as_json=args.json)
    return 0


def _source_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_source`, by the names that the functions have for them."""
    names = ("model", "species", "species_key", "gene_column", "min_coverage", "layer", "use_raw", "counts_policy")
    return {name: getattr(args, name) for name in (*names, "genome")}


def _run_estimate(args: argparse.Namespace) -> int:
    from uce.embedding import make_settings
    from uce.estimating import estimate
    from uce.jobs import Request

    settings = make_settings(
        args.seed,
        args.replicates,
        args.batch_size,
        args.precision,
        args.device,
        compiled=args.compile,
        cycles=args.cycles,
    )
    found = estimate(Request(Path(args.input), settings=settings, **_source_options(args)), file_format=args.format)
    print(json.dumps(found.to_dict(), indent=1) if args.json else found)
    return 0


def _report_shard(outcome: "Outcome", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"output": str(outcome.path), "blocks_there": outcome.blocks_there, "blocks": outcome.blocks}))
        return
    next_step = "" if outcome.blocks_there < outcome.blocks else " Run again without --shard to write the result."
    print(f"{outcome.path}: {outcome.blocks_there:,} of {outcome.blocks:,} blocks are there.{next_step}")


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

    report = check(args.input, **_source_options(args))
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

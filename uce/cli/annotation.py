"""The command `annotate`: labels for the cells of a file from a labelled reference."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from uce.cli.cells import plain
from uce.cli.parsers import Commands, add_command, add_computing, add_source

if TYPE_CHECKING:
    from uce.annotation.results import Annotated


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "annotate",
        "label cells by a labelled reference, with a confidence, or as unknown",
        example="annotate query.h5ad --reference atlas.h5ad --label-key cell_type --group-key donor",
    )
    parser.add_argument("query", help="the cells to label: .h5ad, AnnData .zarr, 10x .h5 or 10x matrix folder")
    parser.add_argument("--reference", metavar="FILE", help="labelled cells (none: the classifier of --model)")
    parser.add_argument("--label-key", metavar="COLUMN", help="obs column of the reference")
    parser.add_argument(
        "--group-key", metavar="COLUMN", help="obs column of the reference with donors, to calibrate on held-out ones"
    )
    parser.add_argument("-o", "--output", help="result .h5ad (QUERY.annotated.h5ad in the current folder)")
    parser.add_argument("--method", choices=["knn", "logistic"], default="knn", help="(knn)")
    parser.add_argument(
        "--unknown",
        type=unknown_share,
        default="auto",
        metavar="auto|off|SHARE",
        help="share of right labels that may be called unknown (auto: 0.05 where donors can be held out)",
    )
    parser.add_argument("--label-map", metavar="FILE", help="table with the columns from,to that renames labels")
    add_source(parser, several_species=False)
    parser.set_defaults(model=None)
    parser.add_argument("--reference-species", help="of the reference, where it is another and its names are unclear")
    parser.add_argument("--key", default="X_uce", help="obsm with the vectors of both, if they are there (X_uce)")
    add_computing(parser)
    parser.add_argument(
        "--pca", action=argparse.BooleanOptionalAction, default=True, help="compare with principal components (default)"
    )
    parser.add_argument(
        "--pictures", action=argparse.BooleanOptionalAction, default=True, help="draw a UMAP and write a report"
    )
    parser.add_argument("--key-added", default="uce", help="beginning of the new columns' names (uce)")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs and columns that are there")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress, notes and warnings")
    parser.set_defaults(run=_run)


def unknown_share(text: str) -> str | float:
    """The argument of `--unknown`: auto, off, or a number."""
    if text in ("auto", "off"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor off nor a share such as 0.05") from error


_PASSED = (
    "reference", "label_key", "group_key", "method", "unknown", "label_map", "model", "key", "species",
    "reference_species", "gene_column", "min_coverage", "layer", "use_raw", "counts_policy", "genome", "seed",
    "batch_size", "precision", "device", "pca", "pictures", "key_added", "overwrite",
    "quiet",
)  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    from uce.annotation.annotate import annotate_file
    from uce.cli.main import INTERRUPTED

    try:
        done = annotate_file(args.query, args.output, **{name: getattr(args, name) for name in _PASSED})
    except KeyboardInterrupt:  # nothing is kept on the way, unlike in the commands that go on where they were
        print("\ninterrupted. The same command starts from the beginning.", file=sys.stderr)
        return INTERRUPTED
    _report(done, as_json=args.json)
    return 0


def _report(done: "Annotated", *, as_json: bool) -> None:
    paths = [path for path in (done.path, done.summary, done.picture, done.report) if path is not None]
    if as_json:
        from uce.evaluation.results import plain as finite

        summary = done.facts["summary"].to_dict("records")
        print(json.dumps(finite(plain({**done.facts, "summary": summary, "files": [str(p) for p in paths]})), indent=1))
        return
    for path in paths:
        print(path)

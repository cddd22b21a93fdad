"""The commands that judge: eval and benchmark."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uce.cli.parsers import Commands, add_command, add_source, whole_or_auto

if TYPE_CHECKING:
    from uce.evaluation.results import EvalResult

# Options that the function takes by the same name.
_JUDGED = """
label_key batch_key group_key dataset_key assay_key embeddings model tasks manifest random_split max_cells seeds seed
species gene_column min_coverage layer use_raw counts_policy genome
precision device batch_size threads output overwrite quiet
"""
_CROSSED = """
label_key batch_key group_key label_map orthologs max_cells seed precision device batch_size output overwrite quiet
"""


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    _add_eval(commands)
    _add_benchmark(commands)


def _add_eval(commands: Commands) -> None:
    parser = add_command(
        commands,
        "eval",
        "judge embeddings of labelled cells beside baselines and controls, and write a report",
        example="eval lung.h5ad --label-key cell_type --batch-key donor -o report/",
    )
    parser.add_argument("input", nargs="?", help=".h5ad or AnnData .zarr with labels in obs")
    parser.add_argument(
        "--cross",
        nargs=2,
        metavar="FILE",
        help="carry labels between two files, both ways, instead; --species may then be FIRST,SECOND",
    )
    parser.add_argument("-o", "--output", required=True, help="folder for report.html, results.json and results.tsv")
    parser.add_argument("--label-key", required=True, metavar="COLUMN", help="obs column: what a cell is")
    parser.add_argument("--batch-key", metavar="COLUMN", help="obs column: its technical batch")
    parser.add_argument("--group-key", metavar="COLUMN", help="obs column: its donor, held out as a whole")
    parser.add_argument("--dataset-key", metavar="COLUMN", help="obs column: its study, held out before donors")
    parser.add_argument("--assay-key", metavar="COLUMN", help="obs column: its technology, held out before donors")
    parser.add_argument(
        "--embeddings", type=_names, metavar="KEY,KEY", help="keys of obsm to judge (X_uce where it is there)"
    )
    parser.add_argument("--baselines", type=_names, metavar="NAME,NAME", help="to compare with, or none (all)")
    parser.add_argument("--tasks", type=_names, metavar="NAME,NAME", help="questions to ask (all)")
    parser.add_argument("--max-cells", type=int, default=20_000, help="more are drawn from, by batch and label (20000)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of cells, and copies of what starts at random (3)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument("--manifest", help="training manifest to look for these cells in, beside the model's own")
    parser.add_argument("--label-map", metavar="FILE.csv", help="with --cross: which labels mean the same")
    parser.add_argument("--orthologs", metavar="FILE.csv", help="with --cross: which genes are orthologues")
    parser.add_argument(
        "--random-split", action="store_true", help="without donors, hold out cells; the scores are marked"
    )
    add_source(parser, several_species=False)
    parser.set_defaults(model=None)
    parser.add_argument("--batch-size", type=whole_or_auto, default="auto", help="cells per batch (auto)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="as of uce embed (auto)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="(auto)")
    parser.add_argument("--threads", type=int, default=2, help="of the process of scib-metrics (2)")
    parser.add_argument("--fail-on-leakage", action="store_true", help="exit with 3 where the model has seen the cells")
    parser.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=partial(_run_eval, parser))


def _names(text: str) -> list[str]:
    """A list of names separated by commas; `none` is the empty one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _run_eval(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from uce.errors import UsageError

    if (args.input is None) == (args.cross is None):
        msg = "give one file to judge, or --cross with two."
        raise UsageError(msg)
    if args.tasks == []:
        msg = "--tasks: name one question or more, or leave it out to ask all."
        raise UsageError(msg)
    _refuse_idle(parser, args)
    result = _judge_one(args) if args.cross is None else _judge_cross(args)
    print(Path(args.output) / "report.html")
    return _exit_code(result, fail_on_leakage=args.fail_on_leakage)


def _refuse_idle(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that would change nothing."""
    from uce.errors import UsageError

    crossed, judged = {*_CROSSED.split(), "embeddings", "model", "species"}, {*_JUDGED.split(), "baselines"}
    for name in sorted(judged ^ crossed):
        if name in (judged if args.cross is None else crossed) or getattr(args, name) == parser.get_default(name):
            continue
        msg = f"--{name.replace('_', '-')} is of no use {'without' if args.cross is None else 'with'} --cross."
        raise UsageError(msg)


def _judge_one(args: argparse.Namespace) -> "EvalResult":
    from uce.evaluation.evaluate import DEFAULT_BASELINES, evaluate

    options: dict[str, Any] = {name: getattr(args, name) for name in _JUDGED.split()}
    return evaluate(args.input, **options, baselines=DEFAULT_BASELINES if args.baselines is None else args.baselines)


def _judge_cross(args: argparse.Namespace) -> "EvalResult":
    from uce.errors import UsageError
    from uce.evaluation.choosing import DEFAULT_MODEL
    from uce.evaluation.evaluate import evaluate_cross

    options: dict[str, Any] = {name: getattr(args, name) for name in _CROSSED.split()}
    names = (args.species or ",").split(",")
    if len(names) > 2:
        msg = f"--species {args.species}: one for both files, or two such as mouse,human."
        raise UsageError(msg)
    species = (names[0] or None, names[-1] or None)
    return evaluate_cross(
        *args.cross, **options, embeddings=args.embeddings or (), model=args.model or DEFAULT_MODEL, species=species
    )


def _exit_code(result: "EvalResult", *, fail_on_leakage: bool) -> int:
    """0, or that of a bad input where something failed, is suspect or had no vectors, or was seen in training."""
    from uce.errors import InputError

    troubles = _troubles(result)
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    known = " ".join(troubles)
    for banner in result.banners:
        if banner not in known:
            print(f"warning: {banner}", file=sys.stderr)
    leaked = fail_on_leakage and result.leakage["status"] not in ("clean", "unknown")
    if leaked:
        print(f"leakage: {result.leakage['status']}", file=sys.stderr)
    return InputError.exit_code if leaked or troubles else 0


def _troubles(result: "EvalResult") -> list[str]:
    """A line per embedding without vectors, and per reason for which scores of a row failed or are suspect."""
    from uce.files import shorten

    lines = [
        f"not judged: {one['name']}: {one['note'] or 'no cell has a finite vector'}"
        for one in result.embeddings
        if one["kind"] == "given" and not one["cells"]
    ]
    metrics: dict[tuple[str, str, str], list[str]] = {}
    for row in result.troubled:
        metrics.setdefault((row.score.status, row.embedding, row.score.note), []).append(row.score.metric)
    return lines + [
        f"{status}: {name}, {shorten(names, limit=3)}: {note}" for (status, name, note), names in metrics.items()
    ]


def _add_benchmark(commands: Commands) -> None:
    parser = add_command(
        commands,
        "benchmark",
        "judge a model on many data sets, beside baselines, and write one report over all of them",
        example="benchmark configs/benchmark_shared.yaml data=cells -o benchmark/",
    )
    parser.add_argument("suite", help="YAML: which data sets, columns, baselines (configs/benchmark_shared.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as model=uce-4l or max_cells=5000")
    parser.add_argument(
        "-o", "--output", required=True, help="folder; data sets that are done there are not done again"
    )
    parser.add_argument("--threads", type=int, default=2, help="of the process of scib-metrics (2)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=_run_benchmark)


def _run_benchmark(args: argparse.Namespace) -> int:
    from uce.errors import InputError
    from uce.evaluation.suite import run_suite

    result = run_suite(args.suite, args.output, overrides=args.overrides, threads=args.threads, quiet=args.quiet)
    for name, problem in result.problems.items():
        print(f"not judged: {name}: {problem}", file=sys.stderr)
    print(Path(args.output) / "report.html")
    return 0 if result.results else InputError.exit_code

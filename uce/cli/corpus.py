"""The commands about corpora: fetch, build, subset, info, verify."""

import argparse
import json
import os
from pathlib import Path

from uce.cli.parsers import Commands, add_command

_FAILED = 3


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    parser = add_command(
        commands,
        "corpus",
        "make one corpus of the cells of many datasets, and check it",
        example="corpus build manifest.csv --folder data -o corpus",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_fetch(actions)
    _add_build(actions)
    _add_subset(actions)
    _add_info(actions)
    _add_verify(actions)


def _add_fetch(actions: Commands) -> None:
    parser = add_command(
        actions,
        "fetch",
        "fetch the files of a manifest that are at https addresses",
        example="corpus fetch manifest.csv -o data",
    )
    parser.add_argument("manifest", type=Path, help="CSV with a row per dataset, see docs/corpus.md")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the files")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")
    parser.set_defaults(run=_run_fetch)


def _run_fetch(args: argparse.Namespace) -> int:
    from uce.corpus.fetch import fetch_files

    found = fetch_files(args.manifest, args.output, quiet=args.quiet)
    print(f"{args.output}: {found.fetched} files fetched, {found.there} were there, {len(found.failed)} failed")
    return _print_failures(found.failed)


def _add_build(actions: Commands) -> None:
    parser = add_command(
        actions,
        "build",
        "make a corpus of the datasets of a manifest, or bring it up to date",
        example="corpus build data_manifests/training_cells.csv --folder data -o corpus --workers 4",
    )
    parser.add_argument("manifest", type=Path, help="CSV with a row per dataset, see docs/corpus.md")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--folder", type=Path, help="where the files of the manifest are (beside the manifest)")
    parser.add_argument("--encoder", help="kind of gene tables whose genes are the columns (the bundled ones)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="datasets at a time (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of cells inside a dataset (0)")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")
    _add_filters(parser)
    _add_splits(parser)
    parser.set_defaults(run=_run_build)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters of cells")
    group.add_argument("--min-genes", type=int, metavar="N", help="200, or 1,000 of full-length methods")
    group.add_argument("--min-counts", type=int, metavar="N", help="500, or none of full-length methods")
    group.add_argument("--max-mito", type=float, metavar="SHARE", help="of the counts; 0.2, or 0.05 of nuclei")
    group.add_argument("--min-matched", type=float, default=0.5, metavar="SHARE", help="in known genes (0.5)")
    group.add_argument("--mad", type=float, default=5.0, metavar="N", help="deviations above the median (5)")
    group.add_argument("--max-cells", type=int, default=1_000_000, metavar="N", help="of one dataset (1,000,000)")
    group.add_argument("--without", nargs="+", default=[], metavar="FILTER", help="filters to switch off")


def _add_splits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("splits, where the manifest has none")
    group.add_argument("--split-by", choices=["dataset", "donor"], default="dataset", help="(dataset)")
    group.add_argument("--validation", type=float, default=0.05, metavar="SHARE", help="(0.05)")
    group.add_argument("--test", type=float, default=0.05, metavar="SHARE", help="(0.05)")
    group.add_argument("--hold-out", nargs="+", default=[], metavar="SPECIES", help="species kept out of training")
    group.add_argument("--salt", default="uce", help="another text, another assignment (uce)")


def _run_build(args: argparse.Namespace) -> int:
    from uce.corpus.build import build_corpus
    from uce.corpus.quality import QualityRules
    from uce.corpus.splits import SplitRule
    from uce.genes.kinds import BUNDLED_ENCODER, check_kind

    rules = QualityRules(
        args.min_genes, args.min_counts, args.max_mito, args.min_matched, args.mad, args.max_cells, tuple(args.without)
    )
    built = build_corpus(
        args.manifest,
        args.output,
        folder=args.folder,
        encoder=check_kind(args.encoder or BUNDLED_ENCODER),
        rules=rules,
        splits=SplitRule(args.split_by, args.validation, args.test, tuple(args.hold_out), args.salt),
        seed=args.seed,
        workers=args.workers,
        quiet=args.quiet,
    )
    print(
        f"{built.folder}: {built.datasets:,} datasets, {built.cells:,} cells; {built.written:,} written now. "
        f"What the filters did: {built.folder / 'report.md'}"
    )
    return _print_failures(built.failed)


def _add_subset(actions: Commands) -> None:
    parser = add_command(
        actions,
        "subset",
        "write a part of the training cells of a corpus as a corpus of its own; other splits stay whole",
        example="corpus subset corpus --scheme reweighted --cells 2000 -o corpus-2000",
    )
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the subset")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--cells", type=int, metavar="N", help="training cells to take")
    size.add_argument("--datasets", type=int, metavar="N", help="whole training datasets to take, at random")
    parser.add_argument(
        "--scheme",
        choices=["random", "reweighted", "sketch", "spike"],
        default="random",
        help="all alike (random); equally many of every type; of every part of gene space; with --spike",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="DATASET", help="take cells of these alone")
    parser.add_argument("--spike", default="", metavar="DATASET", help="of scheme spike: whose cells replace others")
    parser.add_argument("--share", type=float, default=0.1, help="of scheme spike: how many of the cells (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cells (0)")
    parser.set_defaults(run=_run_subset)


def _run_subset(args: argparse.Namespace) -> int:
    from uce.corpus.choosing import SubsetRule
    from uce.corpus.layout import read_index
    from uce.corpus.subset import subset_corpus

    rule = SubsetRule(args.scheme, args.seed, tuple(args.only), args.spike, args.share)
    folder = subset_corpus(args.corpus, args.output, cells=args.cells, datasets=args.datasets, rule=rule)
    totals = read_index(folder).content["totals"]
    print(f"{folder}: {totals['datasets']:,} datasets, {totals['cells']:,} cells, those of other splits among them")
    return os.EX_OK


def _print_failures(failed: dict[str, str]) -> int:
    for name, error in failed.items():
        print(f"failed: {name}: {error}")
    return _FAILED if failed else os.EX_OK


def _add_info(actions: Commands) -> None:
    parser = add_command(actions, "info", "list the datasets of a corpus", example="corpus info corpus")
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run_info)


def _run_info(args: argparse.Namespace) -> int:
    from uce.corpus.layout import read_index
    from uce.corpus.report import info_lines

    index = read_index(args.corpus)
    if args.json:
        print(json.dumps({**index.content, "datasets": index.datasets()}, indent=1))
    else:
        print("\n".join(info_lines(index)))
    return os.EX_OK


def _add_verify(actions: Commands) -> None:
    parser = add_command(
        actions, "verify", "read a corpus again and compare it with its records", example="corpus verify corpus"
    )
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=_run_verify)


def _run_verify(args: argparse.Namespace) -> int:
    from uce.corpus.verify import verify_corpus

    verdict = verify_corpus(args.corpus, quiet=args.quiet)
    print(verdict)
    return os.EX_OK if verdict.ok else _FAILED

"""The command that asks whether more data helps."""

import argparse
import os
from pathlib import Path

from uce.cli.parsers import Commands, add_command

_FAILED = 3


def add_commands(commands: Commands) -> None:
    """Add the command of this room to the parser."""
    parser = add_command(
        commands,
        "scaling",
        "train on growing parts of a corpus, and judge whether more data would help",
        example="scaling configs/study_scaling.yaml -o studies/scaling",
    )
    parser.add_argument("study", type=Path, help="YAML file, see docs/results/scaling.md")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the study")
    parser.add_argument("--report", action="store_true", help="do no run, report what is there")
    parser.add_argument("--retry", action="store_true", help="do failed runs again")
    parser.add_argument("--quiet", action="store_true", help="no line for each run")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from uce.grid import FAILED, read_rows
    from uce.scaling.study import run_study

    report = run_study(
        args.study, args.output, overrides=args.overrides, report=args.report, retry=args.retry, quiet=args.quiet
    )
    print(report.read_text(encoding="utf-8"), end="")
    failed = any(record["status"] == FAILED for record in read_rows(args.output))
    return _FAILED if failed else os.EX_OK

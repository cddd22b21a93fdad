"""The commands that train."""

import argparse
from pathlib import Path

from uce.cli.parsers import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    parser = add_command(
        commands,
        "pretrain",
        "train an encoder on counts, or go on with a run that was cut short",
        example="pretrain configs/uce_mini.yaml data.folder=data -o runs/mini",
    )
    parser.add_argument("config", type=Path, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.set_defaults(run=_run_pretrain)


def _run_pretrain(args: argparse.Namespace) -> int:
    from uce.config import read_config
    from uce.training.loop import pretrain
    from uce.training.settings import PretrainConfig

    print(pretrain(read_config(PretrainConfig, args.config, overrides=args.overrides), out=args.output))
    return 0

"""The commands that train, and hand on what was trained."""

import argparse
from pathlib import Path

from uce.cli.parsers import Commands, add_command
from uce.errors import UsageError


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    _add_pretrain(commands)
    _add_export(commands)


def _add_pretrain(commands: Commands) -> None:
    parser = add_command(
        commands,
        "pretrain",
        "train an encoder on a corpus, or go on with a run that was cut short",
        example="pretrain configs/uce_mini.yaml data.corpus=corpus -o runs/mini",
    )
    parser.add_argument("config", type=Path, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
    parser.add_argument("-o", "--output", type=Path, help="folder of the run")
    parser.add_argument(
        "--resume",
        type=_resume,
        default="auto",
        metavar="auto|never|N",
        help="go on from the newest snapshot (auto), from that after N updates, or never",
    )
    parser.add_argument("--allow-corpus-change", action="store_true", help="go on although the corpus is another now")
    parser.add_argument("--expect-world-size", type=int, metavar="N", help="stop unless there are N processes")
    parser.add_argument("--dry-run", action="store_true", help="print what it would take, and write nothing")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="of --dry-run: how many devices (1)")
    parser.set_defaults(run=_run_pretrain)


def _resume(text: str) -> str | int:
    if text in ("auto", "never"):
        return text
    if text.isdecimal():
        return int(text)
    msg = f"{text!r}: auto, never or a number of updates is needed"
    raise argparse.ArgumentTypeError(msg)


def _run_pretrain(args: argparse.Namespace) -> int:
    from uce.config import read_config
    from uce.training.loop import pretrain
    from uce.training.settings import PretrainConfig

    config = read_config(PretrainConfig, args.config, overrides=args.overrides)
    if args.dry_run:
        from uce.training.dry_run import dry_run

        print(dry_run(config, devices=args.devices))
        return 0
    if args.output is None:
        msg = "name the folder of the run with --output, or give --dry-run."
        raise UsageError(msg)
    folder = pretrain(
        config,
        out=args.output,
        resume=args.resume,
        processes=args.expect_world_size,
        allow_corpus_change=args.allow_corpus_change,
    )
    print(folder)
    return 0


def _add_export(commands: Commands) -> None:
    parser = add_command(
        commands,
        "export",
        "write the model of a run as a folder to share, its card filled from the run",
        example="export runs/mini -o my-model --licence CC-BY-4.0",
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="folder of uce pretrain, or one of its snapshots")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("-o", "--output", type=Path, help="folder to write")
    place.add_argument("--install", action="store_true", help="write it where models are found by name")
    parser.add_argument("--step", type=int, metavar="N", help="take the snapshot after N steps (the newest)")
    parser.add_argument("--name", help="of the model (that of the folder, or of the run)")
    parser.add_argument("--scores", type=Path, metavar="JSON", help="file with an object of scores, for the card")
    parser.add_argument("--licence", metavar="TEXT", help="of the weights (what the configuration says)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder")
    parser.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> int:
    from uce.training.export import export

    print(
        export(
            args.folder,
            out=args.output,
            step=args.step,
            name=args.name,
            scores=args.scores,
            licence=args.licence,
            overwrite=args.overwrite,
        )
    )
    return 0

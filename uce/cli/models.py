"""The commands about models: list, show, import, download and push."""

import argparse
import json
import sys
from pathlib import Path

from uce.cli.parsers import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add the commands of this room to the parser."""
    parser = add_command(
        commands, "models", "list, show, import, download and push models", example="models show uce-mini"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_list(actions)
    _add_show(actions)
    _add_import(actions)
    _add_download(actions)
    _add_push(actions)


def _add_list(actions: Commands) -> None:
    parser = add_command(actions, "list", "list the models that are here or known", example="models list --json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run_list)


def _run_list(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from uce.model.registry import list_models

    rows = list_models()
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1, default=str))
        return 0
    for row in rows:
        print(f"{row.name:16} {row.state:14} {row.summary}")
    return 0


def _add_show(actions: Commands) -> None:
    parser = add_command(actions, "show", "print the card of a model", example="models show uce-mini")
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--json", action="store_true", help="print its configuration as JSON")
    parser.set_defaults(run=_run_show)


def _run_show(args: argparse.Namespace) -> int:
    from uce.model.card import split_card
    from uce.model.folders import find_model

    folder = find_model(args.model)
    name = "config.json" if args.json else "README.md"
    text = (folder / name).read_text(encoding="utf-8")
    print((text if args.json else split_card(text)[1]).rstrip())
    return 0


def _add_import(actions: Commands) -> None:
    example = (
        "models import 4layer_model.torch --chromosomes species_chrom.csv --offsets species_offsets.pkl "
        "--proteins protein_embeddings --name uce-4l"
    )
    parser = add_command(
        actions, "import", "turn the published UCE files into a model folder and gene tables", example=example
    )
    parser.add_argument("weights", type=Path, help="the published state dict (.torch)")
    parser.add_argument("--name", required=True, help="name of the model, such as uce-4l")
    parser.add_argument("--tokens", type=Path, help="all_tokens.torch, where the state dict has no token table")
    parser.add_argument("--chromosomes", type=Path, required=True, help="species_chrom.csv")
    parser.add_argument("--offsets", type=Path, required=True, help="species_offsets.pkl or .json")
    parser.add_argument("--proteins", type=Path, required=True, help="folder of the protein embeddings (.pt)")
    parser.add_argument(
        "--lookup",
        choices=["aligned", "published"],
        default="aligned",
        help="positions of zebrafish and frog genes: their own, or shifted as in the published code",
    )
    parser.add_argument("--species", nargs="+", help="write gene tables of these only (all that have an offset)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of this name and its tables")
    parser.set_defaults(run=_run_import)


def _run_import(args: argparse.Namespace) -> int:
    from uce.model.published import import_published

    folder = import_published(
        args.weights,
        tokens=args.tokens,
        chromosomes=args.chromosomes,
        offsets=args.offsets,
        proteins=args.proteins,
        name=args.name,
        lookup=args.lookup,
        species=args.species,
        overwrite=args.overwrite,
    )
    print(folder)
    return 0


def _add_download(actions: Commands) -> None:
    parser = add_command(
        actions,
        "download",
        "fetch the published files of a registered model and import them, or the weights of a published ESM2",
        example="models download uce-4l",
    )
    parser.add_argument("name", help="uce-4l, uce-33l, or an ESM2 for `uce species add` such as esm2_t33_650M_UR50D")
    parser.set_defaults(run=_run_download)


def _run_download(args: argparse.Namespace) -> int:
    from uce.model.catalogue import download

    print(download(args.name))
    return 0


def _add_push(actions: Commands) -> None:
    parser = add_command(
        actions,
        "push",
        "check a model and send its folder to the Hugging Face hub",
        example="models push my-model --repo me/my-model",
    )
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="where on the hub; made if it is missing")
    parser.add_argument("--private", action="store_true", help="make it private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch of the repository (main); made if it is missing")
    parser.add_argument("--token-file", type=Path, help="file with a token (HF_TOKEN, or that of hf auth login)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=_run_push)


def _run_push(args: argparse.Namespace) -> int:
    from uce.model.hub import pack, push, read_token

    parcel = pack(args.model, repo=args.repo)
    token = read_token(args.token_file)
    where = f"{args.repo}, branch {args.revision}" if args.revision else args.repo
    print(f"{parcel.name} to {where}{', private' if args.private else ''}:", file=sys.stderr)
    for name, size in parcel.sizes.items():
        print(f"  {name:18} {size:>14,} bytes", file=sys.stderr)
    if not (args.yes or _agreed()):
        print("nothing was sent.", file=sys.stderr)
        return 0
    pushed = push(parcel, token=token, private=args.private, branch=args.revision)
    print(f"{pushed.url} commit {pushed.commit}")
    return 0


def _agreed() -> bool:
    from uce.errors import UsageError

    if not sys.stdin.isatty():
        msg = "nobody can be asked here whether to send this. Pass --yes."
        raise UsageError(msg)
    print("Send it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")

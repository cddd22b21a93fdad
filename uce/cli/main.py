"""The `uce` command: a parser, and errors to exit codes. Heavy imports stay inside the commands."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import uce
from uce.cli import adaptation, annotation, cells, corpus, evaluation, gene_embeddings, genes, models, scaling, training
from uce.errors import UceError

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; each sets `run`, the function that carries it out."""
    parser = argparse.ArgumentParser(
        prog="uce",
        description="Universal cell embeddings: raw counts of any species to cell vectors, without training on them.",
        epilog="example: uce embed pbmc.h5ad --species human --umap pbmc.png",
    )
    parser.add_argument("--version", action="version", version=f"uce {uce.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for room in (cells, evaluation, annotation, gene_embeddings, genes, models, corpus, training, adaptation, scaling):
        room.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `uce.errors`), 130 when interrupted."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and hasattr(args, "overrides") and all("=" in word and word[0] != "-" for word in rest):
        args.overrides += rest  # argparse takes key=value only in front of the options
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(args.run(args) or 0)
    except UceError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("error: not enough memory. Use smaller batches, or a machine with more.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our stdout has left; point it elsewhere so that the interpreter's last flush stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ninterrupted. Run the same command again to go on where it stopped.", file=sys.stderr)
        return INTERRUPTED


def run() -> NoReturn:
    """What the installed command calls: `main`, then the end of the process.

    After an interrupt nothing is left to be saved, and threads that are still reading are not waited for.
    """
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt

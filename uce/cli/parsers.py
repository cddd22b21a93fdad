"""What the rooms of the command line share: a command with help and an example."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(commands: Commands, name: str, summary: str, *, example: str) -> argparse.ArgumentParser:
    """Add the command `name`; `example` is one that can be pasted, without the leading `uce`."""
    return commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=f"example: uce {example}"
    )

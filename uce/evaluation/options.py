"""Options that name things or count them: refused in one line, with the way out."""

from collections.abc import Iterable, Sequence

from uce.errors import UsageError
from uce.files import nearest


def known_names(what: str, names: Sequence[str], known: Iterable[str]) -> list[str]:
    """`names` without repeats.

    Raises
    ------
    UsageError
        One of them is not among the known ones; the nearest is offered.
    """
    choices = sorted(known)
    for name in names:
        if name not in choices:
            msg = f"{what} {name!r} is not known.{nearest(name, choices)} There are: {', '.join(choices)}."
            raise UsageError(msg)
    return list(dict.fromkeys(names))


def at_least(name: str, value: int, least: int) -> int:
    """`value`.

    Raises
    ------
    UsageError
        It is less than that.
    """
    if value < least:
        msg = f"--{name.replace('_', '-')} {value}: must be {least} or more."
        raise UsageError(msg)
    return value

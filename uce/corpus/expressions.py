"""Filters that a manifest states in words: `tissue == 'lung' and n_genes >= 500`. Read by a grammar, never evaluated.

expression := term ("or" term)*
term       := factor ("and" factor)*
factor     := "(" expression ")" | column operator literal
column     := a word, or any text between backticks
operator   := == | != | < | <= | > | >=
literal    := a number, or text between quotes; text is compared as it stands, with == and != only
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from uce.errors import InputError
from uce.files import printable

_TOKEN = re.compile(
    r"""\s*(?: (?P<bracket>[()]) | (?P<operator>==|!=|<=|>=|<|>) | `(?P<name>[^`]+)`
        | (?P<text>'[^']*'|"[^"]*") | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])
        | (?P<word>[A-Za-z_][\w.]*) )""",
    re.VERBOSE,
)
_OPERATORS: dict[str, Callable[..., npt.NDArray[np.bool_]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_JOINS: dict[str, Callable[..., npt.NDArray[np.bool_]]] = {"and": operator.and_, "or": operator.or_}
_LONGEST, _DEEPEST = 2000, 20
_HINT = "Write comparisons such as tissue == 'lung' and n_genes >= 500."

ReadColumn: TypeAlias = Callable[[str], npt.NDArray[np.str_]]


@dataclass(frozen=True)
class Comparison:
    """One column of obs against a number or a text."""

    column: str
    sign: str
    literal: float | str

    def mask(self, read: ReadColumn) -> npt.NDArray[np.bool_]:
        """(cells,) where it holds; a value that is no number fits no comparison with one, except `!=`."""
        values = read(self.column)
        if isinstance(self.literal, float):
            return np.asarray(_OPERATORS[self.sign](_numbers(values), self.literal))
        return np.asarray(_OPERATORS[self.sign](values, self.literal))


@dataclass(frozen=True)
class Joined:
    """Expressions joined by one word, "and" or "or"."""

    word: str
    parts: tuple["Expression", ...]

    def mask(self, read: ReadColumn) -> npt.NDArray[np.bool_]:
        """(cells,) where it holds."""
        return reduce(_JOINS[self.word], (part.mask(read) for part in self.parts))


Expression: TypeAlias = Comparison | Joined


def _numbers(values: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    distinct, place = np.unique(values, return_inverse=True)
    return np.array([_number(value) for value in distinct.tolist()], dtype=np.float64)[place]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def parse_expression(text: str) -> Expression:
    """Read a filter; call `.mask(read)` of the result, where `read(column)` gives the values of the cells as text.

    Raises
    ------
    InputError
        It does not follow the grammar; the message shows from where on.
    """
    if len(text) > _LONGEST:
        msg = f"a filter of {len(text)} characters, {_LONGEST} at most."
        raise InputError(msg)
    return _Parser(text, _tokens(text)).whole()


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _refusal(text, position)
        kind = match.lastgroup or ""
        found.append((kind, match[kind], match.start(kind)))
        position = match.end()
    return found


def _refusal(text: str, position: int) -> InputError:
    rest = printable(text[position:].strip(), limit=40)
    return InputError(f"filter {printable(text, limit=80)!r} cannot be read at {rest or 'its end'!r}. {_HINT}")


class _Parser:
    """One pass from left to right, a method per line of the grammar."""

    def __init__(self, text: str, tokens: list[tuple[str, str, int]]) -> None:
        self._text, self._tokens, self._at, self._depth = text, tokens, 0, 0

    def whole(self) -> Expression:
        found = self._joined("or")
        if self._at < len(self._tokens):
            raise self._stop()
        return found

    def _joined(self, word: str) -> Expression:
        def part() -> Expression:
            return self._joined("and") if word == "or" else self._factor()

        parts = [part()]
        while self._peek() == ("word", word):
            self._at += 1
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _factor(self) -> Expression:
        if self._peek() != ("bracket", "("):
            return self._comparison()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._stop()
        self._at += 1
        inner = self._joined("or")
        if self._peek() != ("bracket", ")"):
            raise self._stop()
        self._at += 1
        self._depth -= 1
        return inner

    def _comparison(self) -> Comparison:
        column = self._take("word", "name")
        sign = self._take("operator")
        if sign not in ("==", "!="):
            return Comparison(column, sign, float(self._take("number")))
        is_number = self._peek()[0] == "number"
        literal = self._take("number", "text")
        return Comparison(column, sign, float(literal) if is_number else literal[1:-1])

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at][:2] if self._at < len(self._tokens) else ("", "")

    def _take(self, *kinds: str) -> str:
        kind, value = self._peek()
        if kind not in kinds or (kind == "word" and value in _JOINS):
            raise self._stop()
        self._at += 1
        return value

    def _stop(self) -> InputError:
        position = self._tokens[self._at][2] if self._at < len(self._tokens) else len(self._text)
        return _refusal(self._text, position)

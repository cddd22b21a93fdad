"""Ways to adapt a model. A new one is one file with a `RECIPE`, and its line here."""

from importlib import import_module
from typing import TYPE_CHECKING

from uce.errors import UsageError

if TYPE_CHECKING:
    from uce.adaptation.task import Recipe

# Name, which is that of its file, -> what it does, for the help of the command; nothing heavy is imported for that.
RECIPES = {
    "probe": "a linear classifier of the vectors; the encoder stays as it is",
    "lora": "low-rank adapters and a classifier, from the labels of the cells",
    "full": "the whole encoder and a classifier, from the labels, held near the model",
    "contrastive": "two views of each cell, without labels",
    "amt2": "labels of another set of cells (--source), and your cells without any, in turns",
}


def find_recipe(name: str) -> "Recipe":
    """The recipe of a name.

    Raises
    ------
    UsageError
        There is none.
    """
    if name not in RECIPES:
        from uce.files import nearest, printable  # here, as the command line reads the table for its help

        msg = f"--recipe {printable(name)!r}: one of {', '.join(RECIPES)} is needed.{nearest(name, list(RECIPES))}"
        raise UsageError(msg)
    recipe: Recipe = import_module(f"{__name__}.{name}").RECIPE
    return recipe

"""The model card: README.md of a model folder, made of recorded facts alone."""

from collections.abc import Mapping, Sequence
from typing import Any

_ORDER = ("summary", "objective", "training", "metrics", "limits", "licence")
_NOT_RECORDED = "Not recorded."


def card(name: str, facts: Mapping[str, Any], gene_tables: Sequence[Mapping[str, Any]], *, parameters: int) -> str:
    """The card of a model as Markdown.

    Parameters
    ----------
    name
        The model's name, the title.
    facts
        The content of config.json. Every key of `info` becomes a section; the usual ones are there even where nothing
        was recorded, so that a gap shows.
    gene_tables
        The content of genes.json.
    parameters
        Number of trained weights.
    """
    model, rule, info = facts["model"], facts["rule"], facts["info"]
    layers = "1 layer" if model["layers"] == 1 else f"{model['layers']} layers"
    shape = f"{layers}, {model['dim']} wide, {model['heads']} heads, {parameters:,} parameters"
    sections = [
        f"# {name}",
        f"An encoder of single cells for uce: {shape}. Raw counts in, cell vectors of width {model['out_dim']} out.",
        f"```\nuce embed cells.h5ad --model {name}\n```",
    ]
    for key in [*_ORDER, *sorted(set(info) - set(_ORDER))]:
        sections += [f"## {key.replace('_', ' ').capitalize()}", _text(info.get(key))]
    sections += ["## Gene vectors", f"Kind: `{facts['gene_encoder']}`. It reads no other kind.", _tables(gene_tables)]
    sections += ["## Sentence rule", _text(rule), "## Settings", _text(model)]
    return "\n\n".join(sections) + "\n"


def _tables(gene_tables: Sequence[Mapping[str, Any]]) -> str:
    if not gene_tables:
        return "Tables trained with: not recorded."
    columns = list(dict.fromkeys(key for table in gene_tables for key in table))
    rows = [columns, ["---"] * len(columns), *([str(table.get(key, "")) for key in columns] for table in gene_tables)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(value: Any) -> str:
    if value in (None, "", [], {}):
        return _NOT_RECORDED
    if isinstance(value, Mapping):
        return "\n".join(f"- {key}: {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(f"- {_inline(item)}" for item in value)
    return str(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    return ", ".join(map(_inline, value)) if isinstance(value, list | tuple) else str(value)

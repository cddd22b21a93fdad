"""The model card: README.md of a model folder, made of recorded facts alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_TAGS = ("single-cell", "scRNA-seq", "cell-embeddings")
_FRONT = re.compile(r"\A---\n(.*?\n)---\n\s*", re.DOTALL)
_HUB_LICENCES = (
    r"apache-2\.0|mit|isc|unlicense|bsd-[23]-clause|cc0-1\.0|cc-by(?:-nc)?(?:-nd|-sa)?-4\.0|"
    r"gpl-2\.0|a?gpl-3\.0|lgpl-(?:2\.1|3\.0)|mpl-2\.0|eupl-1\.2|epl-2\.0|openrail"
)
# An identifier that is its whole sentence: "MIT", "MIT licence.", "MIT, as the package. ..."; not "MIT, but ...".
_LICENCE = re.compile(rf"({_HUB_LICENCES})(?:-only|-or-later)?(?: licen[cs]e)?(?:, as [^,.;]*)?(?:\.\s|\.?$)")
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
        was recorded, so that a gap shows. Where a licence was recorded, front matter for a model hub comes first.
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
    sections += ["## Weights", f"SHA-256 of `model.safetensors`: `{facts['sha256']}`."]
    return with_front_matter("\n\n".join(sections) + "\n", info)


def with_front_matter(text: str, info: Mapping[str, Any]) -> str:
    """A card with front matter, the YAML by which a model hub sorts models, made of `info` of config.json.

    A card that has some keeps its own; where no licence was recorded there is none: a hub asks for one first of all.
    """
    if _FRONT.match(text) or not info.get("licence"):
        return text
    datasets, metrics = info.get("trained_on"), info.get("metrics")
    rows = datasets if isinstance(datasets, list | tuple) else []
    front = {
        "license": hub_licence(str(info["licence"])),
        "library_name": "uce",
        "tags": list(_TAGS),
        "datasets": [str(row["dataset"]) for row in rows if isinstance(row, Mapping) and "dataset" in row],
        "metrics": [str(key) for key in metrics] if isinstance(metrics, Mapping) else [],
    }
    filled = {key: value for key, value in front.items() if value}
    return f"---\n{yaml.safe_dump(filled, sort_keys=False, allow_unicode=True)}---\n\n{text}"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card (empty where there is none, or none that can be read), and the text after it."""
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        front = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    return (front if isinstance(front, dict) else {}), text[found.end() :]


def hub_licence(text: str) -> str:
    """The identifier under which model hubs list a licence, or "other"; the words themselves stay in the card."""
    found = _LICENCE.match(text.strip().lower())
    return found[1] if found else "other"


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

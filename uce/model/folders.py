"""What a model folder must look like, checked before anything is built from it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from uce.cells.sentences import SentenceRule
from uce.errors import ModelError, UceError
from uce.files import nearest, printable, sha256_file, shorten, user_folder
from uce.model.encoder import LATER, Encoder, ModelConfig

FORMAT = "uce-model"
VERSION = 1
BUNDLED = Path(__file__).parents[1] / "data" / "models"
FILES = ("config.json", "model.safetensors", "genes.json", "README.md")
CLASSIFIER = "classifier.safetensors"  # beside them, where it brings one, see uce.model.classifier
TRAINED_ON = "trained_on"  # a folder beside them, where it is known: the training manifest, see uce.corpus
MANIFEST = ("manifest.json", "cells.npy", "near.npy")  # its files
SPECIALS, CHROMOSOMES, ENCODER = "specials", "chromosomes", "encoder."  # names of tensors, and a prefix
_KEYS = ("format", "version", "model", "rule", "gene_encoder", "sha256", "info")
_MOST_JSON_BYTES = 4 << 20
_PICKLED = (".bin", ".pt", ".pth", ".torch", ".ckpt", ".pkl")


def find_model(source: str | Path) -> Path:
    """The folder a name or path stands for: a path, then the user's own models, then the bundled ones.

    Raises
    ------
    ModelError
        There is none; says which names exist, or how to download a published one.
    """
    path, name = Path(source), str(source)
    places = (user_folder() / "models", BUNDLED)
    if any(len(part) > 255 for part in path.parts):
        raise ModelError(_missing(name, places))
    if (path / "config.json").is_file():
        return path
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        for place in places:
            if (place / name / "config.json").is_file():
                return place / name
    if path.is_dir() and any(path.iterdir()):
        if runs := sorted(path.glob("*/config.json")):
            msg = f"{path}: no model folder itself, but {runs[0].parent} in it is one. Give that."
            raise ModelError(msg)
        pickled = _pickled(path)
        found = f"only {pickled}, which could run code when read" if pickled else "no config.json"
        msg = f"{path}: {found}; a model folder holds {', '.join(FILES[:3])}. Published weights: uce models import."
        raise ModelError(msg)
    raise ModelError(_missing(name, places))


def _pickled(folder: Path) -> str:
    return shorten(sorted(item.name for item in folder.iterdir() if item.suffix in _PICKLED))


def _missing(name: str, places: Sequence[Path]) -> str:
    from uce.model.registry import registered_models

    registered = registered_models()
    if name in registered:
        return f"{name}: published, but not downloaded yet. Run: uce models download {name}"
    known = sorted({path.parent.name for place in places for path in place.glob("*/config.json")})
    hint = nearest(name, [*known, *registered])
    shown = shorten(known) if known else "none"
    return f"{printable(name)}: no model folder and no model of this name.{hint} Installed: {shown}."


def read_config(path: Path) -> tuple[ModelConfig, SentenceRule, dict[str, Any]]:
    """Settings and sentence rule out of config.json, and all of its content."""
    facts = _read_json(path)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        msg = f"{path}: not the configuration of a uce model (format is not {FORMAT!r}). Give a folder written by uce."
        raise ModelError(msg)
    if facts.get("version") != VERSION:
        shown = printable(str(facts.get("version")))
        msg = f"{path}: format version {shown}; this uce reads version {VERSION}. Update uce."
        raise ModelError(msg)
    _check_keys({key: value for key, value in facts.items() if key != "classifier"}, _KEYS, path)
    kinds = {"model": dict, "rule": dict, "gene_encoder": str, "sha256": str, "info": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(facts[key], kind)]
    if wrong:
        msg = f"{path}: {shorten(wrong)} of the wrong type; the file was changed by hand. Copy the folder again."
        raise ModelError(msg)
    named = facts["model"]
    _check_keys(named, [name for name in ModelConfig.names() if name not in LATER or name in named], path)
    _check_keys(facts["rule"], tuple(item.name for item in fields(SentenceRule)), path)
    try:
        config, rule = ModelConfig(**facts["model"]), SentenceRule(**facts["rule"])
    except UceError as error:
        msg = f"{path}: {error}"
        raise ModelError(msg) from error
    check_rule(config, rule, path)
    return config, rule, facts


def check_rule(config: ModelConfig, rule: SentenceRule, place: Path) -> None:
    """Refuse a rule whose sentences the encoder would not take."""
    if rule.max_tokens > config.max_tokens:
        msg = (
            f"{place}: sentences of up to {rule.max_tokens} tokens, but the encoder takes {config.max_tokens}; "
            f"make rule.max_tokens at most that."
        )
        raise ModelError(msg)


def _check_keys(content: Mapping[str, Any], expected: Sequence[str], path: Path) -> None:
    unknown = sorted(set(content) - set(expected))
    missing = sorted(set(expected) - set(content))
    if unknown:
        msg = f"{path}: unknown key {shorten(unknown)}.{nearest(unknown[0], list(expected))} Update uce."
        raise ModelError(msg)
    if missing:
        msg = f"{path}: key {shorten(missing)} is missing. Copy the folder again."
        raise ModelError(msg)


def read_tables(path: Path) -> list[dict[str, Any]]:
    """The list in genes.json."""
    tables = _read_json(path)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        msg = f"{path}: a list of gene tables is expected. Copy the folder again."
        raise ModelError(msg)
    return tables


def _read_json(path: Path) -> Any:
    if not path.is_file():
        msg = f"{path}: missing; a model folder holds {', '.join(FILES[:3])}. Copy the folder again."
        raise ModelError(msg)
    if (size := path.stat().st_size) > _MOST_JSON_BYTES:
        msg = (
            f"{path}: {size:,} bytes; at most {_MOST_JSON_BYTES:,} are read. This is not a model folder written by uce."
        )
        raise ModelError(msg)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not readable as JSON ({printable(str(error))}). Copy the folder again."
        raise ModelError(msg) from error


def _expected(config: ModelConfig) -> dict[str, list[int]]:
    with torch.device("meta"):
        state = Encoder(config).state_dict()
    shapes = {ENCODER + name: list(tensor.shape) for name, tensor in state.items()}
    return {**shapes, SPECIALS: [4, config.protein_dim]}


def check_weights(path: Path, config: ModelConfig, sha256: str) -> None:
    """Compare names, shapes and number types (all in the file's header), then the hash; no weight is read before."""
    if not path.is_file():
        pickled = _pickled(path.parent)
        found = f" ({pickled} could run code when read)" if pickled else ""
        msg = f"{path}: missing{found}. Copy the folder again, or import the weights with uce models import."
        raise ModelError(msg)
    expected = _expected(config)
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        shapes = {name: list(item.get_shape()) for name, item in slices.items()}
        if CHROMOSOMES in shapes:
            expected[CHROMOSOMES] = [len(chromosome_names(file.metadata(), path)), config.protein_dim]
        wrong_types = [f"{name} is {item.get_dtype()}" for name, item in slices.items() if item.get_dtype() != "F32"]
    lacking = [f"{name} is missing" for name in expected if name not in shapes]
    unknown = [f"{name} is not part of this model" for name in shapes if name not in expected]
    sizes = [
        f"{name} has shape {shapes[name]}, config.json asks for {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if differences := lacking + unknown + sizes + wrong_types:
        count = "" if len(differences) <= 5 else f"; {len(differences)} differences in all"
        listed = "; ".join(printable(item, limit=160) for item in differences[:5])
        msg = f"{path}: does not fit config.json: {listed}{count}. Copy the folder again."
        raise ModelError(msg)
    if (found := sha256_file(path)) != sha256:
        msg = (
            f"{path.parent}: {path.name} does not match the hash in config.json "
            f"({found[:8]}.. not {printable(sha256, limit=8)}). Copy the folder again."
        )
        raise ModelError(msg)


def opened(path: Path) -> Any:
    """A safetensors file, its header checked against its length; to be used in a `with`."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        msg = f"{path}: not readable as safetensors ({printable(str(error))}). Copy the folder again."
        raise ModelError(msg) from error


def chromosome_names(metadata: Mapping[str, str] | None, path: Path) -> list[str]:
    """The names of the rows of the tensor of chromosome vectors, kept in the file's metadata."""
    try:
        names = json.loads((metadata or {}).get(CHROMOSOMES, "[]"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or len(set(map(str, names))) != len(names):
        msg = f"{path}: the names of its chromosomes cannot be read. Copy the folder again."
        raise ModelError(msg)
    return [str(name) for name in names]

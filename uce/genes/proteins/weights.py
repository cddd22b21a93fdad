"""Weights files of ESM2: which are published, where they are on this machine, and what a file says of itself."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from uce.errors import ModelError
from uce.files import nearest, printable, shorten, user_folder
from uce.genes.kinds import BUNDLED_ENCODER
from uce.genes.sources import read_tensors

_DATA = Path(__file__).parents[2] / "data"
_LARGEST = {"encoder_layers": 200, "encoder_embed_dim": 20_480, "encoder_attention_heads": 200}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")


@dataclass(frozen=True)
class Architecture:
    """The size of an ESM2."""

    layers: int
    dim: int
    """Width of its vectors."""
    heads: int

    @property
    def linear_parameters(self) -> int:
        """Weights and biases of the layers' matrices, which take the precision asked for; all others stay float32."""
        return self.layers * (12 * self.dim**2 + 9 * self.dim)

    @property
    def other_parameters(self) -> int:
        """Embedding of the 33 tokens, and the norms."""
        return 33 * self.dim + self.layers * 4 * self.dim + 2 * self.dim


@dataclass(frozen=True)
class KnownEncoder:
    """An ESM2 that its authors publish."""

    name: str
    architecture: Architecture
    about: int
    """Length of the file in bytes, approximately; the two largest are published in half precision."""
    address: str
    """Where the publisher's files are; this one is at `address/NAME.pt`."""


@cache
def known_encoders() -> dict[str, KnownEncoder]:
    """The published ESM2 models by name, small ones first, from `data/protein_encoders.json`."""
    content = json.loads((_DATA / "protein_encoders.json").read_text(encoding="utf-8"))
    return {
        name: KnownEncoder(
            name,
            Architecture(facts["layers"], facts["dim"], facts["heads"]),
            facts["about"],
            content["address"],
        )
        for name, facts in content["encoders"].items()
    }


def weights_folder() -> Path:
    """Where downloaded weights are kept: `esm2` in the user's folder. Not created here."""
    return user_folder() / "esm2"


def local_weights(name: str) -> Path | None:
    """The weights of this name in the user's folder, or where fair-esm itself keeps them; None where they are not."""
    if not _NAME.fullmatch(name):
        return None
    return next((path for folder in _folders() if (path := folder / f"{name}.pt").is_file()), None)


def _folders() -> Iterator[Path]:
    yield weights_folder()
    cached = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    yield Path(os.environ.get("TORCH_HOME", cached / "torch")).expanduser() / "hub" / "checkpoints"


def find_weights(encoder: str | Path) -> Path:
    """The weights file of an encoder given by its path or by its name.

    Raises
    ------
    ModelError
        There is no such file; for a published model the message says how to fetch it.
    """
    text = str(encoder)
    if isinstance(encoder, Path) or os.sep in text or text.endswith(".pt"):
        path = Path(text)
        if not path.is_file():
            msg = f"{printable(text, limit=200)}: no such file; ESM2 weights of fair-esm (.pt) are expected there."
            raise ModelError(msg)
        return path
    if found := local_weights(text):
        return found
    known = known_encoders()
    msg = (
        f"{printable(text)}: neither a weights file (.pt) nor an ESM2 known by name.{nearest(text, list(known))} "
        f"Known: {shorten(list(known), limit=len(known))}."
    )
    if text in known:
        msg = (
            f"{text}: its weights are not on this machine. Fetch them with `uce models download {text}` "
            f"(about {known[text].about / 1e9:.2g} GB), or give the path of the file. `uce species add --dry-run` says "
            "beforehand what time and memory the work takes."
        )
    raise ModelError(msg)


def encoder_name(path: Path) -> str:
    """The kind of vectors that an encoder makes: the stem of its file. It becomes the name of a folder.

    Raises
    ------
    ModelError
        It cannot be one, or it is the name of the bundled kind of vectors, which no ESM2 makes.
    """
    if not _NAME.fullmatch(path.stem) or path.stem == BUNDLED_ENCODER:
        msg = (
            f"{path}: {printable(path.stem)!r} cannot name a kind of gene vectors. Rename the file: up to 128 of the "
            "letters A to Z, digits, '.', '_' and '-', as in esm2_t33_650M_UR50D.pt."
        )
        raise ModelError(msg)
    return path.stem


def recorded_sha256(path: Path) -> str | None:
    """SHA-256 that was recorded in `sha256.json` beside the file when it was downloaded; None where nothing was."""
    try:
        found = json.loads((path.parent / "sha256.json").read_text(encoding="utf-8"))[path.name]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def read_weights(path: Path) -> tuple[dict[str, Any], Architecture]:
    """A file in fair-esm's form, `cfg` and `model`, mapped and not loaded where its form allows; and its size.

    Raises
    ------
    ModelError
        The file is missing, damaged, not an ESM2, or asks for anything but tensors and settings.
    """
    import torch

    if not path.is_file():
        msg = f"{path}: no such file; ESM2 weights of fair-esm (.pt) are expected there."
        raise ModelError(msg)
    with torch.serialization.safe_globals([Namespace]):  # the settings travel as one; it holds plain values only
        data = read_tensors(path)
    return data, _check(data, path)


def _check(data: Any, path: Path) -> Architecture:
    """The size the settings state, compared with the tensors: nothing large is built from settings alone."""
    config = data.get("cfg") if isinstance(data, dict) else None
    settings = config.get("model") if isinstance(config, dict) else None
    tensors = data.get("model") if isinstance(data, dict) else None
    if not isinstance(settings, Namespace) or not isinstance(tensors, dict):
        msg = f"{path}: not ESM2 weights in fair-esm's form (a dict with 'cfg' and 'model'). Give one of its esm2_*.pt."
        raise ModelError(msg)
    values = {key: getattr(settings, key, None) for key in _LARGEST}
    for key, value in values.items():
        if type(value) is not int or not 1 <= value <= _LARGEST[key]:
            msg = f"{path}: {key} is {printable(repr(value))}; a whole number from 1 to {_LARGEST[key]} is needed."
            raise ModelError(msg)
    layers, dim = settings.encoder_layers, settings.encoder_embed_dim
    shape = tuple(getattr(tensors.get("encoder.sentence_encoder.embed_tokens.weight"), "shape", ()))
    last = f"encoder.sentence_encoder.layers.{layers - 1}.fc1.weight"
    if len(shape) != 2 or shape[1] != dim or last not in tensors or dim % settings.encoder_attention_heads:
        msg = f"{path}: settings say {layers} layers, {dim} wide; the tensors differ. Get the file again."
        raise ModelError(msg)
    return Architecture(layers, dim, settings.encoder_attention_heads)

"""The models there are: installed, bundled, or published; and what is known of the published files."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from uce.files import printable, user_folder
from uce.genes.kinds import plain_kind

_DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class RemoteFile:
    """One published file."""

    name: str
    id: int
    """Number of the file at the publisher's."""
    size: int | None
    """Length in bytes, where it is known exactly."""
    about: int
    """Length in bytes to reckon with."""
    ends_sha256: str | None
    """SHA-256 of the first 8,192 bytes followed by the last 8,192; None where nothing was published."""


@dataclass(frozen=True)
class ProteinFile:
    """One dictionary of gene vectors inside the archive of a published model."""

    species: str
    """As the published program calls it: "human", "mouse_lemur"."""
    name: str
    ends_sha256: str


@dataclass(frozen=True)
class RegisteredModel:
    """A published model that `download` can fetch."""

    name: str
    summary: str
    source: str
    address: str
    """Where the files are; a file is at `address/ID`."""
    weights: RemoteFile
    others: tuple[RemoteFile, ...]
    """Tokens, chromosomes, offsets and the archive of gene vectors, the same for every published model."""
    proteins: tuple[ProteinFile, ...]
    unpacked_bytes: int
    """Upper bound of the unpacked archive."""
    installed_bytes: int
    """Size of the model folder and gene tables made from the files."""

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """Every file, the small ones first, so that a wrong address shows at once."""
        return tuple(sorted((*self.others, self.weights), key=lambda file: file.about))

    @property
    def download_bytes(self) -> int:
        """About how much is fetched."""
        return sum(file.about for file in self.files)


@dataclass(frozen=True)
class KnownModel:
    """One line of `uce models list`."""

    name: str
    state: Literal["installed", "bundled", "registered"]
    path: Path | None
    """The model folder; None where the model has not been downloaded."""
    summary: str


@cache
def registry() -> dict[str, RegisteredModel]:
    """The published models by name, from `data/models.json`."""
    content = json.loads((_DATA / "models.json").read_text(encoding="utf-8"))
    files = {
        name: RemoteFile(
            name, facts["id"], facts.get("size"), facts.get("size", facts.get("about")), facts.get("ends_sha256")
        )
        for name, facts in content["files"].items()
    }
    proteins = tuple(
        ProteinFile(species, facts["file"], facts["ends_sha256"]) for species, facts in content["proteins"].items()
    )
    weights = {facts["weights"] for facts in content["models"].values()}
    shared = tuple(file for name, file in files.items() if name not in weights)
    return {
        name: RegisteredModel(
            name=name,
            summary=facts["summary"],
            source=content["source"],
            address=content["address"],
            weights=files[facts["weights"]],
            others=shared,
            proteins=proteins,
            unpacked_bytes=facts["unpacked_bytes"],
            installed_bytes=facts["installed_bytes"],
        )
        for name, facts in content["models"].items()
    }


def registered_models() -> dict[str, RegisteredModel]:
    """The published models by name; nothing is fetched."""
    return dict(registry())


def list_models() -> list[KnownModel]:
    """Installed models, then bundled ones, then published ones that are not installed; each name once.

    An installed model hides a bundled one of the same name, as it does in `load_model`.
    """
    places: list[tuple[Literal["installed", "bundled"], Path]] = [
        ("installed", user_folder() / "models"),
        ("bundled", _DATA / "models"),
    ]
    known: dict[str, KnownModel] = {}
    for state, place in places:
        for config in sorted(place.glob("*/config.json")):
            name = config.parent.name
            known.setdefault(name, KnownModel(name, state, config.parent, _summary(config)))
    for name, model in registry().items():
        known.setdefault(name, KnownModel(name, "registered", None, model.summary))
    return list(known.values())


def models_that_read(encoder: str) -> list[str]:
    """Names of the installed and bundled models that read gene vectors of a kind."""
    found = [known.name for known in list_models() if known.path and _kind(known.path) == plain_kind(encoder)]
    return sorted(found)


def _kind(folder: Path) -> str:
    try:
        return plain_kind(json.loads((folder / "config.json").read_text(encoding="utf-8"))["gene_encoder"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _summary(config: Path) -> str:
    """What a model says of itself, for the list; a damaged one says nothing here and everything when it is loaded."""
    try:
        return printable(json.loads(config.read_text(encoding="utf-8"))["info"]["summary"], limit=100)
    except (OSError, ValueError, KeyError, TypeError):
        return ""

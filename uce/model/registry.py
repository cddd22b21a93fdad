"""What was published of each model: its files, where they are, and what can be checked about them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_REGISTRY = Path(__file__).parents[1] / "data" / "models.json"


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


@cache
def registry() -> dict[str, RegisteredModel]:
    """The published models by name, from `data/models.json`."""
    content = json.loads(_REGISTRY.read_text(encoding="utf-8"))
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

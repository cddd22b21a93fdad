"""Model folders: `config.json`, `model.safetensors`, `genes.json` and the card. Nothing in one can run code."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from uce.cells.sentences import SentenceRule
from uce.errors import ModelError, OutputExistsError, StorageError
from uce.files import atomic_path, check_writable, printable, refuse_overwrite, sha256_file, shorten, write_json
from uce.genes.kinds import how_to_make, plain_kind
from uce.genes.tables import GeneTable
from uce.model.card import card
from uce.model.classifier import Classifier, read_classifier, write_classifier
from uce.model.encoder import Encoder, ModelConfig
from uce.model.folders import (
    CHROMOSOMES,
    CLASSIFIER,
    ENCODER,
    FILES,
    FORMAT,
    SPECIALS,
    TRAINED_ON,
    VERSION,
    check_rule,
    check_weights,
    chromosome_names,
    find_model,
    opened,
    read_config,
    read_tables,
)


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder ready to embed, with all it needs to know about sentences and gene vectors.

    Attributes
    ----------
    name
        Name of its folder.
    config, rule
        Shape of the encoder, and the sentences it was trained on.
    encoder
        In evaluation mode, without gradients.
    specials
        (4, protein_dim) float32: padding, chromosome-open, chromosome-close, CLS.
    chromosome_vectors
        "species:chromosome" -> (protein_dim,) float32 for models that bring their own; else empty.
    gene_encoder
        The kind of gene vectors it reads; those of another kind are noise to it.
    gene_tables
        The tables it was trained with: species, encoder, sha256, ...
    sha256
        Hash of everything that decides its numbers: weights, settings, rule, kind of vectors.
    info
        What the card says: objective, seed, training data, metrics, licence.
    folder
        It was read from.
    classifier
        That it brings along, or None.
    """

    name: str
    config: ModelConfig
    rule: SentenceRule
    encoder: Encoder
    specials: NDArray[np.float32]
    chromosome_vectors: dict[str, NDArray[np.float32]]
    gene_encoder: str
    gene_tables: list[dict[str, Any]]
    sha256: str
    info: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    classifier: Classifier | None = None


def load_model(source: str | Path) -> Model:
    """Load a model by its folder or name. Never downloads.

    Parameters
    ----------
    source
        A folder written by `save_model`; or the name of one in the user's folder, or of a bundled one.

    Raises
    ------
    ModelError
        There is no such model (the message lists what exists), or its files do not agree with each other. Version,
        names, shapes, number types and hash are compared before any weight is read, and all differences are listed.
    """
    folder = find_model(source)
    config, rule, facts = read_config(folder / "config.json")
    tables = read_tables(folder / "genes.json")
    weights = folder / "model.safetensors"
    check_weights(weights, config, str(facts["sha256"]))
    with opened(weights) as file:
        # Copies: a mapped file that someone overwrites would change, or crash, a model in use.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a dict)
        names = chromosome_names(file.metadata(), weights)
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        msg = f"{weights}: {shorten(bad)} hold NaN or infinity. Use another snapshot of its training."
        raise ModelError(msg)
    with torch.device("meta"):
        encoder = Encoder(config)
    state = {name.removeprefix(ENCODER): t for name, t in tensors.items() if name.startswith(ENCODER)}
    encoder.load_state_dict(state, assign=True)
    vectors = tensors[CHROMOSOMES].numpy() if CHROMOSOMES in tensors else ()
    return Model(
        name=folder.resolve().name,
        config=config,
        rule=rule,
        encoder=encoder.eval().requires_grad_(requires_grad=False),
        specials=tensors[SPECIALS].numpy(),
        chromosome_vectors=dict(zip(names, vectors, strict=True)),
        gene_encoder=str(facts["gene_encoder"]),
        gene_tables=tables,
        sha256=_identity(facts),
        info=facts["info"],
        folder=folder,
        classifier=read_classifier(folder, facts, dim=config.out_dim),
    )


def check_table(model: Model, table: GeneTable) -> None:
    """Refuse a gene table whose vectors are not of the kind that `model` was trained with.

    The name of the kind, the width, and the hash of the protein encoder's weights (where both sides know it) decide.

    Raises
    ------
    ModelError
        The message says how to make the right table.
    """
    place = f"gene table of {table.species}: vectors of {table.encoder}, {table.dim} wide"
    recipe = how_to_make(table.species, model.gene_encoder)
    if plain_kind(table.encoder) != plain_kind(model.gene_encoder) or table.dim != model.config.protein_dim:
        msg = f"{place}; {model.name} reads {model.gene_encoder}, {model.config.protein_dim} wide. {recipe}."
        raise ModelError(msg)
    known = {str(record["encoder_sha256"]) for record in model.gene_tables if record.get("encoder_sha256")}
    found = str(table.metadata.get("encoder_sha256", ""))
    if found and known and found not in known:
        weights = (
            f"weights {found[:12]}.., {model.name} was trained with those of {shorten(sorted(k[:12] for k in known))}"
        )
        msg = f"{place}, made by {weights}. Use that file (and --overwrite): {recipe}."
        raise ModelError(msg)


def save_model(
    folder: str | Path,
    *,
    encoder: Encoder,
    rule: SentenceRule,
    specials: NDArray[np.float32],
    gene_encoder: str,
    gene_tables: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
    chromosome_vectors: Mapping[str, NDArray[np.float32]] | None = None,
    classifier: Classifier | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model folder, all or nothing, with a card made of the facts given. Equal models give equal bytes.

    Parameters
    ----------
    folder
        Where; its name becomes the model's.
    specials
        (4, protein_dim): padding, chromosome-open, chromosome-close, CLS.
    gene_encoder
        Kind of the gene vectors it was trained with.
    gene_tables
        One mapping per table trained with: species, encoder, sha256.
    info
        What the card says (JSON values): summary, objective, training, metrics, licence, limits, ...
    chromosome_vectors
        "species:chromosome" -> (protein_dim,), where the model brings its own.
    classifier
        Of its cell vectors, where it brings one.
    name
        Title of the card, for a folder that gets its final name later. None: the folder's name.
    overwrite
        Replace a model folder of this name. Any other folder is never replaced.

    Raises
    ------
    OutputExistsError
        The folder exists, and is not a model folder or `overwrite` is false.
    ModelError
        The parts do not fit each other.
    StorageError
        The folder cannot be written.
    """
    folder = refuse_overwrite(folder, overwrite=overwrite)
    if folder.exists():
        _refuse_foreign(folder)
    check_writable(folder.parent)
    check_rule(encoder.config, rule, folder)
    tensors = _tensors(encoder, specials, chromosome_vectors or {}, folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        _write_weights(temporary / "model.safetensors", tensors, list(chromosome_vectors or {}))
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "model": encoder.config.facts(),
            "rule": asdict(rule),
            "gene_encoder": gene_encoder,
            "sha256": sha256_file(temporary / "model.safetensors"),
            "info": dict(info),
        }
        if classifier:
            facts["classifier"] = write_classifier(temporary, classifier)
            facts["info"] = {**info, "labels": list(classifier.labels)}
        write_json(temporary / "genes.json", [dict(table) for table in gene_tables])
        write_json(temporary / "config.json", facts)
        parameters = sum(parameter.numel() for parameter in encoder.parameters())
        text = card(name or folder.resolve().name, facts, list(gene_tables), parameters=parameters)
        with atomic_path(temporary / "README.md") as path:
            path.write_text(text, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
    return folder


def save_again(model: Model, folder: str | Path, **changes: Any) -> Path:
    """Write a loaded model as another folder; `changes` are the arguments of `save_model` that are not its own."""
    own: dict[str, Any] = {
        "encoder": model.encoder,
        "rule": model.rule,
        "specials": model.specials,
        "gene_encoder": model.gene_encoder,
        "gene_tables": model.gene_tables,
        "info": model.info,
        "chromosome_vectors": model.chromosome_vectors,
        "classifier": model.classifier,
    }
    return save_model(folder, **(own | changes))


def _tensors(
    encoder: Encoder, specials: NDArray[np.float32], chromosomes: Mapping[str, NDArray[np.float32]], place: Path
) -> dict[str, Tensor]:
    width = encoder.config.protein_dim
    if specials.shape != (4, width) or any(vector.shape != (width,) for vector in chromosomes.values()):
        msg = f"{place}: 4 special vectors, and chromosome vectors, of width {width} are needed."
        raise ModelError(msg)
    tensors = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items()}
    tensors[SPECIALS] = torch.from_numpy(np.asarray(specials))
    if chromosomes:
        tensors[CHROMOSOMES] = torch.from_numpy(np.stack(list(chromosomes.values())))
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}


def _write_weights(path: Path, tensors: dict[str, Tensor], names: list[str]) -> None:
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={CHROMOSOMES: json.dumps(names)} if names else None)
            temporary.chmod(0o644)  # it is written for its owner alone, and a model is there to be shared
    except SafetensorError as error:
        msg = (
            f"{path}: cannot be written ({printable(str(error), limit=120)}). Free some space, or choose another place."
        )
        raise StorageError(msg) from error


def _refuse_foreign(folder: Path) -> None:
    """`overwrite` removes what is there, so it must be a model folder and nothing else."""
    allowed = (*FILES, CLASSIFIER, TRAINED_ON, "training")
    strangers = sorted(item.name for item in folder.iterdir() if item.name not in allowed)
    if strangers or not (folder / "config.json").is_file():
        msg = f"{folder} is not only a model folder ({shorten(strangers) or 'no config.json'}). Choose another place."
        raise OutputExistsError(msg)


def _identity(facts: Mapping[str, Any]) -> str:
    decisive = {key: facts[key] for key in ("sha256", "model", "rule", "gene_encoder")}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

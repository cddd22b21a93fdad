"""Universal cell embeddings: raw counts of any species to cell vectors, without training on them.

Public names load on first use, so that `import uce` stays quick and free of torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Making": "uce.genes.requests",
    "Sources": "uce.genes.requests",
    "adapt": "uce.adaptation.adapt",
    "add_species": "uce.genes.adding",
    "annotate": "uce.annotation.annotate",
    "annotate_file": "uce.annotation.annotate",
    "check": "uce.checking",
    "embed": "uce.embedding",
    "embed_counts": "uce.embedding",
    "embed_file": "uce.embedding",
    "evaluate": "uce.evaluation.evaluate",
    "evaluate_cross": "uce.evaluation.evaluate",
    "gene_embeddings": "uce.gene_embedding",
    "list_models": "uce.model.registry",
    "list_species": "uce.genes.collection",
    "load_gene_table": "uce.genes.collection",
    "load_model": "uce.model.checkpoint",
    "pretrain": "uce.training.loop",
    "verify": "uce.checking",
}

__all__ = [
    "Making",
    "Sources",
    "__version__",
    "adapt",
    "add_species",
    "annotate",
    "annotate_file",
    "check",
    "embed",
    "embed_counts",
    "embed_file",
    "evaluate",
    "evaluate_cross",
    "gene_embeddings",
    "list_models",
    "list_species",
    "load_gene_table",
    "load_model",
    "pretrain",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        msg = f"module 'uce' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__

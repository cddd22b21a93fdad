"""A linear classifier of cell vectors that a model folder may bring along: `classifier.safetensors`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uce.errors import ModelError
from uce.files import atomic_path, sha256_file
from uce.model.folders import CLASSIFIER, opened

_LABELS = "labels"
_MOST_LABELS = 100_000


@dataclass(frozen=True, eq=False)
class Classifier:
    """Labels of cells as a linear function of their vectors.

    Attributes
    ----------
    labels
        Of the classes, sorted, each another; two or more.
    weight, bias
        (labels, dim) and (labels,) float32.
    """

    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(cells, labels) softmax of what it says of cell vectors (cells, dim); rows of NaN stay NaN."""
        from scipy.special import softmax

        shares: NDArray[np.float64] = softmax((vectors @ self.weight.T + self.bias).astype(np.float64), axis=1)
        return shares


def write_classifier(folder: Path, classifier: Classifier) -> str:
    """Write it into a model folder; returns the SHA-256 of the file."""
    from safetensors.numpy import save_file

    tensors = {"weight": classifier.weight, "bias": classifier.bias}
    plain = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    with atomic_path(folder / CLASSIFIER) as temporary:
        save_file(plain, temporary, metadata={_LABELS: json.dumps(list(classifier.labels))})
        temporary.chmod(0o644)
    return sha256_file(folder / CLASSIFIER)


def read_classifier(folder: Path, facts: Mapping[str, Any], *, dim: int) -> Classifier | None:
    """The classifier of a model folder; None where it has none.

    Parameters
    ----------
    facts
        The content of its `config.json`.
    dim
        Width of a cell vector.

    Raises
    ------
    ModelError
        The file is missing, there although `config.json` knows of none, or not what was written.
    """
    path, expected = folder / CLASSIFIER, facts.get("classifier")
    if expected is None and not path.exists():
        return None
    if expected is None or not path.is_file() or sha256_file(path) != expected:
        found = "missing" if not path.is_file() else "not the file that config.json names"
        msg = f"{path}: {found}. Copy the folder again."
        raise ModelError(msg)
    with opened(path) as file:
        labels = _labels((file.metadata() or {}).get(_LABELS, ""))
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        shapes = {name: (item.get_dtype(), *item.get_shape()) for name, item in slices.items()}
        if not labels or shapes != {"weight": ("F32", len(labels), dim), "bias": ("F32", len(labels))}:
            msg = f"{path}: not a classifier of vectors {dim} wide. Copy the folder again."
            raise ModelError(msg)
        weight, bias = (file.get_tensor(name).numpy().copy() for name in ("weight", "bias"))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        msg = f"{path}: holds NaN or infinity. Train it again."
        raise ModelError(msg)
    return Classifier(labels, weight, bias)


def _labels(text: str) -> tuple[str, ...]:
    """Labels as they were written; none where that is not what the text is."""
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    sound = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return tuple(labels) if sound and 2 <= len(set(labels)) == len(labels) <= _MOST_LABELS else ()

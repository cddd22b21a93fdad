"""What is written down beside the scores: the rows that were judged, the machine, versions, hashes of the inputs."""

import os
import platform
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import uce
from uce.evaluation.candidates import Candidate
from uce.evaluation.cells import Cells
from uce.evaluation.context import Settings
from uce.evaluation.embeddings import Floats
from uce.files import sha256_arrays

_PACKAGES = ("numpy", "scipy", "scikit-learn", "scanpy", "anndata", "torch", "scib-metrics", "harmonypy", "scvi-tools")
_COLUMNS = ("names", "labels", "batches", "groups", "datasets", "assays")


def describe(candidate: Candidate, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A row of the report; `record` is what was written down when its vectors were made."""
    embedding = candidate.embedding
    finite = None if embedding is None else np.isfinite(embedding.vectors).all(axis=1)
    return {
        "name": candidate.name,
        "kind": candidate.kind,
        "title": candidate.title,
        "status": candidate.status,
        "note": candidate.note or (embedding.note if embedding else ""),
        "dim": 0 if embedding is None else int(embedding.vectors.shape[1]),
        "cells": 0 if finite is None else int(finite.sum()),
        "left_out": 0 if finite is None else int((~finite).sum()),
        "transductive": bool(embedding and embedding.transductive),
        "seconds": 0.0 if embedding is None else round(embedding.seconds, 2),
        "record": dict(record or {}),
    }


def hashes(cells: Cells, given: Mapping[str, Floats]) -> dict[str, str]:
    """SHA-256 of everything that was read: columns, counts, vectors by `obsm` key."""
    found = {role: sha256_arrays(column) for role in _COLUMNS if (column := getattr(cells, role)) is not None}
    if cells.counts is not None:
        found["counts"] = sha256_arrays(cells.counts.data, cells.counts.indices, cells.counts.indptr)
    return found | {f"obsm/{key}": sha256_arrays(vectors) for key, vectors in given.items()}


def versions() -> dict[str, str]:
    """Of the packages that decide numbers."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def environment(
    settings: Settings, inputs: Mapping[str, str], by_task: Mapping[str, Mapping[str, float]], seconds: float
) -> dict[str, Any]:
    """Where and how an evaluation ran; `by_task`: row -> task -> seconds."""
    return {
        "uce": uce.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "cores": os.cpu_count(),
        "settings": asdict(settings),
        "sha256": dict(inputs),
        "seconds": round(seconds, 1),
        "seconds_by_task": {name: dict(tasks) for name, tasks in by_task.items()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }

"""Gene tables whose groups have random vectors: what a model is compared with to see what the vectors give it.

The genes, their positions, and which genes share a vector are those of the bundled tables; only what a vector says is
gone. Train and judge on them as on any other kind of vectors:

    export UCE_HOME=random-vectors
    python scripts/random_gene_tables.py
    uce corpus build data_manifests/training_cells.csv --folder FOLDER --encoder random-groups -o random-corpus
    uce pretrain configs/uce_mini.yaml data.corpus=random-corpus -o runs/random
    uce benchmark configs/benchmark_shared.yaml data=FOLDER model=runs/random/uce-mini -o runs/random/benchmark
"""

from dataclasses import replace
from hashlib import blake2b

import numpy as np

from uce.files import user_folder
from uce.genes.bundled import bundled_species, load_bundled
from uce.genes.tables import write_table

ENCODER = "random-groups"


def main() -> None:
    """Write a table per bundled species into the user's folder."""
    folder = user_folder() / "genes" / ENCODER
    folder.mkdir(parents=True, exist_ok=True)
    for species in bundled_species():
        table = load_bundled(species)
        # Drawn under the bytes of the vector they replace: genes that shared one, in any species, share the new one.
        distinct, places = np.unique(table.vectors, axis=0, return_inverse=True)
        seeds = [seed_of(row) for row in distinct]
        drawn = np.stack([np.random.default_rng(seed).standard_normal(table.dim) for seed in seeds]).astype(np.float32)
        vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        write_table(replace(table, encoder=ENCODER, vectors=vectors[places.ravel()]), folder / f"{species}.h5ad")
        print(folder / f"{species}.h5ad")


def seed_of(row: np.ndarray) -> int:
    """A seed that depends on the numbers of a vector alone."""
    return int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "little")


if __name__ == "__main__":
    main()

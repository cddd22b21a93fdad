"""The number of threads that a user gave is still there after scanpy's work."""

import os
import subprocess
import sys

SCRIPT = """
import numpy as np, torch
from scipy.sparse import csr_matrix
from uce.evaluation.baselines.variable_genes import variable_genes
from uce.plotting import umap_coordinates
counts = np.random.default_rng(0).poisson(0.5, (40, 2100)).astype(np.float32)
variable_genes(csr_matrix(np.log1p(counts)))
print(torch.get_num_threads())
umap_coordinates(counts[:, :20])
print(torch.get_num_threads())
"""


def test_scanpy_leaves_torch_its_threads() -> None:
    # numba's default is the number of processors; two where the machine has but one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "1"], done.stderr

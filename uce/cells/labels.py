"""Which labels of cells say that there is none."""

from typing import Any

import numpy as np
import numpy.typing as npt

UNLABELLED = ("", "unknown", "nan", "na", "none", "unassigned", "unannotated", "unlabelled", "unlabeled")


def is_labelled(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(cells,) whether a label, None or text, says what the cell is; case and surrounding blanks do not matter."""
    words = np.array(["" if label is None else str(label).strip().lower() for label in labels], dtype=np.str_)
    return ~np.isin(words, UNLABELLED)

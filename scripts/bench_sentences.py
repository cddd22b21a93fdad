"""Sentences per second on one core: this package beside the published routine written plainly in NumPy.

    python scripts/bench_sentences.py --repeats 7

Both get the same simulated cells in the same run, in turns; medians over the repeats. Compilation is paid before.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from scipy.sparse import csr_matrix

from uce.cells.sentences import SentenceRule, write_sentences


def simulate(cells: int, args: argparse.Namespace) -> tuple[csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Counts in rank order, chromosome codes, gene keys and starts."""
    random = np.random.default_rng(args.seed)
    codes = np.sort(random.integers(0, args.chromosomes, args.genes)).astype(np.int32)
    keys = random.integers(0, 2**64, args.genes, dtype=np.uint64)
    starts = np.sort(random.integers(1, 200_000_000, args.genes))[np.argsort(np.argsort(codes, kind="stable"))]
    columns = [np.sort(random.choice(args.genes, args.nonzeros, replace=False)) for _ in range(cells)]
    data = random.geometric(0.4, cells * args.nonzeros).astype(np.float64)
    indptr = np.arange(cells + 1) * args.nonzeros
    return csr_matrix((data, np.concatenate(columns), indptr), shape=(cells, args.genes)), codes, keys, starts


def published(counts: csr_matrix, codes: np.ndarray, starts: np.ndarray, rule: SentenceRule) -> np.ndarray:
    """The published steps, one cell at a time: dense row, log1p, draw, shuffle, a loop over the chromosomes."""
    tokens = np.zeros((counts.shape[0], 1 + 3 * rule.draws), dtype=np.int32)  # the published width fails on scaffolds
    genes = counts.shape[1]
    first_gene = 4 + int(codes[-1]) + 1
    for cell in range(counts.shape[0]):
        weights = np.log1p(counts[cell].toarray()[0]).astype(np.float32)
        weights = weights / weights.sum()
        weights = weights / sum(weights)  # Python's own sum, as published
        drawn = np.random.choice(genes, size=rule.draws, p=weights, replace=True)
        order = np.unique(codes[drawn])
        np.random.shuffle(order)
        sentence = [3]
        for code in order:
            here = drawn[codes[drawn] == code]
            sentence.append(4 + int(code))
            sentence.extend((first_gene + here[np.argsort(starts[here])]).tolist())
            sentence.append(2)
        tokens[cell, : len(sentence)] = sentence
    return tokens


def measure(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and seconds of processor time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=8192, help="cells of this package (default: 8192)")
    parser.add_argument("--published-cells", type=int, default=128, help="cells of the NumPy routine (default: 128)")
    parser.add_argument("--nonzeros", type=int, default=2000, help="genes with a count per cell (default: 2000)")
    parser.add_argument("--genes", type=int, default=18_000, help="genes of the species (default: 18000)")
    parser.add_argument("--chromosomes", type=int, default=25, help="chromosomes of the species (default: 25)")
    parser.add_argument("--draws", type=int, default=1024, help="genes drawn per cell (default: 1024)")
    parser.add_argument("--threads", type=int, default=1, help="threads of this package (default: 1)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated cells (default: 0)")
    args = parser.parse_args()

    rule = SentenceRule(draws=args.draws)
    counts, codes, keys, starts = simulate(args.cells, args)
    few = counts[: args.published_cells]
    np.random.seed(args.seed)

    def ours() -> object:
        return write_sentences(counts, codes, keys, rule=rule, threads=args.threads)

    def theirs() -> object:
        return published(few, codes, starts, rule)

    measure(ours), measure(theirs)
    runs = [(measure(theirs), measure(ours)) for _ in range(args.repeats)]
    print(f"{args.nonzeros} non-zeros a cell, {args.draws} draws, {args.chromosomes} chromosomes, {args.genes} genes")
    print(f"{'cells/s, median (range) of ' + str(args.repeats):34}{'by the clock':>28}{'by processor time':>28}")
    rates = []
    for name, cells, column in (("published, plain NumPy", few.shape[0], 0), ("uce", counts.shape[0], 1)):
        samples = [sorted(cells / run[column][clock] for run in runs) for clock in (0, 1)]
        rates.append([median(sample) for sample in samples])
        texts = [f"{median(sample):,.0f} ({sample[0]:,.0f}-{sample[-1]:,.0f})" for sample in samples]
        label = name if column == 0 else f"{name}, {args.threads} thread{'s' * (args.threads > 1)}"
        print(f"{label:34}{texts[0]:>28}{texts[1]:>28}")
    print(f"{'ratio of medians':34}{rates[1][0] / rates[0][0]:>28,.0f}{rates[1][1] / rates[0][1]:>28,.0f}")


if __name__ == "__main__":
    main()

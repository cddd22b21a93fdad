"""Does recursion give what a single pass cannot? A planted task that needs as many hops as a chain has links.

A sentence holds two chains of tokens in random order. Every token holds its own key and that of the next token in its
chain, the last one its own again; CLS holds the key at which one of the chains begins, and is asked for the key at
which it ends. Whoever sees the two ends and cannot follow the links is right in half of the cases. Batches of chains of
1 to `--links` tokens come by turns, so that short ones show how longer ones are followed. Prints a JSON line for each
number of cycles, with the share of right answers on new sentences: `right` of the longest chains, read at the cycles of
training and at others, `of_shorter` of the others.

    python scripts/planted_recursion.py [--links 6] [--cycles 4 1] [--steps 8000] [--seed 0]
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from uce.model.encoder import Encoder, ModelConfig

KEYS, WIDTH, CELLS = 16, 64, 128


def draw(links: int, cells: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sentences (cells, 1 + 2 links, 3 keys) and their answers (cells,)."""
    keys = torch.stack([torch.randperm(KEYS, generator=random) for _ in range(cells)])[:, : 2 * links]
    chains = keys.view(cells, 2, links)
    own = F.one_hot(chains, KEYS)
    following = torch.cat([own[:, :, 1:], own[:, :, -1:]], dim=2)
    tokens = torch.cat([own, following, torch.zeros_like(own)], dim=3).flatten(1, 2)
    shuffled = torch.stack([sentence[torch.randperm(2 * links, generator=random)] for sentence in tokens])
    cls = torch.cat([torch.zeros_like(own[:, 0, 0]), torch.zeros_like(own[:, 0, 0]), own[:, 0, 0]], dim=1)
    return torch.cat([cls[:, None], shuffled], dim=1).float(), chains[:, 0, -1]


def config(cycles: int) -> ModelConfig:
    """Two blocks of 64, run so many times."""
    return ModelConfig(
        kind="recursive", layers=2, cycles=cycles, dim=WIDTH, heads=4, hidden=4 * WIDTH, protein_dim=3 * KEYS,
        out_dim=WIDTH, decoder_dim=WIDTH, activation="gelu", dropout=0.0, positions="none",
    )  # fmt: skip


def right(encoder: Encoder, head: nn.Linear, links: int, cycles: int) -> float:
    """Share of right answers on 2,048 new sentences, read at so many cycles."""
    sentences, answers = draw(links, 2048, torch.Generator().manual_seed(1))
    trained, encoder.cycles = encoder.cycles, cycles
    with torch.inference_mode():
        found = head(encoder.eval()(sentences)).argmax(dim=1)
    encoder.cycles = trained
    encoder.train()
    return float((found == answers).float().mean())


def train(cycles: int, *, links: int, steps: int, seed: int) -> dict[str, object]:
    """Train on chains of up to so many links; what came of it."""
    torch.manual_seed(seed)
    encoder, head = Encoder(config(cycles)), nn.Linear(WIDTH, KEYS)
    scale = nn.Parameter(torch.tensor(2.0))
    parameters = [*encoder.parameters(), *head.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    random, began = torch.Generator().manual_seed(seed + 10), time.perf_counter()
    for _ in range(steps):
        sentences, answers = draw(int(torch.randint(1, links + 1, (), generator=random)), CELLS, random)
        loss = F.cross_entropy(scale.exp() * head(encoder(sentences)), answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    read = sorted({1, 2, max(1, cycles // 2), cycles, 2 * cycles})
    return {
        "cycles": cycles,
        "links": links,
        "steps": steps,
        "seed": seed,
        "weights": sum(parameter.numel() for parameter in encoder.blocks.parameters()),
        "loss": round(loss.item(), 4),
        "right": {str(number): round(right(encoder, head, links, number), 3) for number in read},
        "of_shorter": {str(number): round(right(encoder, head, number, cycles), 3) for number in range(1, links)},
        "seconds": round(time.perf_counter() - began),
    }


def main() -> None:
    """Print a line for each number of cycles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=6, help="tokens of the longest chains, at most 8")
    parser.add_argument("--cycles", type=int, nargs="+", default=[4, 1])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for cycles in args.cycles:
        found = train(cycles, links=args.links, steps=args.steps, seed=args.seed)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

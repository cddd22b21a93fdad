"""A small ESM2 with random weights in fair-esm's file form, to try the way from a proteome to a gene table.

Its vectors tell proteins apart and mean nothing; the name says so. The real weights come by `uce models download`.

    python scripts/random_esm2.py esm2_t2_random.pt
    uce species add --fasta pep.fa.gz --name saccharomyces_cerevisiae --encoder esm2_t2_random.pt
"""

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from esm.model.esm2 import ESM2

from uce.files import atomic_path


def main() -> None:
    """Write the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the file to write, such as esm2_t2_random.pt")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dim", type=int, default=64, help="width of the vectors")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    content = random_esm2(args.layers, args.dim, args.heads, seed=args.seed)
    with atomic_path(args.output) as temporary:
        torch.save(content, temporary)
    print(args.output)


def random_esm2(layers: int, dim: int, heads: int, *, seed: int) -> dict[str, Any]:
    """What a published file holds: settings, and tensors by the names its authors gave them.

    Every parameter is moved from its start, so that no bias is 0 and no norm is 1 where a mistake could hide.
    """
    torch.manual_seed(seed)
    module = ESM2(num_layers=layers, embed_dim=dim, attention_heads=heads, token_dropout=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    settings = Namespace(
        arch="esm2",
        encoder_layers=layers,
        encoder_embed_dim=dim,
        encoder_attention_heads=heads,
        token_dropout=True,
        dropout=0.1,
    )
    state = {
        (f"encoder.{key}" if key.startswith("lm_head") else f"encoder.sentence_encoder.{key}"): value
        for key, value in module.state_dict().items()
        if not key.startswith("contact_head.regression")
    }
    return {"cfg": {"model": settings, "task": Namespace(seed=seed)}, "model": state}


if __name__ == "__main__":
    main()

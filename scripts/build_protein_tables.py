"""Make the gene tables of all species of `data_manifests/proteomes.csv` with one ESM2.

    python scripts/build_protein_tables.py --encoder esm2_t33_650M_UR50D --proteomes DIR [--fetch] [--dry-run]

DIR holds the proteomes and annotations under the names they have at Ensembl; `--fetch` gets those that are missing
(some ten to sixty megabytes a species). Tables go to the folder that `uce species add` writes to. One that was made
from the same files stays, a species that was cut short goes on: the same command can be given again after any stop.
Several processes of `accelerate launch` or torchrun share the work. `--dry-run` says hours, memory and gigabytes.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from uce.devices import rank_and_world
from uce.errors import ModelError, UceError
from uce.genes.adding import add_species, estimate_species
from uce.genes.collection import table_path
from uce.genes.requests import Making, Sources, kind_of
from uce.genes.tables import read_table
from uce.model.catalogue import fetch

MANIFEST = Path(__file__).resolve().parents[1] / "data_manifests" / "proteomes.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, that of the last species that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="name or file of an ESM2")
    parser.add_argument("--proteomes", type=Path, required=True, metavar="DIR", help="folder with the Ensembl files")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, help="list of species and addresses")
    parser.add_argument("--species", nargs="+", help="only these (all of the manifest)")
    parser.add_argument("--fetch", action="store_true", help="get files that are missing in DIR")
    parser.add_argument("--dry-run", action="store_true", help="only say what it takes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    options = parser.parse_args(arguments)
    if options.fetch and rank_and_world()[1] > 1:
        parser.error("--fetch works in one process: give it once without a launcher, then start the work with one.")
    making = Making(device=options.device, precision=options.precision, batch_tokens=options.batch_tokens)
    if not options.manifest.is_file():
        parser.error(f"{options.manifest}: no such file")
    rows = read_manifest(options.manifest, options.species)
    if unknown := set(options.species or ()) - {row["species"] for row in rows}:
        parser.error(f"not in {options.manifest.name}: {', '.join(sorted(unknown))}")
    code, hours = 0, 0.0
    for number, row in enumerate(rows, start=1):
        tell(f"{row['species']} ({number} of {len(rows)})")
        try:
            sources = get_sources(row, options.proteomes, fetch_missing=options.fetch)
            if options.dry_run:
                cost = estimate_species(row["species"], sources, options.encoder, making, taxon=int(row["taxon"]))
                print(cost)
                hours += cost.hours
            else:
                code = make(row, sources, options.encoder, making) or code
        except UceError as error:  # the other species are made all the same
            tell(f"error: {error}")
            code = error.exit_code
    if options.dry_run:
        print(f"{'those' if code else 'all'} together: {hours:.1f} hours")
    return code


def tell(text: str) -> None:
    """Speak on stderr, in the first process alone."""
    if rank_and_world()[0] == 0:
        print(text, file=sys.stderr, flush=True)


def read_manifest(path: Path, species: Sequence[str] | None) -> list[dict[str, str]]:
    """Rows of the manifest, those of `species` where given."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [row for row in rows if species is None or row["species"] in species]


def get_sources(row: dict[str, str], folder: Path, *, fetch_missing: bool) -> Sources:
    """The files of a species in `folder`, fetched where that is asked for."""
    paths = [folder / row[kind].rpartition("/")[2] for kind in ("fasta", "gtf")]
    for path, kind in zip(paths, ("fasta", "gtf"), strict=True):
        if fetch_missing and not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            fetch(row[kind], path)
    return Sources(fasta=paths[0], annotation=paths[1])


def make(row: dict[str, str], sources: Sources, encoder: str, making: Making) -> int:
    """Add the species unless its table is there and of the same files; returns an exit code."""
    path = table_path(row["species"], kind_of(sources, encoder))
    if path.is_file():
        facts, now = read_table(path).metadata, sources.record()
        if all(facts.get(name) == value for name, value in now.items()):
            tell(f"there already ({facts.get('health')}): {path}")
            return ModelError.exit_code if facts.get("health") == "not usable" else 0
    added = add_species(row["species"], sources, taxon=int(row["taxon"]), encoder=encoder, making=making)
    if added:
        tell(str(added.health))
        print(added.path)
    return 0 if added is None or added.health.ok else ModelError.exit_code


if __name__ == "__main__":
    sys.exit(main())

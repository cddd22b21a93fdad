"""Write a manifest for `uce corpus` from the datasets of CELLxGENE Discover that fit a filter.

NOT VERIFIED: this was written from the published description of the service's listing and has never been run against
the service itself. Look at the manifest before fetching terabytes with it.

    python scripts/census_manifest.py --organism "Homo sapiens" --tissue lung --disease normal -o lung.csv
    uce corpus fetch lung.csv -o data
    uce corpus build lung.csv --folder data -o corpus --workers 8

The listing (a JSON of some thousand datasets, public, no key) is read from LISTING, or from a saved copy by `--from`.
Values are compared with the labels of the listing, upper and lower case alike; several are alternatives, several
options must all fit. A dataset that has other cells too gets a `filter`, so that only the wanted cells are built. Left
out: several organisms in one file, no h5ad, no cell that is primary data. `split` stays empty for the build to decide;
`study` is the DOI of the collection, or its id, so that sisters stay together. The listing states no licence; LICENCE
is what the service states for all of its data.
"""

import argparse
import csv
import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LISTING = "https://api.cellxgene.cziscience.com/curation/v1/datasets"
LICENCE = "CC-BY-4.0"
FACETS = ("organism", "tissue", "disease", "assay")
COLUMNS = ("dataset_id", "path", "species", "split", "study", "assay", "tissue", "filter", "licence", "cells", "bytes")
Facts = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="manifest to write (CSV)")
    for facet in FACETS:
        parser.add_argument(f"--{facet}", nargs="+", default=[], metavar="LABEL", help=f"{facet} of the cells (any)")
    parser.add_argument("--min-cells", type=int, default=0, metavar="N", help="of a dataset (0)")
    parser.add_argument("--from", dest="saved", type=Path, metavar="FILE", help="a saved listing; no network is used")
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"{options.output} exists. Choose another -o.")
    wanted = {facet: {label.casefold() for label in getattr(options, facet)} for facet in FACETS}
    try:
        listing = read_listing(options.saved)
        rows = [row for facts in listing if (row := manifest_row(facts, wanted, min_cells=options.min_cells))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        parser.error(f"the listing cannot be read as described ({type(error).__name__}: {error}).")
    if not rows:
        parser.error(f"none of {len(listing):,} datasets fits. Labels of the listing: {_examples(listing, wanted)}.")
    write_manifest(options.output, rows)
    cells, size = (sum(row[name] for row in rows) for name in ("cells", "bytes"))
    print(
        f"{options.output}: {len(rows):,} of {len(listing):,} datasets, {cells:,} cells, {size / 1e9:,.1f} GB to fetch"
    )
    print("Not verified against the service: look at the manifest first.", file=sys.stderr)
    return 0


def read_listing(saved: Path | None) -> list[Facts]:
    """The datasets of the service, or of a saved copy of its answer.

    Raises
    ------
    OSError, ValueError
        It cannot be had, or is no list.
    """
    if saved is not None:
        content = saved.read_bytes()
    else:
        request = urllib.request.Request(LISTING, headers={"Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            content = answer.read()
    listing = json.loads(content)
    if not isinstance(listing, list):
        msg = "not a list of datasets"
        raise ValueError(msg)
    return listing


def manifest_row(facts: Facts, wanted: dict[str, set[str]], *, min_cells: int = 0) -> Facts | None:
    """The row of the manifest of one dataset of the listing, None where it does not fit."""
    found = {facet: labels(facts, facet) for facet in FACETS}
    chosen = {facet: [label for label in found[facet] if fits(label, wanted[facet])] for facet in FACETS}
    asset = next((asset for asset in facts.get("assets") or [] if asset["filetype"] == "H5AD"), None)
    primary = facts.get("is_primary_data") or [True]
    cells = int(facts.get("cell_count") or 0)
    if asset is None or len(found["organism"]) != 1 or True not in primary or cells < min_cells:
        return None
    if not all(chosen.values()):
        return None
    mixed = [facet for facet in FACETS if len(chosen[facet]) < len(found[facet])]
    return {
        "dataset_id": facts["dataset_id"],
        "path": asset["url"],
        "species": found["organism"][0].lower().replace(" ", "_"),
        "split": "",
        "study": facts.get("collection_doi") or facts["collection_id"],
        # Where there are several, obs says it cell by cell.
        "assay": chosen["assay"][0] if len(chosen["assay"]) == 1 else "",
        "tissue": chosen["tissue"][0] if len(chosen["tissue"]) == 1 else "",
        "filter": " and ".join(any_of(facet, chosen[facet]) for facet in mixed),
        "licence": LICENCE,
        "cells": cells,
        "bytes": int(asset.get("filesize") or 0),
    }


def labels(facts: Facts, facet: str) -> list[str]:
    """The labels of a dataset, as they stand in obs of its file."""
    return [str(term["label"]) for term in facts.get(facet) or []]


def fits(label: str, wanted: set[str]) -> bool:
    """Whether a label is one of those wanted; all are where none is named."""
    return not wanted or label.casefold() in wanted


def any_of(column: str, values: Sequence[str]) -> str:
    """A filter of the manifest: the column has one of these values."""
    marks = {value: "'" if '"' in value else '"' for value in values}
    return "(" + " or ".join(f"{column} == {mark}{value}{mark}" for value, mark in marks.items()) + ")"


def write_manifest(path: Path, rows: Sequence[Facts]) -> None:
    """Write the manifest, the dataset with the least cells first."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["cells"], row["dataset_id"])))


def _examples(listing: Sequence[Facts], wanted: dict[str, set[str]]) -> str:
    named = [facet for facet in FACETS if wanted[facet]]
    every = {facet: sorted({label for facts in listing for label in labels(facts, facet)}) for facet in named}
    return "; ".join(f"{facet} {', '.join(found[:12])}" for facet, found in every.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())

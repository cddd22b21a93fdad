"""Check and embed every file of one or more folders as a user would, and write a table of what happened.

example: python scripts/embed_report.py cells inputs --output docs/results/embed.md
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENDINGS = (".h5ad", ".h5", ".zarr", ".zarr.zip", ".loom", ".tar.gz", ".tsv.gz")
HEADER = """# Embedding real files

Every file was checked (`uce check`) and embedded (`uce embed --json`) by the command line with `{model}` and no other
option, one process a file, on {machine}. Made by `python scripts/embed_report.py`. Seconds and peak memory are those of
the whole process, starting Python and torch included; cells/s is the rate without that start.

"""
COLUMNS = (
    "file",
    "cells",
    "seconds",
    "cells/s",
    "peak MB",
    "species found",
    "genes",
    "counts",
    "no vector",
    "mean cosine",
    "effective rank",
    "noise",
)


def sources(folder: Path) -> list[Path]:
    """Files and 10x folders directly in `folder` that a user might try."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(ENDINGS) or (path.is_dir() and any(path.glob("matrix.mtx*")))
    )


def run(words: list[str]) -> tuple[int, str, str, float, float]:
    """Run `uce` with `words`: exit code, stdout, stderr, seconds, peak megabytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "uce", *words], stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        out.seek(0)
        err.seek(0)
        return (
            os.waitstatus_to_exitcode(status),
            out.read().decode(),
            err.read().decode(),
            seconds,
            usage.ru_maxrss / 1024,
        )


def embed(path: Path, model: str) -> tuple[list[str] | None, str]:
    """A row of the table, or None and the reason of the refusal."""
    check_code, said, _, _, _ = run(["check", str(path), "--model", model, "--json"])
    verdict = json.loads(said) if check_code in (0, 3) else {"ok": False, "problems": [said]}
    with tempfile.TemporaryDirectory() as folder:
        words = ["embed", str(path), "-o", f"{folder}/out.h5ad", "--model", model, "--json"]
        code, said, errors, seconds, peak = run(words)
        if (code == 0) != verdict["ok"]:
            raise SystemExit(f"{path}: check says {verdict}, embed says {code}: {errors}")
        if code:
            return None, f"{errors.strip().splitlines()[-1].removeprefix('error: ').replace(str(path), path.name)}"
        cells, expected = rows_of(Path(folder) / "out.h5ad"), json.loads(said)["cells"]
        if cells != expected:
            raise SystemExit(f"{path}: {expected} cells in, {cells} out")
    record = json.loads(said)
    health = record["health"]
    row = [
        path.name,
        f"{record['cells']:,}",
        f"{seconds:.1f}",
        f"{record['cells'] / record['seconds']:.0f}",
        f"{peak:.0f}",
        ", ".join(record["species"]),
        f"{health['genes_covered']:.1%}",
        f"{health['counts_covered']:.1%}",
        f"{health['cells_without_vector']:,}",
        f"{health['mean_cosine']:.3f}",
        f"{health['effective_rank']:.1f}",
        f"{health['noise']:.3f}",
    ]
    return row, "; ".join(health["warnings"])


def rows_of(path: Path) -> int:
    """Rows of the embedding in a result."""
    import h5py

    with h5py.File(path, "r") as file:
        return int(file["obsm/X_uce"].shape[0])


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="uce-mini")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    pages = [HEADER.format(model=args.model, machine=machine)]
    for folder in args.folders:
        rows, warned, refused = [], [], []
        for path in sources(folder):
            row, words = embed(path, args.model)
            print(path.name, row or words, flush=True)
            if row is None:
                refused.append(f"| {path.name} | {words.replace('|', '/')} |")
            else:
                rows.append("| " + " | ".join(row) + " |")
                if words:
                    warned.append(f"- `{path.name}`: {words}")
        pages.append(f"## Folder `{folder.name}`\n\n")
        if rows:
            pages.append(
                "| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|\n" + "\n".join(rows) + "\n\n"
            )
        if warned:
            pages.append("Warnings of the health line:\n\n" + "\n".join(warned) + "\n\n")
        if refused:
            pages.append("Refused:\n\n| file | why |\n| --- | --- |\n" + "\n".join(refused) + "\n\n")
    args.output.write_text("".join(pages).rstrip() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

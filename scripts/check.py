"""Everything that must pass before a change lands: style, types, layers, tests. Stops at the first that fails."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
# Each of the two processes that test has a core: with more threads they would mostly wait for each other's.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"} | os.environ
STEPS = [
    [str(BIN / "ruff"), "check", "."],
    [str(BIN / "ruff"), "format", "--check", "."],
    [str(BIN / "mypy")],
    [str(BIN / "lint-imports")],
    # Tests that stand together stay in one process as long as can be, so that what they share is made once.
    [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *sys.argv[1:]],
]


def main() -> int:
    """Run the steps in order; return the exit code of the first that fails, else 0."""
    for step in STEPS:
        print("$", Path(step[0]).name, *step[1:], flush=True)
        code = subprocess.run(step, cwd=ROOT, env=ENVIRONMENT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

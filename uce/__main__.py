"""`python -m uce`, and what `accelerate launch -m uce` and torchrun start."""

from uce.cli.main import run

if __name__ == "__main__":
    run()

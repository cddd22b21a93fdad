"""`python -m uce`, and what `accelerate launch -m uce` and torchrun start."""

import sys

from uce.cli.main import main

sys.exit(main())

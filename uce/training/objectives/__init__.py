"""What an encoder can be trained for, by name."""

from uce.training.objectives.masked import MaskedObjective

OBJECTIVES = {"masked": MaskedObjective}

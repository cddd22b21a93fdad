"""What an encoder can be trained for. A new objective is one file, and its settings in the union here."""

from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.masked import MaskedSettings

# A configuration chooses by `objective.name`; without a name it is the first.
AnyObjectiveSettings = MaskedSettings | ContrastiveSettings

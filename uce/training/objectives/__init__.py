"""What an encoder can be trained for. A new objective is one file, and its settings in the union here."""

from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.objectives.joint import JointSettings
from uce.training.objectives.masked import MaskedSettings
from uce.training.objectives.momentum import MomentumSettings
from uce.training.objectives.supervised import SupervisedSettings

# A configuration chooses by `objective.name`; without a name it is the first.
AnyObjectiveSettings = MaskedSettings | ContrastiveSettings | MomentumSettings | SupervisedSettings | JointSettings

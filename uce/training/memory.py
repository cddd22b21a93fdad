"""What training takes of a device's memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uce.training.batch import Batch
from uce.training.counting import Parameters, count_bytes, parameters, sampled

if TYPE_CHECKING:
    from uce.training.corpus import Corpus
    from uce.training.settings import PretrainConfig

_FLOAT32 = 4  # weights, gradients, moments and averages are float32 in any precision


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes
    ----------
    weights, gradients, moments, average
        Float32: of all parameters, or of this device's share; weights include those of the encoder that a run began
        from, gradients and moments (AdamW's two) are of what is trained, averages of the encoder.
    exchange
        For the exchange of gradients and weights with other devices.
    vectors
        Of the tokens of all species.
    batch, activations
        Of the share in the largest sampled part.
    update
        What an update of the weights needs for a moment, when no activations are there.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    exchange: int
    vectors: int
    batch: int
    activations: int
    update: int

    @property
    def standing(self) -> int:
        """What is there whatever the batch."""
        return self.weights + self.gradients + self.moments + self.average + self.exchange + self.vectors

    @property
    def total(self) -> int:
        """The most at one time."""
        return self.standing + max(self.batch + self.activations, self.update)


def memory(config: "PretrainConfig", corpus: "Corpus", batches: Sequence[Batch], *, kind: str, world: int) -> Memory:
    """What training needs on each of `world` devices, shared and computed again as `config.run` says.

    Parameters
    ----------
    batches
        One process's, of as many processes. The largest counts.
    kind
        Of the devices, see `count_bytes`.
    """
    largest = max(batches, key=lambda batch: batch.tokens.size)
    more = config.part_size / sampled(config, world).part_size
    batch, activations = (round(more * count) for count in count_bytes(config, corpus, largest, kind=kind))
    return with_states(config, corpus, batch, activations, world=world)


def with_states(config: "PretrainConfig", corpus: "Corpus", batch: int, activations: int, *, world: int) -> Memory:
    """The same, where the bytes of the largest batch and of its passes are known."""
    size, sharded = parameters(config), config.run.sharding == "fsdp" and world > 1
    share = world if sharded else 1
    learned, kept = _FLOAT32 * size.learned, _FLOAT32 * size.encoder // share
    species = {dataset.species: dataset.vocabulary.vectors.nbytes for dataset in corpus.datasets}
    return Memory(
        weights=_FLOAT32 * size.all // share + (kept if config.start else 0),
        gradients=learned // share,
        moments=2 * learned // share,
        average=kept if config.ema else 0,
        exchange=_exchange(config, size, sharded=sharded) if world > 1 else 0,
        vectors=sum(species.values()),
        batch=batch,
        activations=activations,
        update=learned // share,
    )


def _exchange(config: "PretrainConfig", size: Parameters, *, sharded: bool) -> int:
    """DDP has its gradients a second time, in buckets. FSDP gathers weights, two blocks at a time."""
    if not sharded:
        return _FLOAT32 * size.learned
    rest = size.learned - config.model.layers * size.block
    # Gradients that are not yet exchanged, in all parts of an update but the last, are whole.
    whole = size.learned if config.accumulate > 1 else rest + size.block
    return _FLOAT32 * (rest + 2 * size.block + whole)

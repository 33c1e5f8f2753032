"""InfoBatch (unbiased dynamic data pruning) for PyTorch, at next to no cost for training sets of hundreds of millions of samples.

>>> pruner = InfoBatch(dataset, num_epochs=90)                                            # doctest: +SKIP
>>> loader = DataLoader(with_index(dataset), batch_size=256, sampler=pruner.sampler)      # doctest: +SKIP
>>> loss = pruner.update(index, F.cross_entropy(model(x), y, reduction="none"))           # doctest: +SKIP
"""

from .dataset import IndexedDataset, collate_with_index, with_index
from .engine.ops import VERSION as __version__
from .importance import ImportanceSampling
from .losses import per_sample, pixel_losses, token_losses
from .policy import MeanThreshold, NoPruning, Policy, QuantileTiers, RandomPruning
from .pruner import InfoBatch
from .sampler import InfoBatchBatchSampler, InfoBatchSampler
from .schedules import EpochProgressLR
from .stats import EpochStats
from .streams import KeptOnly

__all__ = [
    "EpochProgressLR",
    "EpochStats",
    "ImportanceSampling",
    "IndexedDataset",
    "InfoBatch",
    "InfoBatchBatchSampler",
    "InfoBatchSampler",
    "KeptOnly",
    "MeanThreshold",
    "NoPruning",
    "Policy",
    "QuantileTiers",
    "RandomPruning",
    "__version__",
    "collate_with_index",
    "per_sample",
    "pixel_losses",
    "token_losses",
    "with_index",
]

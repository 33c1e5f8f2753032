"""Misuse of ``update`` is noticed, and what else may be called is right."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, with_index
from support.runs import half_pruned, snapshot


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_validation_step_cannot_overwrite_training_scores(device: torch.device, mode: type) -> None:
    pruner = half_pruned(device)
    before = snapshot(pruner)
    with mode(), pytest.raises(RuntimeError, match=r"where gradients are off.*record\(index, scores\)"):
        pruner.update([1, 2], torch.ones(2, device=device))
    assert snapshot(pruner) == before


def test_a_copy_of_a_model_or_a_loader_refers_to_the_same_pruner(device: torch.device) -> None:
    module = torch.nn.Linear(2, 1)
    module.pruner = pruner = half_pruned(device)
    for copied in (copy.deepcopy(module), copy.copy(module)):
        assert copied.pruner is pruner and copied.weight.shape == (1, 2)
    loader = DataLoader(with_index(range(1000)), 10, sampler=pruner.sampler)
    assert copy.deepcopy(loader.sampler).engine is pruner.engine
    assert torch.equal(copy.deepcopy(pruner.sampler).indices(), pruner.sampler.indices())


def test_an_averaged_model_is_made_of_one_that_holds_its_pruner() -> None:
    module = torch.nn.Linear(2, 1)
    module.pruner = InfoBatch(10, 3)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.update_parameters(module)
    assert averaged.module.pruner is module.pruner

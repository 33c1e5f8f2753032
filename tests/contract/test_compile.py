"""``update`` under ``torch.compile``, and its operator as torch.library sees it."""

import pytest
import torch

from infobatch_fast import InfoBatch
from support.runs import ARBITRARY, half_pruned

pytestmark = ARBITRARY


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own, at its import
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_update_works_under_torch_compile_fullgraph_and_is_compiled_once_for_all_epochs(device: torch.device, backend: str) -> None:
    if backend == "inductor" and device.type == "cpu":
        pytest.skip("its C++ takes a minute to build; on CUDA it runs")
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    results: list[tuple[list[object], list[float]]] = []
    for compiled in (False, True):
        pruner = InfoBatch(1000, 10, delta=1.0, device=device)
        factor = torch.ones(1, device=device, requires_grad=True)

        def step(index: torch.Tensor, x: torch.Tensor, pruner: InfoBatch = pruner, factor: torch.Tensor = factor) -> torch.Tensor:
            return pruner.update(index, x * factor, scores=x.double())

        run = torch.compile(step, fullgraph=True, backend=counter) if compiled else step
        seen: list[object] = []
        means: list[float] = []
        for epoch in range(4):
            pruner.set_epoch(epoch)  # between two calls of the compiled function
            for batch in pruner.sampler.batches(100, drop_last=True):
                columns = torch.tensor([batch, batch], device=device).T  # not contiguous
                loss = run(columns[:, 0], columns[:, 1] % 97 / 8)
                loss.backward()
                seen.append(batch)
                means.append(loss.item())
            seen += [pruner.stats.kept, pruner.stats.scored, pruner.scores().nan_to_num(-1).tolist()]
        assert factor.grad is not None
        results.append((seen, [*means, factor.grad.item()]))
    assert results[0][0] == results[1][0]
    assert results[0][1] == pytest.approx(results[1][1], rel=3e-6)  # a compiler may add in another order, and divide a mean
    assert counter.frame_count == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_update_records_though_its_result_is_not_used(device: torch.device) -> None:
    pruner = half_pruned(device)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def score(index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        pruner.update(index, losses)
        pruner.update(index, losses + 1)
        return losses.mean()

    for first in (1, 3):
        assert score(torch.tensor([first, first + 1], device=device), torch.tensor([2.0, 4.0], device=device)).item() == 3.0
    assert pruner.scores([1, 2, 3, 4]).tolist() == [3.0, 5.0, 3.0, 5.0]
    assert pruner.stats.scored == 8


def test_the_operator_passes_the_checks_of_torch_library(device: torch.device) -> None:
    pruner = half_pruned(device)
    index = torch.tensor([1, 600], device=device)
    operator = torch.ops.infobatch_fast.record.default
    for averaged, weights in ((False, [2, 1]), (True, [1, 0.5])):
        arguments = (pruner.engine._token, index, torch.ones(2, device=device), pruner.engine._handle, averaged, True)
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}
        assert operator(*arguments).tolist() == weights

"""The contract, sentence by sentence: ``update``, and indices and losses that are not as they should be."""

import math
from collections.abc import Callable

import pytest
import torch
from runs import order, record, record_all, snapshot, train

from infobatch_fast import InfoBatch

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BAD_INDICES = [1000, -1, 1 << 40, (1 << 63) - 1, -(1 << 63), 1007]


def half_pruned(device: torch.device, prune_ratio: float = 0.5, **kwargs: object) -> InfoBatch:
    """Samples 0 ... 499 have score 0 and weigh 1 / (1 - prune_ratio), samples 500 ... 999 score 2 and weigh 1."""
    pruner = InfoBatch(1000, 10, prune_ratio=prune_ratio, delta=1.0, device=device, **kwargs)  # type: ignore[arg-type]
    record_all(pruner, [0.0] * 500 + [2.0] * 500)
    pruner.set_epoch(1)
    len(pruner.sampler)  # makes the plan
    return pruner


# ---- loss ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_update_returns_the_plain_batch_mean_of_the_weighted_losses(device: torch.device, dtype: torch.dtype) -> None:
    losses = torch.tensor([0.5, 1.25, 3.0, 0.25], dtype=dtype, device=device)
    for index, total in (([1, 2, 3, 4], 10.0), ([1, 2, 600, 700], 6.75), ([500, 600, 700, 800], 5.0)):
        pruner = half_pruned(device)
        result = pruner.update(torch.tensor(index), losses)
        assert result.shape == ()
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert result.item() == total / 4, "not renormalised by the weights"
        assert pruner.update(torch.tensor(index), losses, reduction="sum").item() == total
        each = pruner.update(torch.tensor(index), losses, reduction="none")
        assert torch.equal(each, losses * pruner.weights(index))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("prune_ratio", [0.5, 0.3])
def test_gradients_are_exactly_weight_over_batch_size(device: torch.device, dtype: torch.dtype, prune_ratio: float) -> None:
    pruner = half_pruned(device, prune_ratio)
    index = torch.tensor([1, 600, 2, 700, 3, 800, 4, 900])
    weights = pruner.weights(index)
    for reduction, divisor in (("mean", 8), ("sum", 1), ("none", 1)):
        losses = torch.rand(8, device=device).to(dtype).requires_grad_()
        pruner.update(index, losses, reduction=reduction).sum().backward()  # type: ignore[arg-type]
        assert losses.grad is not None
        assert torch.equal(losses.grad, (weights / divisor).to(dtype))


def test_gradients_flow_into_what_the_losses_were_computed_from(device: torch.device) -> None:
    pruner = half_pruned(device)
    parameter = torch.tensor([1.0, 2.0, 3.0, 4.0], device=device, requires_grad=True)
    losses = parameter**2
    pruner.update(torch.tensor([1, 600, 2, 700]), losses, scores=parameter * 3).backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1.0, 1.0, 3.0, 2.0]  # weight / 4 * 2 * parameter; nothing from the scores


def test_update_does_not_touch_the_callers_tensors(device: torch.device) -> None:
    pruner = half_pruned(device)
    losses = torch.tensor([1.0, math.nan, 3.0, 1.0], device=device)
    scores, index = losses * 2, torch.tensor([1, 2, 2000, 1], device=device)
    tensors = (losses, scores, index)
    before = [(tensor.clone(), tensor._version) for tensor in tensors]
    result = pruner.update(index, losses, scores=scores, reduction="none")
    result.zero_()
    for tensor, (clone, version) in zip(tensors, before, strict=True):
        assert torch.equal(tensor.nan_to_num(-1), clone.nan_to_num(-1))
        assert tensor._version == version
    with pytest.raises(IndexError, match="2000"):
        _ = pruner.stats


def test_update_needs_neither_contiguous_tensors_nor_gradients(device: torch.device) -> None:
    pruner = half_pruned(device)
    index, losses = torch.arange(20)[::2], torch.arange(20.0, device=device)[::2]
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            assert pruner.update(index, losses, reduction="sum").item() == 180.0
    assert torch.equal(pruner.scores(index), losses)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses_of_every_float_dtype_are_stored_as_float32(device: torch.device, dtype: torch.dtype) -> None:
    pruner = InfoBatch(1000, 10, device=device)
    losses = (torch.rand(1000, device=device) * 10 - 5).to(dtype)
    pruner.update(torch.arange(1000), losses)
    assert torch.equal(pruner.scores(), losses.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_separate_scores_are_stored_instead_of_the_losses(device: torch.device, dtype: torch.dtype) -> None:
    pruner = half_pruned(device)
    scores = torch.tensor([5.0, 6.0], dtype=dtype, device=device, requires_grad=True)
    assert record(pruner, [1, 600], [1.0, 1.0], scores=scores).item() == 1.5
    assert pruner.scores([1, 600]).tolist() == [5.0, 6.0]


def test_scores_are_for_the_next_plan_and_weights_come_from_the_current_one(device: torch.device) -> None:
    pruner = half_pruned(device)
    index = torch.tensor([1, 2, 600, 700])
    for _ in range(2):
        weighted = record(pruner, index, [9.0, 9.0, 0.0, 0.0], reduction="none")
        assert weighted.tolist() == [18, 18, 0, 0]
        assert pruner.weights(index).tolist() == [2, 2, 1, 1]
    pruner.set_epoch(2)
    assert pruner.weights(index).tolist() == [1, 1, 2, 2]


def test_an_empty_batch_records_nothing(device: torch.device) -> None:
    pruner = half_pruned(device)
    before = snapshot(pruner)
    empty = torch.empty(0, device=device)
    assert pruner.update(empty.long(), empty, reduction="sum").item() == 0
    assert pruner.update(empty.long(), empty, reduction="none").shape == (0,)
    assert snapshot(pruner) == before


# ---- duplicates ----


def test_of_an_index_that_occurs_twice_in_one_call_the_later_one_wins(device: torch.device) -> None:
    pruner = InfoBatch(500, 10, device=device)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(500, (50_000,), generator=generator)
    losses = torch.rand(50_000, generator=generator)
    record(pruner, index, losses)
    expected = dict(zip(index.tolist(), losses.tolist(), strict=True))
    assert pruner.scores().tolist() == [expected[sample] for sample in range(500)]
    assert pruner.stats.scored == 50_000


def test_of_duplicates_the_last_finite_one_wins_and_all_weigh_the_same(device: torch.device) -> None:
    pruner = half_pruned(device)
    weighted = record(pruner, [7, 600, 7, 7, 600], [1.0, 1.0, 4.0, math.nan, math.inf], reduction="none")
    assert weighted[:3].tolist() == [2.0, 1.0, 8.0]
    assert pruner.scores([7, 600]).tolist() == [4.0, 1.0]
    assert pruner.stats.non_finite == 2


# ---- non-finite losses ----


def test_non_finite_losses_are_counted_and_not_stored_and_the_step_is_left_to_the_user(device: torch.device) -> None:
    pruner = half_pruned(device)
    result = record(pruner, [1, 2, 3, 4], [math.nan, math.inf, -math.inf, 7.0], reduction="none").tolist()
    assert math.isnan(result[0])
    assert result[1:] == [math.inf, -math.inf, 14.0]
    assert pruner.scores([1, 2, 3, 4]).tolist() == [0.0, 0.0, 0.0, 7.0]
    assert (pruner.stats.non_finite, pruner.stats.scored) == (3, 4)
    pruner.set_epoch(2)
    assert pruner.stats.non_finite == 0, "of this epoch"


def test_a_sample_that_had_only_non_finite_losses_stays_unseen(device: torch.device) -> None:
    pruner = InfoBatch(100, 10, device=device)
    record_all(pruner, [math.nan] * 50 + [1.0] * 50)
    pruner.set_epoch(1)
    assert pruner.stats.seen == 50
    assert pruner.is_kept(torch.arange(50)).all()


def test_what_overflows_float32_is_not_finite_and_what_underflows_is_zero(device: torch.device) -> None:
    pruner = InfoBatch(2, 10, device=device)
    losses = torch.tensor([1e300, 1e-300], dtype=torch.float64, device=device)
    assert pruner.update(torch.tensor([0, 1]), losses, reduction="none").tolist() == [1e300, 1e-300]
    assert pruner.scores()[0].isnan()
    assert pruner.scores()[1] == 0
    assert pruner.stats.non_finite == 1


# ---- indices that do not belong here ----


def test_bad_indices_never_touch_memory_and_the_others_of_the_call_are_recorded(device: torch.device) -> None:
    pruner = half_pruned(device)
    before = snapshot(pruner)
    weighted = record(pruner, BAD_INDICES, [5.0] * 6, reduction="none")
    assert weighted.tolist() == [5.0] * 6
    assert snapshot(pruner) == before | {"scored": 6}
    record(pruner, [*BAD_INDICES, 4], [5.0] * 7)
    assert pruner.scores([4]).item() == 5.0
    assert pruner.scores(BAD_INDICES).isnan().all()
    assert not pruner.is_kept(BAD_INDICES).any()  # type: ignore[union-attr]
    assert (pruner.weights(BAD_INDICES) == 1).all()


def next_of_the_next_epoch(pruner: InfoBatch) -> None:
    next(iter(pruner.sampler))


def len_of_the_next_epoch(pruner: InfoBatch) -> None:
    pruner.set_epoch(2)
    len(pruner.sampler)


def stats_of_this_epoch(pruner: InfoBatch) -> None:
    _ = pruner.stats


@pytest.mark.parametrize("look", [stats_of_this_epoch, len_of_the_next_epoch, next_of_the_next_epoch])
def test_bad_indices_are_raised_once_at_the_next_point_where_the_host_looks(
    device: torch.device, look: Callable[[InfoBatch], None]
) -> None:
    pruner = half_pruned(device)
    train(pruner)
    record(pruner, BAD_INDICES[:2], [5.0] * 2)  # no error here
    pattern = r"index: 2 out of range for 1000 samples, for instance (1000|-1); .*with_index\(Subset"
    with pytest.raises(IndexError, match=pattern):
        look(pruner)
    assert pruner.stats.epoch == (1 if look is stats_of_this_epoch else 2)
    pruner.set_epoch(2)
    expected = order(pruner)
    assert len(expected) == pruner.stats.kept
    assert train(pruner) == expected


def test_bad_indices_do_not_hide_the_count_of_non_finite_losses(device: torch.device) -> None:
    pruner = half_pruned(device)
    record(pruner, [3, 2000], [math.nan, 1.0])
    with pytest.raises(IndexError, match="2000"):
        _ = pruner.stats
    assert pruner.stats.non_finite == 1


@pytest.mark.parametrize("bad", BAD_INDICES)
def test_with_check_sync_bad_indices_are_raised_at_once_and_nothing_is_recorded(device: torch.device, bad: int) -> None:
    pruner = half_pruned(device, check="sync")
    record(pruner, [3], [math.nan])
    before = snapshot(pruner)
    with pytest.raises(IndexError, match=f"index: 1 out of range for 1000 samples, for instance {bad};"):
        record(pruner, [1, bad, 2], [5.0, 5.0, 5.0])
    assert snapshot(pruner) == before
    assert (pruner.stats.scored, pruner.stats.non_finite) == (1, 1)
    for call in (pruner.weights, pruner.is_kept):
        with pytest.raises(IndexError, match=f"for instance {bad};"):
            call([1, bad])
    assert record(pruner, [1, 2], [5.0, 5.0]).item() == 10.0


# ---- no hidden synchronisation, and the compiler ----


@pytest.mark.gpu
def test_update_issues_no_host_sync(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("about CUDA")
    pruner = half_pruned(device)
    losses = torch.rand(256, device=device, requires_grad=True)
    index, on_gpu = torch.arange(256).pin_memory(), torch.arange(256, device=device)
    pruner.update(index, losses)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pruner.update(index, losses, scores=losses.double()).backward()
        pruner.update(on_gpu, losses.half(), reduction="none")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own, at its import
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_update_works_under_torch_compile_fullgraph_and_is_compiled_once_for_all_epochs(device: torch.device, backend: str) -> None:
    if backend == "inductor" and device.type == "cpu":
        pytest.skip("its C++ takes a minute to build; on CUDA it runs")
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    results: list[list[object]] = []
    for compiled in (False, True):
        pruner = InfoBatch(1000, 10, delta=1.0, device=device)
        factor = torch.ones(1, device=device, requires_grad=True)

        def step(index: torch.Tensor, x: torch.Tensor, pruner: InfoBatch = pruner, factor: torch.Tensor = factor) -> torch.Tensor:
            return pruner.update(index, x * factor, scores=x.double())

        run = torch.compile(step, fullgraph=True, backend=counter) if compiled else step
        seen: list[object] = []
        for epoch in range(4):
            pruner.set_epoch(epoch)  # between two calls of the compiled function
            for batch in pruner.sampler.batches(100, drop_last=True):
                columns = torch.tensor([batch, batch], device=device).T  # not contiguous
                loss = run(columns[:, 0], columns[:, 1] % 97 / 8)
                loss.backward()
                seen += [batch, loss.item()]
            seen += [pruner.stats.kept, pruner.stats.scored, pruner.scores().nan_to_num(-1).tolist()]
        assert factor.grad is not None
        results.append([*seen, factor.grad.item()])
    assert results[0] == results[1]
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
    arguments = (pruner._token, index, torch.ones(2, device=device), pruner._handle)
    assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}
    assert operator(*arguments).tolist() == [2, 1]

"""The native functions against the oracle where a whole pruner cannot go cheaply: data sets of up to 2^40 samples."""

import math
import random
from decimal import FloatOperation, Inexact, localcontext

import pytest
import torch

from infobatch_fast.engine import ops
from infobatch_fast.engine.norms import norms_of_bins, norms_on
from support.compare import make_scores
from support.draws import DEAL, SHUFFLE, Permutation, philox
from support.oracle import cutoff, keep_draw, weight
from support.oracle_importance import ZERO, cut_bins, norm

SMALL = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 255, 257, 1000, 1023, 1024, 1025, 4097, 10007]
NARROW = [(2**16 - 1) << 15, (2**16 - 1) << 16]  # 2^16 - 1 rows, the most that go by products of 32 bits
HUGE = [*NARROW, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 7, 10**12, 2**39 + 2**20 + 1, 2**40 - 1, 2**40]
SEEDS = [0, 1, 2**32, 2**64 - 1]
NAN = float("nan")


def test_histograms_of_many_ranks_are_cut_as_the_page_says(device: torch.device) -> None:
    dice = random.Random(1)
    for case in range(30):
        by = ("gradient_norm", "score")[case % 2]
        saved = dice.random()
        min_keep = (1 - saved) * dice.random()
        counts = [0] * ops.DIGIT_BINS
        bins = dice.sample(range(ops.NORMS), dice.choice((1, 3, 40, 400)))
        for number in bins:
            counts[ops.FIRST_POSITIVE_DIGIT + number] = dice.randrange(1, 2 ** dice.randrange(1, 39) // len(bins) + 2)
        counts[0x3FF] = dice.choice((0, 2**35))
        counts[0x7FC] = dice.choice((0, 2**36))
        found = ops.cut_by_importance(
            torch.tensor(counts, device=device), norms_on(by, device), math.ceil((1 - saved) * 2**32), ops.cutoff_of(min_keep)
        )
        sizes = {number: counts[ops.FIRST_POSITIVE_DIGIT + number] for number in bins} | {ZERO: counts[0x3FF]}
        ends, cutoffs = cut_bins({number: size for number, size in sizes.items() if size}, by, saved, min_keep)
        assert found[0].tolist() == [*reversed(ends), *[-math.inf] * (3 - len(ends))]
        assert ops.cutoffs_of_tiers(found[1]).tolist() == cutoffs + [65536] * (4 - len(cutoffs))
        assert found[2].tolist() == [sum(counts), 0]


def test_norms_are_those_of_the_page_whatever_decimal_context_the_user_has() -> None:
    with localcontext() as context:
        context.traps[FloatOperation] = context.traps[Inexact] = True
        context.prec = 3
        norms_of_bins.cache_clear()
        found = norms_of_bins("gradient_norm")
    assert list(found) == [norm(number, "gradient_norm") for number in range(ops.NORMS)]


def tiers_of(cutoffs: ops.Cutoffs, device: torch.device) -> torch.Tensor:
    tiers = ops.empty_tiers(device)
    ops.set_tiers(tiers, cutoffs)
    return tiers


@pytest.mark.parametrize("n", SMALL)
def test_permutations_are_those_of_the_page_and_onto(n: int) -> None:
    ours = ops.shuffle_permutation(n, 2**64 - 1, 2**32 - 1, 3)
    page = Permutation(n, 2**64 - 1, SHUFFLE, 2**32 - 1, 3)
    images = [ours.apply(item) for item in range(n)]
    assert images == [page.permute(item) for item in range(n)]
    assert sorted(images) == list(range(n))
    assert [ours.invert(image) for image in images] == list(range(n))


@pytest.mark.parametrize("n", HUGE)
def test_permutations_of_huge_sets_are_those_of_the_page(n: int) -> None:
    dice = random.Random(n)
    items = [0, 1, n - 2, n - 1, n // 2, *(dice.randrange(n) for _ in range(200))]
    for seed in SEEDS:
        epoch, rank = dice.getrandbits(32), dice.getrandbits(16)
        pairs = [
            (ops.shuffle_permutation(n, seed, epoch, rank), Permutation(n, seed, SHUFFLE, epoch, rank)),
            (ops.deal_permutation(n, seed), Permutation(n, seed, DEAL, 0, 0)),
        ]
        for ours, page in pairs:
            assert [ours.apply(item) for item in items] == [page.permute(item) for item in items]
            assert [ours.invert(item) for item in items] == [page.invert(item) for item in items]


@pytest.mark.parametrize("n", [1, 5, 1024, 2**40])
def test_the_identity_leaves_every_item_where_it_is(n: int) -> None:
    identity = ops.identity_permutation(n)
    for item in {0, n // 3, n - 1}:
        assert identity.apply(item) == identity.invert(item) == item


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("first_slot", [0, 2**31 - 8, 2**32, 2**35 - 600, 2**35 + 8, 2**39 + 2**30 + 24])
def test_a_shard_far_out_decides_and_orders_as_the_page_says(device: torch.device, first_slot: int, shuffle: bool) -> None:
    n, seed, epoch, rank, slots = 2**40 - 5, 2**64 - 1, 2**32 - 1, 9, 1500
    scores = make_scores("half unseen", slots)
    levels, cutoffs = (0.75, 0.5, 0.125), (65536, cutoff(0.25), cutoff(0.5), cutoff(0.75))
    tiers = [0 if score is None else sum(score < level for level in levels) for score in scores]
    kept = [keep_draw(seed, first_slot + slot, epoch) < cutoffs[tier] for slot, tier in enumerate(tiers)]
    deal = Permutation(n, seed, DEAL, 0, 0)
    ids = [deal.invert(first_slot + slot) if shuffle else first_slot + slot for slot in range(slots)]

    table = torch.tensor([NAN if score is None else score for score in scores], dtype=torch.float32, device=device)
    marks = torch.full((ops.mark_bytes(slots),), 0xA5, dtype=torch.uint8, device=device)
    directory = ops.BitDirectory(marks, slots)
    thresholds = torch.tensor(levels, dtype=torch.float32, device=device)
    counts = directory.draw_plan(table, first_slot, thresholds, tiers_of(cutoffs, device), seed, epoch).tolist()
    assert counts[0] == sum(kept)
    assert counts[1:5] == [tiers.count(tier) for tier in range(4)]
    assert counts[5:] == [sum(k for k, t in zip(kept, tiers, strict=True) if t == tier) for tier in range(4)]
    assert directory.build().tolist() == counts

    shard = ops.Shard(ops.deal_permutation(n, seed) if shuffle else ops.identity_permutation(n), first_slot, slots)
    faults = torch.zeros(ops.NUM_FAULTS, dtype=torch.int64, device=device)
    found_slots, found = ops.look_up(shard, marks, faults, torch.tensor(ids, device=device))
    assert found_slots.tolist() == list(range(slots))
    assert found.tolist() == [keep + 4 * tier for keep, tier in zip(kept, tiers, strict=True)]

    order = ops.EpochOrder(shard, ops.shuffle_permutation(sum(kept), seed, epoch, rank), directory.native)
    kept_ids = [sample for sample, keep in zip(ids, kept, strict=True) if keep]
    positions = Permutation(len(kept_ids), seed, SHUFFLE, epoch, rank)
    expected = [kept_ids[positions.permute(p % len(kept_ids))] for p in range(2 * len(kept_ids) + 3)]
    assert ops.order(order, None, 0, len(expected), device).tolist() == expected

    visited = ids[::3]
    recorder = ops.Recorder(shard, table, marks, faults, tiers_of(cutoffs, device))
    weights = recorder(torch.tensor(visited, device=device), torch.full((len(visited),), 2.5, device=device))
    assert weights.tolist() == [weight(cutoffs[tier]) for tier in tiers[::3]]
    assert table.nan_to_num(-1.0).tolist() == [
        2.5 if slot % 3 == 0 else -1.0 if score is None else score for slot, score in enumerate(scores)
    ]
    remaining = ops.BitDirectory(ops.mark_remaining(order, sum(kept), marks))
    left = [sample for sample in expected[: len(kept_ids)] if sample not in set(visited)]
    assert remaining.build()[0] == len(left)
    assert ops.order(order, remaining, 0, len(left), device).tolist() == left
    unkept = [sample for sample, keep in zip(visited, kept[::3], strict=True) if not keep]
    assert faults[:4].tolist() == [0, 0, 0, len(unkept)]
    assert faults[5].item() in (unkept or [0])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_directory_holds_across_its_pieces_and_where_kept_marks_are_rare(device: torch.device, threads: int) -> None:
    slots = 2 * 4096 * 128 + 77  # blocks of 128 marks are counted in pieces of 4,096
    marks = torch.zeros(ops.mark_bytes(slots), dtype=torch.uint8, device=device)
    place = torch.arange(slots // 2, device=device)
    low, high = place % 3 > 0, place % 5 > 1  # kept bits of the two marks in a byte
    empty, full, rare = (place // 50_000 == region for region in (2, 3, 9))  # 100,000 marks each
    low, high = (((kept & ~empty & ~rare) | full | (rare & (place % 997 == 0))) for kept in (low, high))
    marks[: slots // 2] = low + 16 * high + 0xEE  # and all bits that do not count
    kept = torch.stack([low, high], 1).flatten().nonzero().flatten()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        directory = ops.BitDirectory(marks)
        assert directory.build()[0] == len(kept)
        order = ops.EpochOrder(
            ops.Shard(ops.identity_permutation(slots), 0, slots), ops.identity_permutation(len(kept)), directory.native
        )
        assert torch.equal(ops.order(order, None, 0, len(kept), device), kept)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("slots", [1, 9, 300, 100_003])
def test_what_remains_are_the_positions_whose_slots_were_not_visited(device: torch.device, slots: int, shuffle: bool) -> None:
    dice = torch.Generator().manual_seed(slots)
    nibbles = torch.randint(16, (slots,), generator=dice, dtype=torch.uint8)
    padded = torch.nn.functional.pad(nibbles, (0, 2 * ops.mark_bytes(slots) - slots))
    marks = (padded[::2] + 16 * padded[1::2]).to(device)
    directory = ops.BitDirectory(marks, slots)
    kept = int(directory.build()[0])
    slot_of = ((nibbles & 1) > 0).nonzero().flatten()
    positions = ops.shuffle_permutation(kept, 7, 1, 2) if shuffle else ops.identity_permutation(kept)
    remains = [int(not nibbles[slot_of[positions.apply(p)]] & 2) for p in range(kept)]
    order = ops.EpochOrder(ops.Shard(ops.identity_permutation(slots), 0, slots), positions, directory.native)
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found = ops.mark_remaining(order, kept, marks).tolist()
        finally:
            torch.set_num_threads(before)
        assert [mark for byte in found for mark in (byte & 15, byte >> 4)] == remains + [0] * (2 * len(found) - kept)


@pytest.mark.parametrize("slots", [1, 7, 8, 9, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025, 4096, 65536, 65537])
def test_marks_behind_the_last_slot_are_zero(device: torch.device, slots: int) -> None:
    table = torch.full((slots,), NAN, device=device)
    marks = torch.full((ops.mark_bytes(slots),), 0xFF, dtype=torch.uint8, device=device)
    ops.BitDirectory(marks, slots).draw_plan(table, 0, torch.zeros(3, device=device), tiers_of((65536,) * 4, device), 0, 0)
    assert marks.tolist() == [0x11] * (slots // 2) + [0x01] * (slots % 2) + [0] * (len(marks) - (slots + 1) // 2)


def test_scores_are_below_a_threshold_as_real_numbers_are(device: torch.device) -> None:
    """Signs, both zeros and subnormal numbers, also where torch flushes those to zero in arithmetic with floats."""
    tiniest = 2.0**-149
    values = [-3e38, -1.0, -2 * tiniest, -tiniest, -0.0, 0.0, tiniest, 2 * tiniest, 2.0**-126, 1.0, 3e38, NAN] * 100
    table = torch.tensor(values, dtype=torch.float32, device=device)
    marks = torch.zeros(ops.mark_bytes(len(values)), dtype=torch.uint8, device=device)
    all_kept = tiers_of((65536,) * 4, device)
    levels = [[level, float("-inf"), float("-inf")] for level in values[:11]] + [[2 * tiniest, 0.0, -tiniest]]
    for level in levels:
        thresholds = torch.tensor(level, dtype=torch.float32, device=device)
        flushed = torch.set_flush_denormal(True)
        try:
            ops.BitDirectory(marks, len(values)).draw_plan(table, 0, thresholds, all_kept, 1, 2)
        finally:
            torch.set_flush_denormal(False)
        tiers = [sum(value < threshold for threshold in level) for value in values]
        assert [mark >> 2 for byte in marks.tolist() for mark in (byte & 15, byte >> 4)][: len(values)] == tiers
    if not flushed:
        pytest.skip("this processor cannot flush denormals, so all but that was tested")


def test_a_rank_without_samples_takes_ids_that_it_does_not_hold(device: torch.device) -> None:
    """There is no table, so no address to add a slot to, which the sanitizers watch."""
    shard = ops.Shard(ops.deal_permutation(5, 0), 0, 0)
    table = torch.empty(0, device=device)
    marks = torch.zeros(ops.mark_bytes(0), dtype=torch.uint8, device=device)
    faults = torch.zeros(ops.NUM_FAULTS, dtype=torch.int64, device=device)
    recorder = ops.Recorder(shard, table, marks, faults, tiers_of((65536,) * 4, device))
    weights = recorder(torch.tensor([3, 0, 9], device=device), torch.ones(3, device=device))
    assert weights.tolist() == [1.0] * 3
    assert faults[1:3].tolist() == [1, 2]


def test_the_generator_of_the_oracle_gives_the_known_answers() -> None:
    """Random123's known answers, and the number that C++26 requires of std::philox4x32."""
    pi = (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == pi
    assert philox((2499, 0, 0, 0), (20111115, 0))[3] == 1955073260


@pytest.mark.parametrize("slots", [1, 127, 1000, 70_000])
def test_an_order_by_a_directory_that_was_written_over_leaves_no_array_and_ends(slots: int, device: torch.device) -> None:
    marks = torch.full((ops.mark_bytes(slots),), 0x11, dtype=torch.uint8, device=device)
    directory = ops.BitDirectory(marks, slots)
    shard = ops.Shard(ops.deal_permutation(slots, 5), 0, slots)
    order = ops.EpochOrder(shard, ops.shuffle_permutation(slots, 5, 1, 0), directory.native)
    dice = torch.Generator().manual_seed(slots)
    for _ in range(20):
        for array in (directory._ones_before, directory._hints, marks):
            bytes_of = array.view(torch.uint8)
            bytes_of.copy_(torch.randint(0, 256, bytes_of.shape, generator=dice, dtype=torch.uint8))
        for remaining in (None, directory):
            ids = ops.order(order, remaining, 0, slots, device)
            assert 0 <= int(ids.min()) <= int(ids.max()) < slots

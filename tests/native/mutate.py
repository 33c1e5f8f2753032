"""Faults put into copies of the kernels, one at a time. A build of the checks has to notice each, or the checks are worth nothing.

mutate.py plain|hooks --compile 'g++ FLAGS' --objects FILE.o ... --out DIRECTORY
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "emulator"))
from translate import translate

KERNELS = Path(__file__).parents[2] / "csrc" / "cuda"
FAILED, DEADLOCK = 1, 3  # exit statuses of the program that mean: noticed
SMALL = "largest=129"
EVERY = "largest=129 every=1"  # all thresholds: those with several tiers too
MIDDLE = "smallest=5001 largest=5001"
LONG = "smallest=2 largest=1 long_table=1100003"


@dataclass
class Fault:
    name: str
    file: str  # of csrc/cuda
    search: str  # stands there once
    replacement: str
    walk: str = SMALL
    unit: str = ""  # what is compiled, where the file is a header


# What comes out wrong.
PLAIN = [
    Fault(
        "sum: a lane adds up more than 64 bits hold",
        "window_sum.cuh",
        "kTilesPerSplit = 512 /",
        "kTilesPerSplit = 8192 /",
        LONG,
        "statistics",
    ),
    Fault(
        "sum: a tile with scores outside of the window counts those within it twice",
        "window_sum.cuh",
        " || steps_above(bits, low) < kWindowSteps",
        "",
        unit="statistics",
    ),
    Fault("sum: a score of each tile is not seen", "statistics.cu", "seen += kLaneScores;", "seen += kLaneScores - 1;", MIDDLE),
    Fault(
        "last block: the first one goes on",
        "parallel.cuh",
        "gridDim.x - 1) == gridDim.x - 1;",
        "gridDim.x - 1) == 0;",
        MIDDLE,
        "statistics",
    ),
    Fault(
        "narrow: one changes the rank before all have read it",
        "statistics.cu",
        "    __syncthreads();  // all have read what one is to change\n",
        "",
    ),
    Fault(
        "narrow: the rank is read before it is there",
        "statistics.cu",
        "    __syncthreads();  // the state is there, and the scan's storage free again\n",
        "",
    ),
    Fault("histogram: other tiers count", "histogram.cu", " && (counted >> i & 1) != 0", ""),
    Fault("histogram: edges end with a zero", "histogram.cu", "args.edges[i] : kNoKey", "args.edges[i] : 0"),
    Fault(
        "tiers: the weights are left out",
        "plan.cu",
        "*args.tiers = tiers_of(args.cutoffs, args.scale);",
        "args.tiers->cutoffs = args.cutoffs;",
    ),
    Fault(
        "importance: a bin takes the place of the one before",
        "importance.cu",
        "__popc(occupied & before)] = {count",
        "max(0, __popc(occupied & before) - 1)] = {count",
    ),
    Fault("importance: factors are left out of the search", "importance.cu", "step * (lane + 1) - 1;", "step * (lane + 1);"),
    Fault(
        "importance: protected samples are in the budget",
        "importance.cu",
        "digit < kEndOfFinite ? args",
        "digit < kEndOfSeen ? args",
    ),
    Fault("importance: every second protected sample counts", "statistics.cu", "& 0xFu : 0;", "& 0x5u : 0;"),
    Fault("draw: a tier has the cutoff of another", "plan.cu", "level_of(cutoffs, 2)", "level_of(cutoffs, 1)", EVERY),
    Fault("draw: marks behind the last slot", "plan.cu", "if (filled < kRowSlots) marks &=", "if (filled < 0) marks &="),
    Fault(
        "directory: the block before is left out",
        "plan.cu",
        "block < blockIdx.x; block",
        "block + 1 < blockIdx.x; block",
        MIDDLE,
    ),
    Fault(
        "directory: a block's second part begins anew",
        "plan.cu",
        "    running += total;\n",
        "    if (end == num_entries) running += total;\n",
        LONG,
    ),
    Fault("counts: the padding is in tier 0", "plan.cu", "{args.num_marks, sums[0]}", "{(args.num_marks + 7) / 8 * 8, sums[0]}"),
    Fault("record: a tier has the weight of another", "record.cu", "tier & 2 ? high : low", "low", EVERY),
    Fault("record: a weight is not shared", "record.cu", "tier_of_mark(mark)) * args.share", "tier_of_mark(mark))"),
    Fault("record: scores come before the last claim of a block", "record.cu", "  else __syncthreads();\n", "", MIDDLE),
    Fault("record: scores come before the last claim of a cluster", "record.cu", "cluster_barrier();", "__syncthreads();", MIDDLE),
    Fault(
        "record: the first of several scores stays",
        "record.cu",
        "atomicMax(score_word(args, slot), kClaim + static_cast<std::uint32_t>(i))",
        "atomicMax(score_word(args, slot), kClaim + 1023u - static_cast<std::uint32_t>(i % 1024))",
    ),
    Fault("record: scores alone visit", "record.cu", "args.visits ? atomicOr", "true ? atomicOr"),
    Fault("record: what is not kept is not counted", "record.cu", "args.visits && (mark & kKeptMark) == 0", "false"),
    Fault(
        "record: a warp's faults count as one",
        "record.cu",
        "atomic_add(faults + fault, __popc(lanes))",
        "atomic_add(faults + fault, 1)",
    ),
    Fault(
        "record: a part is blended with what the part before has stored",
        "record.cu",
        "    claim_kernel<<<",
        "    if (start > 0 && blends(args.momentum)) {\n"
        "      Record late = part;\n"
        "      late.new_scores = args.new_scores + start;\n"
        "      blend_kernel<<<blocks, kRecordBlock, 0, stream_of(stream)>>>(late);\n"
        "    }\n"
        "    claim_kernel<<<",
        "smallest=2 largest=1 large_records=1",
    ),
    Fault(
        "record: blended scores are left where weights are to be",
        "record.cu",
        "  if (finite) store(args, i, item);\n",
        "  if (finite) return store(args, i, item);\n",
        MIDDLE,
    ),
    Fault("record: a cluster that has no room", "record.cu", "clusters > 0;", "clusters >= 0;", MIDDLE),
    Fault("order: visited positions remain", "order.cu", "& kVisitedMark) == 0", "& kVisitedMark) != 8"),
]

# What one run in a million would show, and what no comparison can.
HOOKS = [
    Fault(
        "sum: limbs are added to before they are zero",
        "statistics.cu",
        "limbs.words[i] = 0;\n  __syncthreads();",
        "limbs.words[i] = 0;",
    ),
    Fault("digits: bins are counted before they are zero", "statistics.cu", "bins[i] = 0;\n  __syncthreads();", "bins[i] = 0;"),
    Fault(
        "histogram: bins are counted before they are zero",
        "histogram.cu",
        "bins[i] = 0;\n  __syncthreads();",
        "bins[i] = 0;",
    ),
    Fault(
        "sum: reads behind the last score",
        "statistics.cu",
        "kQuadStride, args.num_slots, scores);",
        "kQuadStride, args.num_slots + 3, scores);",
    ),
    Fault("last block: no fence", "parallel.cuh", "  __threadfence();\n", "", MIDDLE, "statistics"),
    Fault(
        "last block: no barrier before the ticket",
        "parallel.cuh",
        "  __threadfence();\n  __syncthreads();\n",
        "  __threadfence();\n",
        MIDDLE,
        "statistics",
    ),
    Fault(
        "directory: the scan's storage is not free",
        "plan.cu",
        "    __syncthreads();  // the scan's storage is free again\n",
        "",
        LONG,
    ),
    Fault("directory: more entries than there are", "plan.cu", " && entry < num_entries) index", ") index"),
    Fault("tally: warps add in turn, unguarded", "plan.cu", "atomic_add(&of_block[i], of_warp)", "of_block[i] += of_warp"),
    Fault(
        "record: a score is blended with a claim",
        "record.cu",
        "    batch_barrier<kCluster>();\n  }\n",
        "  }\n",
    ),
    Fault("order: one id too many", "order.cu", "i < args.count; i +=", "i <= args.count; i +="),
    Fault(
        "order: a pointer of the host is followed",
        "order.cu",
        "remaining.words ? select_slot(remaining, place)",
        "args.remaining ? select_slot(*args.remaining, place)",
    ),
]


def plant(fault: Fault, folder: Path) -> Path:
    """Writes translated kernels with the fault in them. Returns the one to compile."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in [*KERNELS.glob("*.cu"), *KERNELS.glob("*.cuh"), *KERNELS.glob("*.h")]:
        text = source.read_text()
        if source.name == fault.file:
            if text.count(fault.search) != 1:
                raise LookupError(f"stands {text.count(fault.search)} times in {fault.file}, and once is wanted: {fault.search!r}")
            text = text.replace(fault.search, fault.replacement)
        name = source.with_suffix(".cpp").name if source.suffix == ".cu" else source.name
        (folder / name).write_text(translate(text, source.name))
    return folder / f"{fault.unit or Path(fault.file).stem}.cpp"


def notice(fault: Fault, compiler: list[str], objects: list[str], folder: Path) -> str:
    """What the checks say of the fault."""
    unit = plant(fault, folder)
    changed, program = unit.with_suffix(".o"), folder / "checks"
    subprocess.run([*compiler, "-w", "-c", str(unit), "-o", str(changed)], check=True)
    others = [name for name in objects if Path(name).name != f"cuda_{unit.stem}.o"]
    subprocess.run([compiler[0], *others, str(changed), "-o", str(program)], check=True)
    walk = ["every=16", "random_rounds=4", "stop=1", *fault.walk.split()]
    run = subprocess.run([str(program), *walk], check=False, stdout=subprocess.PIPE, text=True, timeout=300)
    reports = [line for line in run.stdout.splitlines() if line.startswith(("DIFFERENT", "FAILED", "EMULATOR"))]
    if run.returncode not in (FAILED, DEADLOCK) or not reports:
        raise LookupError(f"was not noticed (exit status {run.returncode})")
    return reports[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", choices=["plain", "hooks"])
    parser.add_argument("--compile", required=True, type=shlex.split)
    parser.add_argument("--objects", required=True, nargs="+")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    faults = PLAIN if args.build == "plain" else HOOKS
    missed = 0
    for number, fault in enumerate(faults):
        try:
            print(f"{fault.name}: {notice(fault, args.compile, args.objects, args.out / str(number))}")
        except (LookupError, subprocess.SubprocessError) as error:
            missed += 1
            print(f"NOT NOTICED {fault.name}: {error}")
    print(f"{args.build}: {len(faults)} faults planted, {missed} not noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

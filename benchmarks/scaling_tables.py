"""The tables of docs/scaling.md, from what bench_scaling.py wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pages import fill, machine_of, run_of, table
from scaling_measured import PARTS

from infobatch_fast.bench.table import size_name, spread_cell, time_cell, time_name


def write_tables(result: dict[str, Any], page: Path) -> None:
    """Replaces what stands between the marks of the page."""
    fill(page, "paper", on_paper(result["paper"]))
    fill(page, "measured", measured(result))
    fill(page, "balance", balance(result))


def bytes_name(count: float) -> str:
    """Bytes with decimal prefixes and three figures."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def on_paper(paper: dict[str, Any]) -> list[str]:
    rows: dict[int, list[str]] = {}
    for row in paper["memory"]:
        rows.setdefault(row["n"], []).append(bytes_name(sum(row["bytes"].values())))
    states = {row["n"]: bytes_name(row["state_bytes"]) for row in paper["memory"]}
    worlds = list(dict.fromkeys(row["world"] for row in paper["memory"]))
    lines = ["Memory of the rank that owns most, and the state in a checkpoint (all ranks together):", ""]
    head = ["N", *(f"W = {world}" for world in worlds), "state"]
    lines += table(head, ([size_name(n), *cells, states[n]] for n, cells in rows.items()))
    lines += ["", "Bytes that a rank hands to the collective calls of one epoch, and gathers from all, whatever N:", ""]
    rows_sent = []
    for each in paper["traffic"]:
        *reduced, gathered = each["each_epoch"]
        cells = [f"{len(reduced)} x {reduced[0]:,} B", f"{gathered} B", *(bytes_name(gathered * world) for world in worlds[1:])]
        rows_sent.append([each["policy"], *cells, f"{each['first_epoch'][0]} B"])
    head = ["policy", "all-reduce", "all-gather, own part", *(f"all parts, W = {world}" for world in worlds[1:]), "once a run"]
    return lines + table(head, rows_sent)


def measured(result: dict[str, Any]) -> list[str]:
    runs: dict[str, list[str]] = {}
    for name in PARTS:
        if made_by := result.get(name, {}).get("made_by"):
            runs.setdefault(run_of(made_by), []).append(name)
    origins = "; ".join(f"{', '.join(names)}: {run}" for run, names in runs.items())
    lines = [f"{machine_of(result)}; {origins}.", "Medians with quartiles in brackets (with fewer than four runs: the range).", ""]
    rows = []
    for part, what in (("share", "one rank of 64, the others simulated"), ("whole", "one process")):
        each = result.get(part, {"left_out": "not run"})
        if "left_out" in each:
            lines += [f"{what}: left out, {each['left_out']}.", ""]
            continue
        held = f"{bytes_name(sum(each['table_bytes'].values()))} allocated, {bytes_name(each['resident_bytes'])} resident"
        plans = (time_cell(each["plan_seconds"][policy]) for policy in ("mean", "quantile tiers"))
        samples = (time_cell(each[f"{what}_seconds_per_sample"]) for what in ("order", "update"))
        rows.append([f"N = {size_name(each['n'])}, {what}", f"{each['slots']:,}", held, *plans, *samples])
    head = ["what", "samples of the rank", "memory", "plan, mean", "plan, quantile tiers", "order, a sample", "update, a sample"]
    lines += table(head, rows)
    if "restart" in result.get("whole", {}):
        restart, checked = result["whole"]["restart"], result["whole"]["checked"]
        lines += [
            "",
            f"N = {size_name(result['whole']['n'])}: {checked['positions']} positions up to {checked['last_position']:,} were "
            f"computed again in plain Python (samples up to {checked['largest_id']:,}), with a count of all kept marks before "
            f"them. A restart in mid-epoch checked the state in {time_name(restart['check_seconds'])} and planned the "
            f"{restart['positions']:,} positions left in {time_name(restart['plan_seconds'])}.",
        ]
    return lines


def balance(result: dict[str, Any]) -> list[str]:
    rows: dict[int, list[str]] = {}
    for row in result["paper"]["balance"]:
        rows.setdefault(row["n"], []).append(f"{100 * row['padding']:.2g} %")
    worlds = list(dict.fromkeys(row["world"] for row in result["paper"]["balance"]))
    lines = ["Expected padding, in percent of the kept samples, with 70 % kept (arithmetic):", ""]
    lines += table(["N", *(f"W = {world}" for world in worlds)], ([size_name(n), *cells] for n, cells in rows.items()))
    if "worlds" not in result.get("balance", {}):
        return lines
    counted = []
    for row in result["balance"]["worlds"]:
        expected = row["expected"]
        deviation = f"{row['deviation']['median']:,.0f} ({expected['deviation']:,.0f})"
        padding = f"{100 * expected['padding']:.2g} %"
        counted.append([str(row["world"]), f"{expected['mean']:,.0f}", deviation, spread_cell(row["padding"], 0.01, "%"), padding])
    lines += ["", f"Counted in the plans of a run at N = {size_name(result['balance']['n'])}:", ""]
    head = ["W", "kept a rank, mean", "standard deviation over ranks (expected)", "padding", "expected padding"]
    return lines + table(head, counted)

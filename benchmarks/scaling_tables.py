"""The tables of docs/scaling.md, from what bench_scaling.py wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"


def write_tables(result: dict[str, Any], page: Path) -> None:
    """Replaces what stands between the markers of the page."""
    text = page.read_text()
    for name, lines in {"paper": on_paper(result["paper"]), "measured": measured(result), "balance": balance(result)}.items():
        head, _, rest = text.partition(BEGIN.format(name))
        _, _, tail = rest.partition(END.format(name))
        text = f"{head}{BEGIN.format(name)}\n{chr(10).join(lines)}\n{END.format(name)}{tail}"
    page.write_text(text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] + ["--:"] * (len(head) - 1), *rows)]


def size(count: float) -> str:
    """Bytes with decimal prefixes and three figures."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 999.5 else f"{count:.0f} TB"


def power(n: int) -> str:
    digits = str(n).rstrip("0")
    return f"{digits + 'e' if digits != '1' else '1e'}{len(str(n)) - len(digits)}"


def time_of(spread: dict[str, Any], scale: float, unit: str) -> str:
    return f"{spread['median'] * scale:.3g} {unit} [{spread['low'] * scale:.3g}, {spread['high'] * scale:.3g}]"


def on_paper(paper: dict[str, Any]) -> list[str]:
    rows: dict[int, list[str]] = {}
    states = {}
    for row in paper["memory"]:
        rows.setdefault(row["n"], []).append(size(sum(row["bytes"].values())))
        states[row["n"]] = size(row["state_bytes"])
    worlds = list(dict.fromkeys(row["world"] for row in paper["memory"]))
    lines = ["Memory of the rank that owns most, and the state in a checkpoint (all ranks together):", ""]
    head = ["N", *(f"W = {world}" for world in worlds), "state"]
    lines += table(head, [[power(n), *cells, states[n]] for n, cells in rows.items()])
    lines += ["", "Bytes that a rank hands to the collective calls of one epoch, and gathers from all, whatever N:", ""]
    rows_sent = []
    for each in paper["traffic"]:
        reduced, gathered = each["each_epoch"][:-1], each["each_epoch"][-1]
        once = each["first_epoch"][0]
        cells = [f"{len(reduced)} x {reduced[0]:,} B", f"{gathered} B", *(size(gathered * world) for world in worlds[1:])]
        rows_sent.append([each["policy"], *cells, f"{once} B"])
    head = ["policy", "all-reduce", "all-gather, own part", *(f"all parts, W = {world}" for world in worlds[1:]), "once a run"]
    return lines + table(head, rows_sent)


def origins(result: dict[str, Any]) -> str:
    """Commit and command of each run that the figures come from."""
    runs: dict[str, list[str]] = {}
    for name, part in result.items():
        if isinstance(part, dict) and "made_by" in part:
            made_by = part["made_by"]
            runs.setdefault(f"commit {str(made_by['commit'])[:10]}, `{made_by['command']}`", []).append(name)
    return "; ".join(f"{', '.join(names)}: {run}" for run, names in runs.items())


def measured(result: dict[str, Any]) -> list[str]:
    machine, versions = result["machine"], result["versions"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB; torch {versions['torch']}, Python "
        f"{versions['python']}, {result['threads']} threads; {origins(result)}.",
        "Medians with quartiles in brackets (with fewer than four runs: the range).",
        "",
    ]
    rows = []
    for part, what in (("share", "one rank of 64, the others simulated"), ("whole", "one process")):
        each = result.get(part, {"left_out": "not run"})
        if "left_out" in each:
            lines += [f"{what}: left out, {each['left_out']}.", ""]
            continue
        held = f"{size(sum(each['table_bytes'].values()))} allocated, {size(each['resident_bytes'])} resident"
        rows.append(
            [
                f"N = {power(each['n'])}, {what}",
                f"{each['slots']:,}",
                held,
                time_of(each["plan_seconds"]["mean"], 1, "s"),
                time_of(each["plan_seconds"]["quantile tiers"], 1, "s"),
                time_of(each["order_seconds_per_sample"], 1e9, "ns"),
                time_of(each["update_seconds_per_sample"], 1e9, "ns"),
            ]
        )
    gloo = result.get("gloo", {"left_out": "not run"})
    if "left_out" in gloo:
        lines += [f"4 gloo ranks: left out, {gloo['left_out']}.", ""]
    else:
        slowest = max(gloo["ranks"], key=lambda rank: rank["plan_seconds"]["mean"]["median"])
        held = f"{size(sum(slowest['table_bytes'].values()))} allocated, {size(slowest['resident_bytes'])} resident"
        plans = [time_of(slowest["plan_seconds"][name], 1, "s") for name in ("mean", "quantile tiers")]
        update = time_of(slowest["update_seconds_per_sample"], 1e9, "ns")
        name = f"N = {power(slowest['n'])}, the slowest of 4 gloo ranks"
        rows.append([name, f"{slowest['slots']:,}", held, *plans, "-", update])
    head = ["what", "samples of the rank", "memory", "plan, mean", "plan, quantile tiers", "order, a sample", "update, a sample"]
    lines += table(head, rows)
    if "restart" in result.get("whole", {}):
        restart, checked = result["whole"]["restart"], result["whole"]["checked"]
        lines += [
            "",
            f"N = {power(result['whole']['n'])}: {checked['positions']} positions up to {checked['last_position']:,} were "
            f"computed again in plain Python (samples up to {checked['largest_id']:,}), with a count of all kept marks before "
            f"them. A restart in mid-epoch checked the state in {restart['check_seconds']:.3g} s, with "
            f"{size(restart['peak_bytes_while_loading'])} more than before at its peak, and planned the {restart['positions']:,} "
            f"positions left in {restart['plan_seconds']:.3g} s, for which it holds {size(restart['more_bytes'])} until the next "
            "epoch.",
        ]
    if "left_out" not in gloo:
        worst = {key: max(rank[key] for rank in gloo["ranks"]) for key in ("save_seconds", "load_seconds", "restore_seconds")}
        lines += [
            "",
            f"The 4 gloo ranks wrote their state by torch.distributed.checkpoint, {size(gloo['ranks'][0]['state_bytes'])}, in "
            f"{worst['save_seconds']:.3g} s, read it in {worst['load_seconds']:.3g} s and planned the rest of the epoch in "
            f"{worst['restore_seconds']:.3g} s (once each, to the local disk).",
        ]
    return lines


def balance(result: dict[str, Any]) -> list[str]:
    rows: dict[int, list[str]] = {}
    for row in result["paper"]["balance"]:
        rows.setdefault(row["n"], []).append(f"{100 * row['padding']:.2g} %")
    worlds = list(dict.fromkeys(row["world"] for row in result["paper"]["balance"]))
    lines = ["Expected padding, in percent of the kept samples, with 70 % kept (arithmetic):", ""]
    lines += table(["N", *(f"W = {world}" for world in worlds)], [[power(n), *cells] for n, cells in rows.items()])
    measured_rows = []
    for row in result.get("balance", {}).get("worlds", []):
        expected = row["expected"]
        kept = f"{expected['mean']:,.0f}"
        deviation = f"{row['deviation']['median']:,.0f} ({expected['deviation']:,.0f})"
        padding = f"{time_of(row['padding'], 100, '%')} ({100 * expected['padding']:.2g} %)"
        measured_rows.append([str(row["world"]), kept, deviation, padding])
    head = ["W", "kept a rank, mean", "standard deviation over ranks (expected)", "padding (expected)"]
    if measured_rows:
        lines += ["", f"Counted in the plans of a run at N = {power(result['balance']['n'])}:", "", *table(head, measured_rows)]
    if "own" in result.get("gloo", {}):
        gloo = result["gloo"]
        own = ", ".join(f"{count:,}" for count in gloo["own"])
        lines += ["", f"The 4 gloo ranks kept {own}: {100 * gloo['padding']:.2g} % of padding."]
    return lines

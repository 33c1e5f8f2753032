"""A page with the picture inside: one HTML file that needs no other."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import Any

from ..logs import RunLog
from .savings import clock, every, summarise

STYLE = "body{font:15px sans-serif;margin:2em auto;max-width:70em}img{max-width:100%}td,th{padding:.1em .8em;text-align:right}"
MOST_ROWS = 2000
HEAD = ("epoch", "kept", "saved", "thresholds", "seen", "added noise", "not finite", "seconds", "seconds of the plan")


def make(run: RunLog, picture: bytes) -> str:
    """The page."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in summarise(run.epochs))
    shown = every(run.epochs, MOST_ROWS)
    table = _row("th", HEAD) + "".join(_row("td", _cells(epoch)) for epoch in shown)
    if len(shown) < len(run.epochs):
        lines += f"<p>The table has {len(shown):,} of {len(run.epochs):,} epochs, evenly spaced.</p>"
    starts = "".join(f"<li>{escape(_start(start))}</li>" for start in run.starts)
    image = f'<img alt="kept, saved, thresholds and scores by epoch" src="data:image/png;base64,{b64encode(picture).decode()}">'
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>infobatch_fast: a run</title><style>{STYLE}</style>'
        f"</head><body><h1>What pruning kept and saved</h1>{lines}{image}<table>{table}</table><h2>Made by</h2><ul>{starts}</ul>"
        "</body></html>\n"
    )


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _cells(epoch: dict[str, Any]) -> tuple[str, ...]:
    thresholds = ", ".join("inf" if value is None else f"{value:.4g}" for value in epoch["thresholds"]) or "-"
    seconds = clock(epoch["seconds"]) if epoch.get("seconds") else "-"
    number = f"{epoch['epoch']}{' (resumed)' if epoch.get('resumed') else ''}"
    kept, seen, lost = (f"{epoch[name]:,}" for name in ("kept", "seen", "non_finite"))
    noise = f"{epoch['added_noise']:.3g}" if "added_noise" in epoch else "-"  # older versions did not write it
    return number, kept, f"{epoch['saved_fraction']:.1%}", thresholds, seen, noise, lost, seconds, f"{epoch['plan_seconds']:.2g}"


def _start(start: dict[str, Any]) -> str:
    machine, versions, arguments = (start.get(name, {}) for name in ("machine", "versions", "arguments"))
    gpus = ", ".join(str(gpu["name"]) for gpu in machine.get("gpus", ())) or "no GPU"
    made_by = (
        f"{start.get('started')}: {start.get('command')}, commit {start.get('commit') or 'unknown'}, on "
        f"{machine.get('cores')} cores of {machine.get('cpu')}, {gpus}"
    )
    shown = [*versions.items(), *arguments.items()]
    return f"{made_by}; {', '.join(f'{name}={value}' for name, value in shown)}"

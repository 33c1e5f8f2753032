"""Makes the tables and pictures of the study from the files of run.py and fast.py.

    python examples/study/report.py benchmarks/results/study-*.json

Tables go between their markers into docs/study.md and docs/steps.md, pictures into docs/study, and everything that was measured
into benchmarks/results/study.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from methods import METHODS
from plots import draw
from results import TITLES, Series, read
from tables import Row, costs, differences, levels, opponent, rates

AT_EQUAL_VISITS = {  # what is compared with full data and with fewer epochs
    "50 %": ("fewer-50", "uniform-50", "importance-50", "importance-50-low", "importance-50-biased"),
    "70 %": ("fewer-70", "importance-70"),
    "InfoBatch's": ("fewer", "uniform", "infobatch", "infobatch-large"),
}
NAMED = {  # forms of one method
    "infobatch": "mean threshold, as published",
    "infobatch-large": "mean threshold, by visits",
}
BESIDE_FULL = ("fewer-50", "importance-50", "importance-50-low", "fewer-70", "importance-70", "fewer", "infobatch")
RATED = (
    *("full", "fewer-50", "uniform-50", "uniform-50-epoch", "importance-50", "importance-50-epoch"),
    *("fewer", "infobatch", "infobatch-step"),
)
PAID = ("full", "infobatch")
CHANGES = {  # what is changed, from one form of a method to another
    "larger steps to full size, by epochs": ("epoch", "early"),
    "larger steps to full size, by visits": ("large", "step"),
    "by epochs to by visits, larger steps": ("epoch", "large"),
    "by epochs to by visits, steps of full size": ("early", "step"),
    "both": ("epoch", "step"),
}
FORMS = {
    "uniform": {"epoch": "uniform-50-epoch", "large": "uniform-50-large", "early": "uniform-50-early", "step": "uniform-50"},
    "importance": {
        "epoch": "importance-50-epoch",
        "large": "importance-50-large",
        "early": "importance-50-early",
        "step": "importance-50",
    },
    "InfoBatch": {"epoch": "infobatch", "large": "infobatch-large", "early": "infobatch-early", "step": "infobatch-step"},
}


def fill(document: str, name: str, text: str) -> str:
    """``document`` with ``text`` between the markers of ``name``."""
    pattern = re.compile(rf"(<!-- study:{re.escape(name)}:begin -->\n).*?(<!-- study:{re.escape(name)}:end -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"the document has no markers <!-- study:{name}:begin --> and <!-- study:{name}:end -->: add them")
    return pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", document)


def rows_to(rival: str) -> list[Row]:
    """Each method beside full data, or beside as many visits in full epochs ("")."""
    return [
        (f"{visits}: {NAMED.get(name, METHODS[name].title)}", name, rival or opponent(name))
        for visits, names in AT_EQUAL_VISITS.items()
        for name in names
        if (name in BESIDE_FULL if rival else METHODS[name].draw != "all")
    ]


def rows_of_steps() -> list[Row]:
    return [(f"{draw}: {title}", forms[new], forms[old]) for draw, forms in FORMS.items() for title, (old, new) in CHANGES.items()]


def rated(series: Sequence[Series], name: str) -> str:
    """A workload at all its learning rates; methods that are not there at all of them are left out."""
    of_name = sorted((one for one in series if one.name == name), key=lambda one: one.rate)
    shared = set.intersection(*(set(one.methods) for one in of_name)) if len(of_name) > 1 else set()
    names = [key for key in RATED if key in shared and (METHODS[key].draw == "all" or opponent(key) in shared)]
    return rates(of_name, names, "accuracy") if names else ""


def study_tables(series: list[Series]) -> dict[str, str]:
    """What goes between the markers of docs/study.md."""
    own = [one for one in series if one.rate == 1]
    return {
        "to-full": differences(own, rows_to("full"), "accuracy"),
        "accuracy": differences(own, rows_to(""), "accuracy"),
        "likelihood": differences(own, rows_to(""), "nll"),
        "rates": rated(series, "cifar"),
        "costs": costs([one for one in own if one.name not in ("redundant", "tail")], PAID),  # those cost what "cifar" does
    }


def everything(series: list[Series]) -> str:
    parts = [
        "# All runs of the study\n\n`examples/study/report.py` makes this page of the JSON files beside it; "
        "[study.md](../../docs/study.md) says what follows. ± is the standard deviation over the seeds. Differences are paired by "
        "seed, with 95 % intervals, in bold where zero lies outside; they are not corrected for how many of them there are. "
        "Likelihood is the negative one: less is better. Added noise is 1 for uniform pruning."
    ]
    for one in series:
        rate = f", learning rate x{one.rate:g}" if one.rate != 1 else ""
        parts += [f"## {one.title}{rate}", one.note, levels(one)]
    for name in ("cifar", "digits"):
        if table := rated(series, name):
            parts += [f"## {TITLES[name]}: learning rates", table]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="study-NAME.json")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of study.md and steps.md")
    parser.add_argument("--all", type=Path, default=Path("benchmarks/results/study.md"), help="page of all runs")
    args = parser.parse_args()
    names = list(TITLES)
    series = [one for path in args.files for one in read(path) if "full" in one.methods]
    if not series or not args.all.parent.is_dir():
        parser.error(f"no file has runs of 'full', or the folder of --all {args.all} does not exist: nothing was changed")
    series.sort(key=lambda one: names.index(one.name) if one.name in names else len(names))

    page = (args.docs / "study.md").read_text()
    for name, text in study_tables(series).items():
        page = fill(page, name, text)
    (args.docs / "study.md").write_text(page)
    stepped = [one for one in series if one.rate == 1 and any({new, old} <= one.methods.keys() for _, new, old in rows_of_steps())]
    page = (args.docs / "steps.md").read_text()
    for value in ("accuracy", "nll"):
        page = fill(page, f"steps-{value}", differences(stepped, rows_of_steps(), value))
    (args.docs / "steps.md").write_text(page)
    args.all.write_text(everything(series))
    for one in series:
        if one.rate == 1:
            draw(one, args.docs / "study" / f"{one.name}.png")


if __name__ == "__main__":
    main()

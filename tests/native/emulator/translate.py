"""Kernels for g++: launches and declarations of shared memory are rewritten, line by line; all else is C++ as it stands."""

import argparse
import re
from pathlib import Path

LAUNCH = re.compile(r"(\w+(?:<\w+>)?)<<<(.+?)>>>\(")
SHARED = re.compile(r"__shared__ ((?:typename )?[\w:]+) (\w+)((?:\[[^]]+\])*);")


def translate(text: str, name: str) -> str:
    """The text of a file of this name."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        shared = SHARED.sub(rf'auto& \2 = emulator::shared<\1\3>("\2 ({name}:{number})");', line)
        translated = LAUNCH.sub(r'emulator::launch("\1", \1, \2)(', shared)
        if "__shared__" in translated or "<<<" in translated:
            raise SystemExit(f"{name}:{number}: the emulator has no translation of: {line.strip()}")
        lines.append(translated)
    return f'#line 1 "{name}"\n' + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    args.target.parent.mkdir(parents=True, exist_ok=True)
    args.target.write_text(translate(args.source.read_text(), args.source.name))


if __name__ == "__main__":
    main()

"""Who may include and import whom where the import linter does not look: native code, the native module, examples, documents."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ("torch/", "ATen/", "c10/", "pybind11/", "Python.h")
# Folders of csrc, and what of it each may include.
MAY_INCLUDE = {"core": {"core"}, "cpu": {"core", "cpu", "backends.h"}, "cuda": {"core", "cuda", "backends.h"}}


def includes(file: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', file.read_text(), re.MULTILINE)


def folder_of(include: str, file: Path) -> str | None:
    """The folder of csrc that an included file lies in; None for one of another project."""
    for path in (file.parent / include, ROOT / "csrc" / include):
        if path.exists():
            return path.resolve().relative_to(ROOT / "csrc").parts[0]
    return None


@pytest.mark.parametrize("folder", MAY_INCLUDE)
def test_native_folders_include_only_what_stands_below_them_and_no_framework(folder: str) -> None:
    files = [file for file in (ROOT / "csrc" / folder).rglob("*") if file.suffix in (".h", ".cpp", ".cu", ".cuh")]
    assert files
    found = {(file.name, include): folder_of(include, file) for file in files for include in includes(file)}
    assert any(found.values()), "includes of the project's own are found"
    above = {entry for entry, where in found.items() if where is not None and where not in MAY_INCLUDE[folder]}
    assert not above
    assert not [include for _, include in found if include.startswith(FRAMEWORKS)]


def test_one_module_imports_the_native_core() -> None:
    importing = re.compile(r"^\s*(from \S+ import .*\b_core\b|from \S*_core import|import \S*_core\b)", re.MULTILINE)
    modules = [file for file in (ROOT / "infobatch_fast").rglob("*.py") if importing.search(file.read_text())]
    assert [module.relative_to(ROOT).as_posix() for module in modules] == ["infobatch_fast/engine/ops.py"]


def test_examples_and_documents_show_the_face_alone() -> None:
    shown = [*(ROOT / "examples").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    assert len(shown) > 10
    assert not [file.name for file in shown if re.search(r"infobatch_fast\.engine|import engine|\.engine\b", file.read_text())]

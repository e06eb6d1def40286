"""docs/scaling.md lists every function whose code has a branch for a GPU, and whether that branch has run on one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(?P<file>[\w/]+\.py)` \| `(?P<function>[\w.]+)` \| (?P<what>[^|]+) \| (?P<run>[^|]+) \|$", re.M)
NAME_OF_DEVICE = re.compile(r"cuda(:\d+)?|CUDA_VISIBLE_DEVICES|CUDAExecutionProvider|nccl|nvidia-smi|get_num_gpus")
NAME_IN_CODE = re.compile(r"cuda|CUDA|is_cuda|\w*_gpus?|StandardGpu\w*")


def speaks_of_cuda(node: ast.AST) -> bool:
    """Whether code names the device or asks torch for it: not in a docstring, a type or a sentence."""
    if isinstance(node, ast.Attribute):
        return bool(NAME_IN_CODE.fullmatch(node.attr))
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(NAME_OF_DEVICE.fullmatch(node.value))


def branches(node: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted names of the functions whose code speaks of CUDA; `module` for what is in none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.AnnAssign):
            parts: list[ast.AST] = [] if child.value is None else [child.value]
        else:
            parts = [child]
        for part in parts:
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                body = ast.Module(body=part.body, type_ignores=[])
                yield from branches(body, (*inside, part.name))
            else:
                if speaks_of_cuda(part):
                    yield ".".join(inside) or "module"
                yield from branches(part, inside)


def in_the_source() -> set[tuple[str, str]]:
    package = ROOT / "src/cusa"
    return {
        (str(path.relative_to(package)), name)
        for path in sorted(package.rglob("*.py"))
        for name in branches(ast.parse(path.read_text()))
    }


def rows() -> list[re.Match[str]]:
    section = (ROOT / "docs/scaling.md").read_text().split("## What has run on a GPU")[1].split("\n## ")[0]
    return list(ROW.finditer(section))


def test_the_finder_finds_every_form_and_no_sentence():
    code = '''
"""cuda"""
DEVICES = ["cuda"]
def asks(device): return torch.cuda.is_available()
def compares(device): return device.type == "cuda"
def says(device: "cuda"): raise ValueError("expected cpu or cuda.")
class Timer:
    ready: torch.cuda.Event | None = None
    def wait(self):
        with inner(): self.ready = [torch.device("cuda:0")]
'''
    assert set(branches(ast.parse(code.replace('"""cuda"""', '"""A docstring of cuda."""')))) == {
        "module",
        "asks",
        "compares",
        "Timer.wait",
    }


def test_every_branch_is_listed_once_and_nothing_else():
    listed = [(row["file"], row["function"]) for row in rows()]
    assert len(listed) == len(set(listed))
    assert set(listed) == in_the_source()


def test_each_row_says_whether_it_has_run():
    for row in rows():
        assert row["run"] == "not run" or re.fullmatch(r"run on .+, \d{4}-\d\d-\d\d", row["run"]), row[0]

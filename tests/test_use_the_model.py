"""The pages on using a model are followed from top to end: every snippet runs, in a directory as `make demo` leaves it.

Tiny models and pictures of shapes are in the place of the demo's. What cannot run has a comment above that says why.
"""

from __future__ import annotations

import io
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from cusa import cli
from cusa.annotations.tables import IMAGES, read_table
from cusa.config.configuration import load
from cusa.index.build import build_index
from cusa.layout import DatasetFolder
from cusa.training.loop import train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
# In this order, because commands of a page use what those before have written.
PAGES = [ROOT / f"docs/{name}.md" for name in ("use-the-model", "export", "search", "search-page", "vector-databases")]
NOT_RUN = re.compile(r"<!-- not run by the tests: (.+) -->")
LANGUAGES = {"python", "bash"}
SHOWN = {"json", "text", "yaml", "sql", ""}  # what is shown, not run; tests/test_documentation.py reads the YAML
ELSEWHERE = {"snakemake", "make", "pip"}  # commands that tests/test_documentation.py tries


class Snippet(NamedTuple):
    page: str
    line: int
    language: str
    code: str
    reason: str | None  # why it is not run


def snippets(page: Path) -> list[Snippet]:
    lines = page.read_text().splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            reason = NOT_RUN.fullmatch(lines[start - 1])
            code = "\n".join(lines[start + 1 : number])
            found.append(Snippet(page.name, start + 1, lines[start][3:], code, reason and reason[1]))
            start = None
    return found


ALL = [snippet for page in PAGES for snippet in snippets(page)]
RUN = [each for each in ALL if each.language in LANGUAGES and each.reason is None]


def cli_here(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cusa", *words])
        cli.main()


class Place:
    """The directory in which the page is followed, and the servers that it starts."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.servers = directory, list[subprocess.Popen[bytes]]()
        self.ports: dict[str, str] = {}
        self.names: dict[str, object] = {}
        self.environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def bash(self, code: str) -> None:
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            # tests/test_documentation.py plans the workflow; `cusa run` would replace this process, too.
            if not words or words[0] in ELSEWHERE or words[:2] == ["cusa", "run"]:
                continue
            if words[:2] == ["cusa", "serve"]:
                self.serve(words[2:])
            elif words[0] in ("cusa", "python") and not {"|", "&&", "<"} & set(words):
                self.here(words)
            else:
                self.shell(line)

    def here(self, words: list[str]) -> None:
        """Run a command in this process, which has imported torch already. `> FILE` at its end is obeyed."""
        with ExitStack() as stack:
            if ">" in words:
                assert words[-2] == ">"
                stack.enter_context(redirect_stdout(stack.enter_context(open(words[-1], "w"))))  # noqa: PTH123
                words = words[:-2]
            if words[0] == "cusa":
                cli_here(*words[1:])
            else:
                patch = stack.enter_context(pytest.MonkeyPatch.context())
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")

    def shell(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self.with_our_ports(line)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    def serve(self, words: list[str]) -> None:
        """Start a server on a free port, which later snippets then get in place of the page's."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ours = str(free.getsockname()[1])
        place = words.index("--port") + 1 if "--port" in words else None
        self.ports["8000" if place is None else words[place]] = ours
        rest = words if place is None else words[: place - 1] + words[place + 1 :]
        command = [sys.executable, "-m", "cusa.cli", "serve", *rest, "--port", ours]
        self.servers.append(subprocess.Popen(command, cwd=self.directory, env=self.environment))
        for _ in range(300):
            assert self.servers[-1].poll() is None, f"cusa serve {' '.join(rest)} has ended"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{ours}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"cusa serve {' '.join(rest)} does not answer")

    def with_our_ports(self, code: str) -> str:
        for theirs, ours in self.ports.items():
            code = re.sub(rf"(127\.0\.0\.1|localhost):{theirs}\b", rf"127.0.0.1:{ours}", code)
        return code

    def python(self, code: str) -> None:
        """One after the other, as in one session."""
        exec(compile(self.with_our_ports(code), "snippet", "exec"), self.names)  # noqa: S102 (it is ours)


def write_files_of_a_user(directory: Path, pictures: list[Path]) -> None:
    """Photos, a table of them, tars and texts, as the page names them."""
    (directory / "photos").mkdir()
    (directory / "shards").mkdir()
    lines = ["file,caption,year"]
    for number, path in enumerate(pictures):
        shutil.copy(path, directory / "photos")
        lines.append(f"photos/{path.name},{path.stem.replace('_', ' ')},{2000 + number}")
        with tarfile.open(directory / f"shards/{number % 2:05d}.tar", "a") as tar:
            tar.add(path, f"{number:06d}.jpg")
            caption = path.stem.replace("_", " ").encode()
            about = tarfile.TarInfo(f"{number:06d}.txt")
            about.size = len(caption)
            tar.addfile(about, io.BytesIO(caption))
    (directory / "photos.csv").write_text("\n".join(lines) + "\n")
    (directory / "gone.txt").write_text(f"photos/{pictures[5].name}\n")
    (directory / "queries.txt").write_text("a red circle\na large blue square\n")
    shutil.copy(pictures[0], directory / "photo.jpg")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_configuration, shapes_data) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("use")
    data = DatasetFolder(directory / "results/openmoji")
    shutil.copytree(shapes_data, data.root)
    for experiment in ("cusa", "contrastive"):
        train(load(tiny_configuration).run(experiment, 23), data, data.run(experiment, 23))
        out = data.run(experiment, 23) / "search/all"
        cli_here("embed", str(data.run(experiment, 23)), str(data.root), "--split", "test", "--output", str(out))
        build_index(out)
    pictures = [Path(path) for path in read_table(data.annotations, IMAGES)["image_path"].to_pylist()]
    pages = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"results/openmoji/(images/[\w-]+\.png)", pages))
    for number, name in enumerate(sorted(named)):
        (data.root / name).parent.mkdir(exist_ok=True)
        shutil.copy(pictures[number], data.root / name)
    write_files_of_a_user(directory, pictures)
    for name in ("examples", "config", "workflow", "Snakefile"):
        (directory / name).symlink_to(ROOT / name)
    place = Place(directory)
    yield place
    for server in place.servers:
        server.terminate()
    for server in place.servers:
        server.wait(30)


def test_every_snippet_is_run_or_says_why_not():
    for snippet in ALL:
        where = f"{snippet.page}, line {snippet.line}"
        assert snippet.language in LANGUAGES | SHOWN, f"{where}: {snippet.language!r} is not known"
        assert snippet.reason is None or len(snippet.reason.split()) > 2, f"{where} needs a reason"
    assert len(RUN) > 5


# mteb calls itself and sentence-transformers by names that these have given up.
@pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension` method has been renamed:FutureWarning")
@pytest.mark.parametrize("snippet", RUN, ids=lambda snippet: f"{snippet.page} line {snippet.line}")
def test_the_pages_are_followed_in_order(place, snippet, monkeypatch):
    monkeypatch.chdir(place.directory)
    getattr(place, snippet.language)(snippet.code)


def test_servers_of_the_pages_end_without_an_error(place):
    for server in place.servers:
        server.terminate()
        assert server.wait(30) == 0

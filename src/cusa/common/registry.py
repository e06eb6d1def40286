"""The registry of exchangeable parts: those of cusa, of installed packages, and of Python files.

A part is a Python module with agreed attributes: an input format, an encoder, a student or a benchmark. The
configuration refers to it by a name of ours, by the name that an installed package registers as an entry point, or by
the path of a Python file. docs/extending.md has an example of each.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import CodeType
from typing import Any

from cusa.common.files import expanded
from cusa.errors import ConfigurationError, CusaError, reason_of

FILE_ENDING = ".py"
OURS = "cusa"
MODULE_PREFIX = "cusa_file_"
_loaded: dict[str, str] = {}


def loaded_versions() -> dict[str, str]:
    """The version of each package, and the SHA-256 of each file, that a module of this process was loaded from."""
    return dict(_loaded)


def is_file(name: str) -> bool:
    """Whether a name in the configuration is the path of a Python file."""
    return name.endswith(FILE_ENDING)


def file_path(name: str) -> str:
    """The path of a Python file with `~` expanded and without `./`: as Snakemake expects its input files."""
    return os.path.normpath(expanded(name))


def python_files(*names: str | None) -> list[str]:
    """The paths of those names that are Python files, each once."""
    return list(dict.fromkeys(file_path(name) for name in names if name is not None and is_file(name)))


def is_added(name: str, group: str) -> bool:
    """Whether a name is the path of a Python file, or what an installed package registers in an entry point group."""
    family = name.partition("/")[0]
    return is_file(name) or any(entry.name in (name, family) for entry in registered_in(group))


def registered_in(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of all installed packages."""
    return _entry_points(group, tuple(sys.path))


@lru_cache
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The same for the packages on `path`. It reads a file of each package: 20 ms, and a plan asks often."""
    return tuple(entry_points(group=group))


@dataclass(frozen=True)
class Registry:
    """The modules of one kind.

    `kind` is what a message calls them, and `group` is the entry point group in which packages register theirs.
    `modules` maps our names to modules; a name that ends in `/` stands for every name that begins with it. `needs`
    lists the attributes that a module must have. A name that is not registered is loaded by the module `default`, or
    is an error if that is None.
    """

    kind: str
    group: str
    modules: Mapping[str, str]
    needs: Sequence[str]
    default: str | None = None

    def names(self) -> list[str]:
        """Our names, then those of installed packages."""
        return list(dict.fromkeys([*self.modules, *sorted(entry.name for entry in registered_in(self.group))]))

    def meant(self, name: str) -> str:
        """A question for the name that is most like one that could not be loaded, with a space; empty without one."""
        near = next(iter(get_close_matches(name, set(self.names()) - {name}, n=1)), None)
        return "" if near is None else f"Did you mean {near}? "

    def load(self, name: str, key: str = "") -> Any:
        """The module for a name.

        `key` is the key of the configuration that has the name; messages start with it. Raises ConfigurationError if
        the name is unknown or is registered twice, if the file is not there, if the module cannot be imported,
        and if it lacks an attribute.
        """
        problem = f"Configuration key `{key}`: " if key else ""
        if is_file(name):
            module, source = _load_file(name, problem), name
        elif isinstance(chosen := self._find(name, problem), str):
            return import_module(chosen)
        else:
            module, source = self._load_entry_point(chosen, problem), f"{_package(chosen)} ({chosen.value})"
        if missing := [attribute for attribute in self.needs if not hasattr(module, attribute)]:
            raise ConfigurationError(
                f"{problem}{source} has no `{missing[0]}`. The module of {_article(self.kind)} needs "
                f"{', '.join(self.needs)}; docs/extending.md in cusa's repository shows one."
            )
        return module

    def require(self, name: str, key: str = "") -> None:
        """Raise ConfigurationError if a name is unknown or is registered twice; imports nothing."""
        if not is_file(name):
            self._find(name, f"Configuration key `{key}`: " if key else "")

    def _find(self, name: str, problem: str) -> str | EntryPoint:
        """The name of a module of cusa, or the entry point that a package registers."""
        family = name.partition("/")[0]
        ours = next((own for own in (name, f"{family}/") if own in self.modules), None)
        registered = registered_in(self.group)
        chosen = [entry for entry in registered if entry.name == (ours or name).rstrip("/")]
        chosen = chosen or [entry for entry in registered if ours is None and entry.name == family]
        if chosen and ours is not None:
            raise ConfigurationError(
                f"{problem}{_package(chosen[0])} registers the {self.kind} `{chosen[0].name}`, but cusa has one of "
                "this name. Uninstall the package, or register it under another name."
            )
        if len(chosen) > 1:
            packages = " and ".join(sorted(map(_package, chosen)))
            raise ConfigurationError(
                f"{problem}{packages} register the same {self.kind} `{chosen[0].name}`. Uninstall one of them, or "
                "register it under another name."
            )
        if chosen:
            return chosen[0]
        if (module := self.modules[ours] if ours is not None else self.default) is not None:
            return module
        raise ConfigurationError(
            f"{problem}there is no {self.kind} {name!r}; expected one of {', '.join(map(repr, self.names()))}. An "
            f"installed package can add one (entry point group `{self.group}`), and so can a Python file; see "
            "docs/extending.md in cusa's repository."
        )

    def _load_entry_point(self, entry: EntryPoint, problem: str) -> Any:
        try:
            module = entry.load()
        except CusaError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"{problem}{_package(entry)} registers the {self.kind} `{entry.name}` as {entry.value}, which could "
                f"not be imported ({type(error).__name__}: {reason_of(error)}). Install the package again, or what it "
                "imports."
            ) from error
        if entry.dist is not None:
            _loaded[entry.dist.name] = entry.dist.version
        return module


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time: no .pyc is written beside a user's file, and no stale one is read."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def call_part(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a part. If it belongs to a package or a file and fails, the error is one sentence with file
    and line.

    This error is a ConfigurationError. CusaError, OSError, ImportError and ValueError are passed on, because callers
    have messages for them. Every error of a part of cusa is passed on too.
    """
    try:
        return function(*arguments)
    except (CusaError, OSError, ImportError, ValueError):
        raise
    except Exception as error:
        if function.__module__.startswith(f"{OURS}."):
            raise
        frame = extract_tb(error.__traceback__)[-1]
        raise ConfigurationError(
            f"`{function.__name__}` of {function.__module__} failed in {frame.filename}, line {frame.lineno} "
            f"({type(error).__name__}: {reason_of(error)}). Correct it, or ask the makers of the package."
        ) from error


def _load_file(name: str, problem: str) -> Any:
    """The module of a Python file. A file that has not changed is executed once in a process."""
    path = expanded(name).absolute()
    if not path.is_file():
        raise ConfigurationError(f"{problem}{name} does not exist (relative paths start at {Path.cwd()}).")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    _loaded[name] = f"sha256 {content}"
    module_name = f"{MODULE_PREFIX}{hashlib.sha256(f'{path} {content}'.encode()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = spec_from_file_location(module_name, path, loader=_SourceLoader(module_name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    # pydantic and dataclasses look annotations up in sys.modules while the file is executed.
    module = sys.modules[module_name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except CusaError:
        del sys.modules[module_name]
        raise
    except Exception as error:
        del sys.modules[module_name]
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"line {lines[-1]}, " if lines else ""
        raise ConfigurationError(
            f"{problem}{name} could not be executed ({place}{type(error).__name__}: {reason_of(error)}). Correct the "
            "file, or install what it imports."
        ) from error
    return module


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a package"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def require_folder_of_model(key: str, name: str) -> None:
    """Raise ConfigurationError if a model's name is a path, as it begins with `.`, `/` or `~`, and nothing is there."""
    if name.startswith((".", "/", "~")) and not expanded(name).exists():
        raise ConfigurationError(
            f"{key} {name} does not exist (relative paths start at {Path.cwd()}); expected a folder with the model."
        )

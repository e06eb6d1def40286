"""Reading configurations: YAML and JSON files, and the values of --config KEY=VALUE on the command line.

YAML reads some texts as something else than they look like, and of a key that is there twice it keeps the last one.
Both are refused here with the line, so that no value is lost or changed silently. Snakemake reads the same files by
itself; the workflow and `cusa check` call these functions too.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cusa.common.workflow_files import found_file, page_of_keys, workflow_folder
from cusa.config.paths import is_path_key
from cusa.errors import ConfigurationError, reason_of

DEFAULT = Path("config/config.yaml")  # of the working directory, or else of the workflow
REQUIRED = frozenset({"dataset", "teachers", "student", "train", "experiments"})  # the sections without a default
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)+")  # a key below a section, such as train.epochs
IN_QUOTES = "put the value in quotation marks, within those of the shell: 'KEY=\"a #b\"'"
YAML_TAG = "tag:yaml.org,2002:"
MADE_BY_TAGS = frozenset({"binary", "omap", "pairs", "set"})  # values that JSON has not, so no key expects them
MOST_VALUES = 1_000_000  # of a configuration with its aliases written out
COLONS = "put a blank after each colon, and quotation marks around text with a colon"
ADVICE = (
    (r"'\\t'|\btab", "indent with blanks, not with tabs"),
    (r"escape (character|sequence)", "a Windows path needs single quotation marks, or none"),
    (r"mapping values|block mapping|block end", f"{COLONS}; indent the keys of a mapping alike"),
    (r"another document", "write one configuration per file, without a line `---` within it"),
    (r"constructor for the tag", "write plain values, without tags (`!`)"),
    (r"special characters", "save the file as UTF-8 text"),
    (r"undefined alias|alphabetic", "text that begins with *, & or ! needs quotation marks"),
    (r"", "see whether brackets and quotation marks pair up; text with a colon or a # needs quotation marks"),
)


class _FileLoader(yaml.SafeLoader):
    """YAML 1.1 as Snakemake reads it, without tags that make Python objects."""


class _ArgumentLoader(_FileLoader):
    """Snakemake hands on the key `config` of a profile as Python writes it, where null is None."""


_ArgumentLoader.add_implicit_resolver(f"{YAML_TAG}null", re.compile(r"^None$"), ["N"])


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `overlay` into a copy of `base`, as --configfile does: mappings key by key, other values replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def read_file(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises ConfigurationError with one line per problem, which names the file and the line: when the file cannot be
    read, is not UTF-8 text, has no mapping, has a key twice, or has a key or value that YAML reads as something else.
    """
    try:
        # As Snakemake does; the mark with which some editors begin a file is left out.
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x} in line {line}); save it as UTF-8."
        ) from None
    except FileNotFoundError:
        what = "is a link to a file that is not there" if Path(path).is_symlink() else "does not exist"
        raise ConfigurationError(f"{path} {what} (relative paths start at {Path.cwd()}).") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder; expected a YAML or JSON file.") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    content = _json(text, str(path))
    if content is None:
        content = _yaml(text, str(path), _FileLoader)
    if content is None:
        raise ConfigurationError(f"{path} is empty; expected keys, as {page_of_keys()} explains.")
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path} holds a {type(content).__name__}; expected a mapping of keys, as {page_of_keys()} explains."
        )
    return content


def layers(files: Iterable[str | Path]) -> list[tuple[str, dict[str, Any]]]:
    """The path and the content of the default configuration and of each file, in the order in which they are merged.

    The default is config/config.yaml of the working directory, or of the workflow if that does not exist; overlays
    of the workflow, as config/coco.yaml, are found likewise. Raises ConfigurationError, see `read_file`.
    """
    return [(str(path), read_file(path)) for path in map(found_file, (DEFAULT, *files))]


def merge_all(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Mappings merged in their order, as Snakemake does with the files of --configfile."""
    mapping: dict[str, Any] = {}
    for content in contents:
        mapping = merge(mapping, content)
    return mapping


def read_files(files: Iterable[str | Path]) -> dict[str, Any]:
    """Files merged onto the default configuration in their order; see `layers`."""
    return merge_all(content for _, content in layers(files))


def merge_onto_default(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping that has all sections without a default as it is; another one merged onto the workflow's default.

    So the `config:` of a module of Snakemake can be a whole configuration, or what differs, as a file of --configfile.
    """
    if mapping.keys() >= REQUIRED:
        return dict(mapping)
    return merge(read_file(workflow_folder() / DEFAULT), mapping)


def read_arguments(arguments: Iterable[str]) -> dict[str, Any]:
    """The mapping that the KEY=VALUE of --config stand for; each value is read as YAML once, and KEY may have dots.

    Snakemake itself hands over all values as text. Raises ConfigurationError when a value is not YAML, or when a key is
    given twice with different values.
    """
    mapping: dict[str, Any] = {}
    for argument in arguments:
        key, _, text = argument.partition("=")
        keys = tuple(key.split(".") if DOTTED.fullmatch(key) else [key])
        value: Any = _yaml(text, f"--config {key}={text}", _ArgumentLoader, keys)
        for name in reversed(keys):
            value = {name: value}
        if twice := next(_differences(mapping, value), None):
            raise ConfigurationError(f"--config gives `{twice}` two values; give each key once.")
        mapping = merge(mapping, value)
    return mapping


class _Dumper(yaml.SafeDumper):
    """Texts with line ends and other signs that are not printed are escaped: YAML takes some of them for line ends."""


def _escaped(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(f"{YAML_TAG}str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _escaped)


def yaml_text(mapping: Mapping[str, Any]) -> str:
    """A mapping as YAML that `read_file` reads back as the same mapping."""
    text: str = yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def without_dots(argument: str) -> str:
    """A KEY=VALUE of --config whose key has dots, as one that Snakemake takes: train.epochs=3 is train={epochs: 3}.

    Raises ConfigurationError when the value is not YAML.
    """
    if not DOTTED.fullmatch(argument.partition("=")[0]):
        return argument
    ((key, value),) = read_arguments([argument]).items()
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The keys that both mappings have, with different values."""
    for key in one.keys() & other.keys():
        mine, its = one[key], other[key]
        if isinstance(mine, Mapping) and isinstance(its, Mapping):
            yield from _differences(mine, its, f"{at}{key}.")
        elif mine != its:
            yield f"{at}{key}"


def _json(text: str, name: str) -> Any:
    """The content of a JSON file, which may be indented with tabs; None if the text is not JSON."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigurationError(f"{name} has the key `{twice[0]}` twice in one mapping; keep one of them.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=mapping)
    except (ValueError, RecursionError):
        return None


def _yaml(text: str, name: str, loader_type: type[_FileLoader], keys: tuple[str, ...] = ()) -> Any:
    """The content of YAML text. Raises ConfigurationError, see `read_file`.

    `name` says where the text is from, and `keys` lead to its value in the configuration.
    """
    try:
        loader = loader_type(text)
        try:
            node = loader.get_single_node()
            end = 0 if node is None else node.end_mark.index
            if loader_type is _ArgumentLoader and text[end:].strip():
                raise ConfigurationError(f"{name}: YAML takes # and what follows for a comment; {IN_QUOTES}.")
            if node is None:
                return None
            if _values(node, {}) > MOST_VALUES:
                raise ConfigurationError(
                    f"{name} has more than {MOST_VALUES:,} values, most of them by aliases (*); write out fewer."
                )
            if problems := list(dict.fromkeys(_problems(node, keys))):
                raise ConfigurationError("\n".join(f"{name}, line {problem}" for problem in problems))
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or reason_of(error)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        advice = next(advice for pattern, advice in ADVICE if re.search(pattern, problem))
        raise ConfigurationError(f"{name} cannot be read as YAML ({place}{problem}); {advice}.") from None
    except ValueError as error:  # of a tag whose value does not fit, such as !!int x, and of a number with 5,000 digits
        raise ConfigurationError(f"{name} cannot be read as YAML: {reason_of(error)}.") from None
    except RecursionError:
        raise ConfigurationError(f"{name} cannot be read as YAML: its values are nested too deeply.") from None


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """The values of a node with its aliases written out. Each node is counted once; one within itself counts as 0."""
    if id(node) not in counted:
        counted[id(node)] = 0
        members = list(node.value) if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            members = [value for _, value in node.value]
        counted[id(node)] = 1 + sum(_values(member, counted) for member in members)
    return counted[id(node)]


def _problems(node: yaml.Node, keys: tuple[str, ...], above: frozenset[int] = frozenset()) -> Iterator[str]:
    """The values that YAML would lose or change silently, each as the rest of a sentence that begins with the line.

    `keys` lead to the node, and `above` are the nodes that it is in.
    """
    if id(node) in above:
        yield f"{node.start_mark.line + 1}: the value with the anchor & has itself in it; write it out."
        return
    kind, is_quoted = node.tag.removeprefix(YAML_TAG), isinstance(node, yaml.ScalarNode) and node.style is not None
    if kind in MADE_BY_TAGS or (kind == "timestamp" and is_quoted):
        yield f"{node.start_mark.line + 1}: the tag !!{kind} makes no plain value; write values without tags (`!`)."
        return
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for member in node.value:
            yield from _problems(member, keys, above)
    elif isinstance(node, yaml.MappingNode):
        yield from _problems_of_keys(node, keys)
        for key, value in node.value:
            yield from _problems(value, (*keys, str(key.value)), above)
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        yield from _problems_of_plain_text(node, keys)


def _problems_of_keys(node: yaml.MappingNode, keys: tuple[str, ...]) -> Iterator[str]:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            yield f"{line}: a key is a list or a mapping; expected a name."
        elif key.tag == f"{YAML_TAG}null":
            yield f"{line}: a key is null, or there is none before the colon; write a name, 'null' in quotation marks."
        elif key.tag not in (f"{YAML_TAG}str", f"{YAML_TAG}merge"):
            kind = key.tag.removeprefix(YAML_TAG)
            read = f"YAML reads the key {key.value} as {KINDS.get(kind, kind)}"
            yield f"{line}: {read}; write '{key.value}' in quotation marks."
        elif what := _unseen(key):
            yield f"{line}: the key `{key.value.strip()}` begins or ends with {what}; write blanks, or nothing."
        elif key.value in lines:
            path = ".".join((*keys, key.value))
            yield f"{line}: the key `{path}` is there already, in line {lines[key.value]}; keep one of them."
        else:
            lines[key.value] = line


def _unseen(node: yaml.ScalarNode) -> str | None:
    """What looks like a blank, or like nothing, and is no blank at the ends of text without quotation marks, or None.

    Such characters come from web pages and editors: the no-break space, the zero width space, marks of direction.
    """
    ends = (node.value[:1], node.value[-1:]) if node.style is None else ()
    odd = next((sign for sign in ends if sign and unicodedata.category(sign) in ("Zs", "Cf", "Cc")), None)
    return odd and f"the character U+{ord(odd):04X} ({unicodedata.name(odd, 'a control character').lower()})"


KINDS = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}


def _problems_of_plain_text(node: yaml.ScalarNode, keys: tuple[str, ...]) -> Iterator[str]:
    """Text without quotation marks that YAML reads as something that no key of the configuration expects."""
    line, text, kind = node.start_mark.line + 1, node.value, node.tag.removeprefix(YAML_TAG)
    at = f"`{'.'.join(keys)}`" if keys else "the value"
    if what := _unseen(node):
        yield f"{line}: the value of {at} begins or ends with {what}; remove it, or write quotation marks around it."
    elif kind in ("int", "float") and ":" in text:
        yield f"{line}: YAML reads {text} of {at} in base 60; write a number in base 10, or text as '{text}'."
    elif kind == "int" and re.fullmatch(r"[-+]?0[0-7_]+", text):
        yield f"{line}: YAML reads {text} of {at} in base 8; write a number without leading zeros, or text as '{text}'."
    elif kind == "timestamp":
        yield f"{line}: YAML reads {text} of {at} as a date; write '{text}' in quotation marks."
    elif text == "~" and is_path_key(keys):
        yield f"{line}: YAML reads ~ of {at} as null; write '~' in quotation marks for the home folder, or null."

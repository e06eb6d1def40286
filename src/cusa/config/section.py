"""The base class of all sections of the configuration, number types, and error messages for wrong values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cusa.common.workflow_files import page_of_keys
from cusa.config.nearest_key import nearest_key
from cusa.errors import ConfigurationError


def _yaml_exponent(value: Any) -> Any:
    """Convert text such as 1e-5 to a number: YAML 1.1 reads an exponent without a dot as text."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_yaml_exponent), Field(allow_inf_nan=False)]
Positive = Annotated[float, BeforeValidator(_yaml_exponent), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(_yaml_exponent), Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_yaml_exponent), Field(ge=0, lt=1, allow_inf_nan=False)]
LARGEST = 2**31 - 1  # larger than any real count; larger numbers overflow in some libraries
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(gt=0, le=LARGEST)]
Parts = Annotated[Count, Field(le=10_000)]  # each is a job
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]  # as large as tables store it
AnyValue = Annotated[Any, BeforeValidator(_yaml_exponent)]
# Names of data sets, runs and benchmarks become names of folders and files.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=150)]
SHOWN = 120  # characters of a wrong value that a message shows


def added_key(default: Any, description: str, **constraints: Any) -> Any:
    """A field that a release added: with its default value it is left out of the section's JSON.

    So a release that adds a key gives no reason to make existing results again. See `Section.as_json`.
    """
    return Field(default=default, description=description, exclude_if=lambda value: value == default, **constraints)


class Section(BaseModel):
    """A mapping in the YAML file. Unknown keys and wrong types are refused; values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    def as_json(self, without: Mapping[str, set[str]] | None = None) -> str:
        """The section as one line of JSON with sorted keys. `without` names keys to leave out, by their section.

        Snakemake compares this text to decide whether a job is up to date.
        """
        return json.dumps(self.model_dump(mode="json", exclude=dict(without or {})), sort_keys=True)


SectionType = TypeVar("SectionType", bound=Section)


class ProblemsError(ValueError):
    """Several problems that a validator of a section found; each is a complete sentence that names its key."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = list(sentences)
        super().__init__("\n".join(self.sentences))


def validate(model: type[SectionType], mapping: Mapping[str, Any], at: str = "") -> SectionType:
    """Validate `mapping` against a section; `at` is the key of the section in the complete configuration.

    Raises ConfigurationError with one line per problem, which names its key.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"Configuration key `{at}` is {mapping!r}; expected a mapping of keys.")
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        problems: dict[str, list[Any]] = {}
        details: Any
        for details in error.errors(include_url=False):
            keys = _keys(details, mapping)
            if details["type"] == "extra_forbidden":
                details["nearest"] = nearest_key(model, keys[:-1], keys[-1], at)
            problems.setdefault(".".join(filter(None, [at, *keys])), []).append(details)
        inner = {key for key in problems if "." in key}
        sentences = [
            sentence
            for key, found in problems.items()
            # If a mapping has problems, the message that it is not one of the allowed words does not help.
            if not (_are_of_words(found) and any(other.startswith(f"{key}.") for other in inner))
            for sentence in _sentences(key, found)
        ]
        raise ConfigurationError("\n".join(dict.fromkeys(sentences))) from None


def _are_of_words(problems: Sequence[Any]) -> bool:
    return all(details["type"] == "literal_error" and isinstance(details["input"], Mapping) for details in problems)


def _sentences(key: str, problems: Sequence[Any]) -> list[str]:
    """Sentences about a key: one for each problem. What each kind of value that the key may have misses is one."""
    if len(problems) > 1 and any(details["type"] == "literal_error" for details in problems):
        misses = ", or: ".join(_lowered(details["msg"]) for details in problems)
        return [f"Configuration key `{key}` is {_shown(problems[0]['input'])}: {misses}."]
    return [sentence for details in problems for sentence in _of_problem(key, details)]


def _of_problem(key: str, details: Any) -> list[str]:
    value = details["input"]
    match details["type"]:
        case "extra_forbidden":
            if (nearest := details["nearest"]) is not None:
                return [
                    f"Configuration key `{key}` is unknown; did you mean `{nearest}`? {page_of_keys()} has all keys."
                ]
            return [f"Configuration key `{key}` is unknown; see {page_of_keys()} for the keys that exist."]
        case "missing":
            return [f"Configuration key `{key}` is missing and has no default; see {page_of_keys()}."]
        case "value_error":
            problem = details["ctx"]["error"]
            if isinstance(problem, ProblemsError):
                return problem.sentences
            return [f"Configuration {f'key `{key}`: ' if key else ''}{problem}."]
        case "model_type" | "dict_type" | "model_attributes_type":
            advice = " below it, or leave it out" if value is None else ""
            return [f"Configuration key `{key}` is {_shown(value)}; expected a mapping of keys{advice}."]
        case "string_pattern_mismatch":
            return [
                f"Configuration key `{key}`: {_shown(value)} cannot be a name; expected letters, digits, `_`, `.` and "
                "`-`, of which the first is a letter or a digit, because it names a folder."
            ]
        case _:
            message = _lowered(details["msg"])
            if details["type"] == "string_type" and isinstance(value, bool | int | float):
                message += "; YAML reads no, off, yes and on as false and true, so write text in quotation marks"
            return [f"Configuration key `{key}` is {_shown(value)}: {message}."]


def _lowered(message: str) -> str:
    return message[0].lower() + message[1:]


def _shown(value: Any) -> str:
    """A value and its type, to be quoted in a message."""
    if value is None:
        return "null"
    text = repr(value)
    return f"{text if len(text) <= SHOWN else text[:SHOWN] + '...'} ({type(value).__name__})"


def _keys(details: Any, mapping: Mapping[str, Any]) -> list[str]:
    """The path of keys to a problem, as the user wrote them.

    pydantic's `loc` also contains the members of unions that it tried. These do not occur in the input, but every key
    does, except a missing one. So a part is kept if the input has it, or if it is the missing key.
    """
    keys: list[str] = []
    value: Any = mapping
    for number, part in enumerate(details["loc"]):
        is_key = isinstance(value, Mapping) and part in value
        is_index = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if is_key or is_index:
            value = value[part]
            keys.append(str(part))
        elif details["type"] == "missing" and number + 1 == len(details["loc"]):
            keys.append(str(part))
    return keys

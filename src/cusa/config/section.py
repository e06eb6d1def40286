"""The base of every section of the configuration, its number types, and errors as sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cusa.errors import ConfigurationError


def _yaml_exponent(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 (no dot) as a string; people mean the number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_yaml_exponent), Field(allow_inf_nan=False)]
Positive = Annotated[float, BeforeValidator(_yaml_exponent), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(_yaml_exponent), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]


class Section(BaseModel):
    """A mapping in the YAML: unknown keys and wrong types are refused, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    def as_json(self, without: Mapping[str, set[str]] | None = None) -> str:
        """The section as one line, keys sorted; `without` names keys to leave out, by the section they are in.

        Snakemake compares it to decide whether a job is up to date.
        """
        return json.dumps(self.model_dump(mode="json", exclude=dict(without or {})), sort_keys=True)


SectionType = TypeVar("SectionType", bound=Section)


class ProblemsError(ValueError):
    """Several problems of a section, found by a validator; each is a whole sentence that names its key."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = list(sentences)
        super().__init__("\n".join(self.sentences))


def validate(model: type[SectionType], mapping: Mapping[str, Any], at: str = "") -> SectionType:
    """Validate `mapping` against a section; `at` is the key that it stands under in the whole configuration.

    Raises ConfigurationError with one line a problem, each naming its key.
    """
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        details = error.errors(include_url=False)
        sentences = [sentence for each in details for sentence in _sentences(each, mapping, at)]
        raise ConfigurationError("\n".join(dict.fromkeys(sentences))) from None


def _sentences(details: Any, mapping: Mapping[str, Any], at: str) -> list[str]:
    key = ".".join(filter(None, [at, *_keys(details, mapping)]))
    value = details["input"]
    match details["type"]:
        case "extra_forbidden":
            return [f"Configuration key `{key}` is unknown; see config/README.md for the keys that exist."]
        case "missing":
            return [f"Configuration key `{key}` is missing and has no default; see config/README.md."]
        case "value_error":
            problem = details["ctx"]["error"]
            if isinstance(problem, ProblemsError):
                return problem.sentences
            return [f"Configuration {f'key `{key}`: ' if key else ''}{problem}."]
        case _:
            message = details["msg"][0].lower() + details["msg"][1:]
            return [f"Configuration key `{key}` is {value!r} ({type(value).__name__}): {message}."]


def _keys(details: Any, mapping: Mapping[str, Any]) -> list[str]:
    """The keys that lead to a problem, as the user wrote them.

    pydantic's `loc` also names the member of a union that it tried. Such a part is in no mapping of the input; a key
    is, unless it is the one that is missing.
    """
    keys: list[str] = []
    place: Any = mapping
    for number, part in enumerate(details["loc"]):
        is_key = isinstance(place, Mapping) and part in place
        is_index = isinstance(place, list) and isinstance(part, int) and part < len(place)
        if is_key or is_index:
            place = place[part]
            keys.append(str(part))
        elif details["type"] == "missing" and number + 1 == len(details["loc"]):
            keys.append(str(part))
    return keys

"""What the API answers, for its OpenAPI page."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Schema(BaseModel):
    """An object of the API."""

    model_config = ConfigDict(protected_namespaces=())


class Choice(Schema):
    """A value to filter by."""

    value: str
    count: int = Field(description="How many rows have it.")


class Index(Schema):
    """An index of the server."""

    name: str
    rows: int
    dimension: int
    model: str = Field(description="The folder of the model that answers queries, its last parts.")
    modality: Literal["image", "text"]
    head: Literal["cross", "uni"]
    fingerprint: str = Field(description="Changes whenever the index is rebuilt.")
    filters: dict[str, list[Choice]] = Field(description="Columns with few values, the most frequent first.")
    has_answers: bool = Field(description="Whether the data know captions, so that right answers are marked.")
    examples: list[str] = Field(description="Some captions, which make good first queries.")


class SameAs(Schema):
    """An earlier result that is the same picture, or nearly."""

    row: int
    item: str
    kind: Literal["same", "near"]


class Result(Schema):
    """An item that was found."""

    row: int
    item: str = Field(description="The item's name, unique in its index.")
    score: float | None = Field(description="Its cosine with the query; null where nothing was searched for.")
    captions: list[str]
    image: str | None = Field(description="Address of the picture; &height=256 asks for a smaller one. null for texts.")
    width: int | None = Field(description="Of the picture, in pixels.")
    height: int | None
    correct: bool | None = Field(description="null where the data do not know the right answers.")
    same_as: SameAs | None
    columns: dict[str, Any] = Field(description="The other columns of items.parquet.")


class InterpretedQuery(Schema):
    """The query as it was understood."""

    index: str
    q: str | None
    exclude: list[str] = Field(alias="not")
    picture: bool
    like: Result | None
    weight: float
    top: int
    filters: dict[str, list[str]]


class Answer(Schema):
    """A right answer, and its rank among all rows of the index, from 1; ties count against the model."""

    row: int
    item: str
    rank: int


class SearchResponse(Schema):
    """The answer to a search."""

    query: InterpretedQuery
    results: list[Result]
    answers: list[Answer] | None = Field(
        description="Ranks of the right answers, where the data know them and the index is small; "
        "/api/indexes/{name}/answers gives them for every index."
    )
    total: int = Field(description="How many items pass the filters.")
    fingerprint: str
    milliseconds: float
    unknown_texts: list[str] = Field(
        default=[],
        description="Texts of the query (`q` and `not`) that the model has no word for, so that results by them mean "
        "nothing; the field is there only if there are such texts.",
    )


class Answers(Schema):
    """The ranks of the right answers to a text."""

    q: str
    answers: list[Answer] | None = Field(description="null where the text is not a caption of the index.")
    rows: int = Field(description="How many rows there are, among which the ranks count.")


class Health(Schema):
    """Whether the server can answer. Without the token, if there is one, `indexes` is left out."""

    ready: bool
    version: str
    indexes: list[dict[str, Any]] | None = None


class Problem(Schema):
    """What is wrong, in one sentence."""

    error: str


def _parameter(name: str, kind: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": kind, "description": description}


SEARCH_PARAMETERS = [
    _parameter("q", {"type": "string"}, "What is looked for, in words."),
    _parameter("index", {"type": "string"}, "Name of an index; default: the first."),
    _parameter("top", {"type": "integer", "minimum": 1, "default": 20}, "How many results."),
    _parameter(
        "not", {"type": "array", "items": {"type": "string"}}, "Texts that the results should not be about; repeatable."
    ),
    _parameter("like", {"type": "integer", "minimum": 0}, "Row of an item of the index: more like this."),
    _parameter("like_item", {"type": "string"}, "The same by the item's name, which other indexes may have too."),
    _parameter(
        "weight",
        {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
        "Of the picture (or row) where there is a text too.",
    ),
    _parameter(
        "filter.COLUMN",
        {"type": "string"},
        "Only items with this value in the column; repeatable: values of one column are alternatives, columns must "
        "all fit.",
    ),
]
_FORM = {parameter["name"]: parameter["schema"] for parameter in SEARCH_PARAMETERS}
SEARCH_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}, **_FORM}}
        },
        "application/json": {"schema": {"type": "object", "properties": _FORM}},
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        401: "The token is missing or wrong.",
        404: "There is no such index or row.",
        422: "A field is wrong.",
        503: "Too many wait already; come again after the seconds in Retry-After.",
    }.items()
}
UPLOAD_PROBLEMS: dict[int | str, dict[str, Any]] = PROBLEMS | {
    400: {"model": Problem, "description": "The form or the JSON is broken."},
    408: {"model": Problem, "description": "The upload took too long."},
    413: {"model": Problem, "description": "The upload is too large."},
    415: {"model": Problem, "description": "The file is not a picture."},
}

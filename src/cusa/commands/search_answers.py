"""Prints the hits of `cusa search` as a table or as JSON. Queries are counted from 0."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from cusa.errors import ConfigurationError, DataError
from cusa.search.query import Query
from cusa.search.searcher import Hit, Searcher

if TYPE_CHECKING:
    from cusa.search.pictures import When

AT_ONCE = 64  # queries from a file that the model encodes together


@dataclass(frozen=True)
class Output:
    """How and where hits are shown: as JSON or as a table, with or without pictures."""

    stream: TextIO
    as_json: bool = False
    pictures: When = "auto"


def search_one(searcher: Searcher, query: Query, output: Output, **options: Any) -> None:
    """Answer one query; `options` are those of Searcher.search. JSON is one list of hits."""
    (hits,) = searcher.search([query], **options)
    (unknown,) = searcher.unknown_texts([query])
    with _reader_may_leave(output.stream):
        if output.as_json:
            json.dump([hit.as_json() for hit in hits], output.stream, indent=1, ensure_ascii=False, allow_nan=False)
            output.stream.write("\n")
        else:
            _show(searcher, hits, output)
        if unknown:
            sys.stderr.write(f"{_unknown_sentence(query, unknown)}\n")
        if not hits:
            sys.stderr.write(f"nothing was found: {_reason(searcher, options.get('where'))}\n")


def search_many(searcher: Searcher, queries: Sequence[Query], output: Output, **options: Any) -> None:
    """Answer queries in their order, with a heading each. JSON is one object per line, with `query` and `results`.

    If the model does not know texts of a query, its object also has `unknown_texts`, and standard error says it.

    A query that cannot be answered has `error` in place of `results`, and the others are answered. Raises DataError at
    the end if there was one.
    """
    for number, query in enumerate(queries):
        try:
            searcher.check(query)
        except ConfigurationError as error:
            raise ConfigurationError(f"Query {number}: {error}") from None
    failed = []
    with _reader_may_leave(output.stream):
        for number, (query, answer, unknown) in enumerate(_answers(searcher, queries, options)):
            if unknown:
                sys.stderr.write(f"query {number}: {_unknown_sentence(query, unknown)}\n")
            if isinstance(answer, str):
                failed.append(f"query {number}: {answer}")
            if output.as_json:
                found = {"error": answer} if isinstance(answer, str) else {"results": [hit.as_json() for hit in answer]}
                line = {"query": query.described(), **found} | ({"unknown_texts": unknown} if unknown else {})
                output.stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            else:
                _show_one_of_many(searcher, query, answer, output)
    if failed:
        raise DataError(f"{len(failed)} of {len(queries):,} queries cannot be answered; the first is {failed[0]}")


def _answers(
    searcher: Searcher, queries: Sequence[Query], options: dict[str, Any]
) -> Iterator[tuple[Query, list[Hit] | str, list[str]]]:
    """Each query with its hits, or with its error, and with its texts that the model does not know."""
    for start in range(0, len(queries), AT_ONCE):
        batch = queries[start : start + AT_ONCE]
        try:
            yield from zip(batch, searcher.search(batch, **options), searcher.unknown_texts(batch), strict=True)
        except DataError:
            # One of them names a picture that cannot be read, or a text without a word.
            for query in batch:
                try:
                    yield query, searcher.search([query], **options)[0], searcher.unknown_texts([query])[0]
                except DataError as error:
                    yield query, str(error), []


def _show_one_of_many(searcher: Searcher, query: Query, answer: list[Hit] | str, output: Output) -> None:
    from cusa.search.table import printable

    title = ", ".join(f"{name} {value!r}" for name, value in query.described().items())
    output.stream.write(f"{printable(title)}\n")
    if isinstance(answer, str):
        output.stream.write(f"Error: {printable(answer)}\n")
    else:
        _show(searcher, answer, output)
    output.stream.write("\n")


def _show(searcher: Searcher, hits: Sequence[Hit], output: Output) -> None:
    from cusa.search.table import table_lines

    stream = output.stream
    width = shutil.get_terminal_size().columns if stream.isatty() else None
    if hits:
        stream.writelines(f"{line}\n" for line in table_lines(hits, width))
    if hits and searcher.index.modality == "image" and output.pictures != "never":
        from cusa.search.pictures import fitting, show_strip, wanted

        if wanted(output.pictures, stream):
            shown = hits[: fitting(width or shutil.get_terminal_size().columns)]
            labels = [str(rank) for rank in range(1, len(shown) + 1)]
            show_strip([_picture(searcher, hit) for hit in shown], labels, stream)


def _picture(searcher: Searcher, hit: Hit) -> bytes | None:
    try:
        return searcher.index.picture_bytes(hit.row)
    except DataError as error:
        sys.stderr.write(f"no picture of {hit.item!r}: {error}\n")
        return None


def _unknown_sentence(query: Query, unknown: Sequence[str]) -> str:
    """A sentence about the texts of a query that the model does not know."""
    is_all = query.text in unknown and query.image is None and query.like is None
    what = "the hits mean" if is_all else "this part of the query means"
    texts = " and ".join(f"{text!r:.80}" for text in unknown)
    return (
        f"the model has no word for {texts}, so {what} nothing: use words that it knows, or a model with a "
        "multilingual text side."
    )


def _reason(searcher: Searcher, where: Any) -> str:
    if not where:
        return "the index has no other item."
    from cusa.search.filters import choices

    known = choices(searcher.index.items)
    values = [f"{column} has {', '.join(map(repr, known[column]))}" for column in where if column in known]
    return f"no item satisfies --where. {'; '.join(values)}".rstrip() + ("." if values else "")


@contextmanager
def _reader_may_leave(stream: TextIO) -> Iterator[None]:
    """End quietly if the reader of a pipe, such as `head`, has read enough."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # receives the output that Python flushes at its end
        os.close(nowhere)

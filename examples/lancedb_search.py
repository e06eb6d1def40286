"""Load a gallery, which `cusa embed` wrote, into LanceDB, and search it with a text: one file, no server.

python examples/lancedb_search.py OUT "a red car" --database vectors.lance --where "split = 'test'"
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import lancedb
import pyarrow as pa

import cusa
from cusa.gallery.store import Gallery

TABLE, ROWS = "gallery", 10_000


def batches(gallery: Gallery, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The items with their vectors, ROWS at a time, so that memory does not grow with the gallery."""
    for start in range(0, gallery.rows, ROWS):
        items = gallery.items.slice(start, ROWS)
        vectors = pa.array(gallery.embeddings(start, start + len(items)).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(vectors, gallery.dimension)
        yield from pa.table([*items.columns, column], schema=schema).to_batches()


def load(gallery: Gallery, database: Path) -> lancedb.table.Table:
    """Write the gallery as a table of LanceDB; a table that is there is replaced."""
    vector = pa.field("vector", pa.list_(pa.float32(), gallery.dimension))
    schema = pa.schema([*gallery.items.schema, vector]).remove_metadata()
    data = pa.RecordBatchReader.from_batches(schema, batches(gallery, schema))
    return lancedb.connect(database).create_table(TABLE, data, mode="overwrite")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gallery", type=Path, help="OUT of cusa embed")
    parser.add_argument("text", help="what to look for")
    parser.add_argument("--database", type=Path, default=Path("vectors.lance"), help="folder of the database")
    parser.add_argument("--where", help="an SQL condition on columns of items.parquet")
    arguments = parser.parse_args()
    gallery = Gallery.open(arguments.gallery)
    table = load(gallery, arguments.database)
    model = cusa.load(gallery.meta.model)  # the same weights for queries and items
    (vector,) = model.encode_text(arguments.text, head=gallery.meta.head)
    search = table.search(vector, vector_column_name="vector").distance_type("cosine")
    for hit in (search.where(arguments.where, prefilter=True) if arguments.where else search).limit(10).to_list():
        print(f"{1 - hit['_distance']:.3f}  {hit['item']}  {'; '.join(hit['captions'])}")


if __name__ == "__main__":
    main()

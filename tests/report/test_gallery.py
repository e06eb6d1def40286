"""The gallery shows the pictures whose embeddings are nearest, and marks the right ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pages import GalleryReader, rendered

from cusa.annotations.tables import CAPTIONS, IMAGES, read_table, split_rows


def test_the_gallery_shows_the_nearest_pictures_and_marks_the_right_ones(scored_runs, tmp_path):
    folder, runs = scored_runs
    reader = GalleryReader()
    reader.feed(rendered(scored_runs, tmp_path, text_queries=6, image_queries=0, top=4))
    assert len({query for query, _, _ in reader.rows}) == 6
    assert [model for _, model, _ in reader.rows] == ["contrastive", "cusa"] * 6
    captions = read_table(folder.annotations, CAPTIONS, ["caption", "image", "split"])
    rows, first = split_rows(captions, "test"), split_rows(read_table(folder.annotations, IMAGES), "test")[0]
    texts = captions["caption"].take(pa.array(rows)).to_pylist()
    image_of = captions["image"].to_numpy()[rows] - first
    titles = [texts[int(np.flatnonzero(image_of == image)[0])] for image in range(8)]
    for query, model, hits in reader.rows:
        embeddings = runs[model][0] / "embeddings/test"
        image, text = (np.load(embeddings / f"{side}_cross.npy").astype(np.float64) for side in ("image", "text"))
        caption = texts.index(query)
        cosine = image @ text[caption] / np.linalg.norm(image, axis=1)
        nearest = np.argsort(-cosine)[:4]
        assert [title for title, _ in hits] == [titles[place] for place in nearest]
        assert [right for _, right in hits] == [place == image_of[caption] for place in nearest]


def test_pictures_without_labels_are_shown_without_marks(scored_runs, tmp_path):
    reader = GalleryReader()
    reader.feed(rendered(scored_runs, tmp_path, text_queries=0, image_queries=3, top=5))
    assert len(reader.rows) == 6
    for query, _, hits in reader.rows:
        assert len(hits) == 5
        assert not any(right for _, right in hits)
        assert query not in [title for title, _ in hits]


def test_an_experiment_that_was_not_trained_is_left_out_of_the_gallery(scored_runs, tmp_path):
    reader = GalleryReader()
    reader.feed(rendered(scored_runs, tmp_path, experiments=["cusa", "nonesuch"], text_queries=2, image_queries=0))
    assert {model for _, model, _ in reader.rows} == {"cusa"}

"""Image-text retrieval: recall at 1, 5 and 10 both ways on held-out pairs, with any number of captions an image."""

from __future__ import annotations

from cusa.annotations import CAPTIONS, IMAGES, read_table, split_rows
from cusa.benchmarks import Result, Run
from cusa.layout import DatasetFolder
from cusa.metrics import image_text_recall

DATA = ("test",)
PROTOCOL = (
    "{head}; every test caption against every test image and the other way round. The image-to-text rank is the best "
    "rank among the image's captions. Ties count against the model."
)


def evaluate(folder: DatasetFolder, run: Run) -> Result:
    """Recall on the test split."""
    captions = read_table(folder.annotations, CAPTIONS, ["image", "split"])
    image_rows = split_rows(read_table(folder.annotations, IMAGES, ["split"]), "test")
    caption_rows = split_rows(captions, "test")
    image = run.embeddings("test", "image_cross", len(image_rows))
    text = run.embeddings("test", "text_cross", len(caption_rows))
    text_to_image = captions["image"].to_numpy()[caption_rows] - image_rows[0]
    metrics = image_text_recall(image, text, text_to_image)
    return Result(metrics, PROTOCOL.format(head=run.head_used("cross")), len(text), len(image))

"""Weights of 8 bits for the files of an onnx folder, and their loss of R@1 on a val split.

Matrices have one scale for each 32 weights of a column, and embeddings of tokens one scale per row. onnxruntime
quantises the other factor of a product in blocks of the same length while it runs, so nothing has to be calibrated, and
an embedding does not depend on the rest of its batch. One scale per matrix is a little faster, but cost the demo 1.6
points of R@1. Convolutions stay float32: onnxruntime runs their 8-bit form more slowly.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cusa.annotations.tables import SplitTables
from cusa.common.images import decoded_rgb
from cusa.common.onnx_runtime import import_onnxruntime
from cusa.common.root_logger import root_logger_at
from cusa.config.losses import HeadName
from cusa.errors import DataError
from cusa.layout import DatasetFolder
from cusa.metrics.recall import image_text_recall
from cusa.model.onnx_folder import IMAGE_FILE, TEXT_FILE, Int8, Int8Measurement, OnnxModel, Session, batches, padded
from cusa.shards.reading import ShardReader

MEASURED_SPLIT = "val"
MEASURED_IMAGES = 1000  # of the split, evenly spread, each with all its captions
IMAGE_MAY_COST = 0.5  # percentage points of R@1 that 8-bit weights of the image tower may cost
MATRICES = ("MatMul",)
BITS, BLOCK, PRODUCTS_IN_INT8 = 8, 32, 4  # the last is a level of onnxruntime's operator MatMulNBits
MOSTLY = 0.5  # of the weights that are in matrices; a tower of convolutions has fewer
LARGE_TABLE = 512  # rows from which a table of embeddings is worth it
LEVELS = 127  # of a sign and seven bits


def require_measurable(dataset: DatasetFolder) -> None:
    """Raise DataError if the data set's tables or shards are missing, on which the loss is measured."""
    SplitTables.open(dataset, MEASURED_SPLIT)
    ShardReader(dataset.shards(MEASURED_SPLIT))


def quantised(folder: Path, dataset: DatasetFolder) -> Int8:
    """Quantise the files of an onnx folder in place. Returns which were quantised, and the loss of R@1.

    The text tower is always quantised, the image tower if it is mostly matrices and costs no more than IMAGE_MAY_COST.
    The cost is measured on the val split of `dataset`. If that is missing, the image tower stays as it is.
    """
    with TemporaryDirectory(dir=folder.parent) as temporary:
        text, image = Path(temporary) / TEXT_FILE, Path(temporary) / IMAGE_FILE
        quantise(folder / TEXT_FILE, text)
        try:
            sample = Sample.read(OnnxModel(folder, "cpu"), dataset)
        except DataError as error:
            _replace(folder / TEXT_FILE, text)
            note = f"the loss of int8 weights could not be measured ({str(error).rstrip('.')})"
            return Int8(files=(TEXT_FILE,), measured=None, note=note)
        pictures = sample.image_embeddings(folder / IMAGE_FILE)
        captions = sample.text_embeddings(text)
        before = sample.recall(pictures, sample.text_embeddings(folder / TEXT_FILE))
        after, files = sample.recall(pictures, captions), [TEXT_FILE]
        kept = "the image tower is mostly convolutions, so its weights stay float32"
        if _share_of_matrices(folder / IMAGE_FILE) >= MOSTLY:
            quantise(folder / IMAGE_FILE, image)
            both = sample.recall(sample.image_embeddings(image), captions)
            cost = float(np.mean([after[name] - both[name] for name in after]))
            kept = f"int8 weights of the image tower would cost {cost:.2f} points of R@1 more, so they stay float32"
            if cost <= IMAGE_MAY_COST:
                after, kept = both, "the image tower is quantised too"
                files.append(IMAGE_FILE)
                _replace(folder / IMAGE_FILE, image)
        _replace(folder / TEXT_FILE, text)
    loss = {name: round(before[name] - after[name], 6) for name in before}
    measured = Int8Measurement(
        data=str(dataset.root.absolute()),
        split=MEASURED_SPLIT,
        images=sample.images,
        captions=len(sample.tokens),
        fp32=before,
        int8=after,
        loss=loss,
    )
    costs = ", ".join(f"{value:+.2f} of {before[name]:.2f} {name}" for name, value in loss.items())
    note = f"int8 weights lose {costs} (in percent, on {sample.images} images of {MEASURED_SPLIT}); {kept}"
    return Int8(files=tuple(files), measured=measured, note=note)


@dataclass(frozen=True)
class Sample:
    """Pictures and captions of a val split as the graphs read them.

    `pixels` uint8 [images, 3, H, W]; `tokens` the ids of each caption; `image_of` int64 [captions].
    """

    pixels: np.ndarray
    tokens: list[list[int]]
    image_of: np.ndarray
    pad_token: int
    head: HeadName

    @property
    def images(self) -> int:
        """The number of pictures."""
        return len(self.pixels)

    @classmethod
    def read(cls, model: OnnxModel, dataset: DatasetFolder) -> Sample:
        """At most MEASURED_IMAGES pictures that have captions. Raises DataError if tables or shards are missing."""
        tables = SplitTables.open(dataset, MEASURED_SPLIT, captions=["cleaned"])
        with_captions = np.unique(tables.image_of_caption)
        if not len(with_captions):
            raise DataError(f"{dataset.annotations} has no caption of the split `{MEASURED_SPLIT}`.")
        reader = ShardReader(dataset.shards(MEASURED_SPLIT))
        places = np.linspace(0, len(with_captions) - 1, min(MEASURED_IMAGES, len(with_captions))).astype(np.int64)
        chosen = with_captions[np.unique(places)]
        taken = np.flatnonzero(np.isin(tables.image_of_caption, chosen))
        captions = tables.captions["cleaned"].take(taken).to_pylist()
        pixels = []
        for position in np.searchsorted(reader.rows, tables.image_rows[chosen]).tolist():
            with decoded_rgb(reader.encoded(position)) as picture:
                pixels.append(model.about.image.array_of(picture))
        image_of = np.searchsorted(chosen, tables.image_of_caption[taken])
        head: HeadName = "cross" if "cross" in model.about.heads else model.about.heads[0]
        return cls(np.stack(pixels), model.tokenise(captions), image_of, model.about.text.pad_token, head)

    def image_embeddings(self, graph: Path) -> np.ndarray:
        """Embeddings of the pictures by the graph in a file, float32 [images, D]."""
        session, rows = Session(graph, "cpu"), np.arange(self.images)
        return np.concatenate(
            [session.run(self.head, {"pixels": self.pixels[batch]}) for batch in batches(rows, "images")]
        )

    def text_embeddings(self, graph: Path) -> np.ndarray:
        """Embeddings of the captions by the graph in a file, float32 [captions, D]."""
        session = Session(graph, "cpu")
        order = np.argsort([len(row) for row in self.tokens], kind="stable")
        parts = [
            session.run(self.head, padded([self.tokens[row] for row in batch], self.pad_token))
            for batch in batches(order, "texts")
        ]
        return np.concatenate(parts)[np.argsort(order, kind="stable")]

    def recall(self, images: np.ndarray, captions: np.ndarray) -> dict[str, float]:
        """i2t_r1 and t2i_r1 in percent of embeddings of the pictures and captions."""
        metrics = image_text_recall(images, captions, self.image_of)
        return {name: metrics[name] for name in ("i2t_r1", "t2i_r1")}


def _replace(path: Path, quantised: Path) -> None:
    """Put a quantised file in the place of a file of float32 weights, and remove what those have beside it."""
    quantised.replace(path)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)


def quantise(source: Path, target: Path) -> None:
    """Write a graph with 8-bit matrices, and 8-bit tables of embeddings if they are large, as one file."""
    import_onnxruntime()
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(source)
    _quantise_tables(model.graph)
    # onnxruntime logs advice to the root logger.
    with root_logger_at(logging.ERROR):
        quantizer = MatMulNBitsQuantizer(
            model, bits=BITS, block_size=BLOCK, is_symmetric=True, accuracy_level=PRODUCTS_IN_INT8
        )
        quantizer.process()
    onnx.save(quantizer.model.model, target)


def _quantise_tables(graph: onnx.GraphProto) -> None:
    """Store the large tables that Gather reads rows of as int8, with a scale for each row."""
    tables = {each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    nodes, replaced = [], set()
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        by_row = all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")
        if table is None or len(table.dims) != 2 or table.dims[0] < LARGE_TABLE or not by_row:
            nodes.append(node)
            continue
        integers, scales, output = f"{table.name}_int8", f"{table.name}_scales", node.output[0]
        if table.name not in replaced:
            rows = numpy_helper.to_array(table)
            scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float32).tiny * LEVELS) / LEVELS
            graph.initializer.extend(
                [
                    numpy_helper.from_array(np.rint(rows / scale).astype(np.int8), integers),
                    numpy_helper.from_array(scale.astype(np.float32), scales),
                ]
            )
            replaced.add(table.name)
        nodes += [
            helper.make_node("Gather", [integers, node.input[1]], [f"{output}_int8"], axis=0),
            helper.make_node("Cast", [f"{output}_int8"], [f"{output}_float"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [scales, node.input[1]], [f"{output}_scale"], axis=0),
            helper.make_node("Mul", [f"{output}_float", f"{output}_scale"], [output]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    for name in replaced - used:
        graph.initializer.remove(tables[name])


def _share_of_matrices(path: Path) -> float:
    """The share of a graph's weights that matrices of MATRICES have."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    matrices = {name for node in graph.node if node.op_type in MATRICES for name in node.input if name in sizes}
    return sum(sizes[name] for name in matrices) / max(1, sum(sizes.values()))

"""The layers of a pre-trained tower, read off the names of its parameters, for learning rates that fall with depth."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Names of block lists in transformers, timm, open_clip and torchvision: encoder.layers.3, blocks.3, layer1.0.
BLOCK = re.compile(r"(?:^|\.)(?:\w*layers?\d*|\w*blocks?|stages?|h)\.\d+(?=\.)")
IMAGE = re.compile(r"(?:^|\.)(?:visual|vision|image)[^.]*")
# Projections that a module defines before its blocks but applies after them, and embeddings that it defines after them.
PROJECTION = re.compile(r"(?:^|[._])(?:projection|proj)(?:\.weight|\.bias)?$")
EMBEDDING = re.compile(r"embed|patch")


def layers_below_the_top(names: Iterable[str]) -> dict[str, int]:
    """For each parameter of a model, in the order of their definition, the number of layers of its tower above its own.

    A layer is a numbered block (`layers.3`, `blocks.3`, `layer1.0`). Embeddings, and what stands before the first
    block, are one layer below it. Norms and projections, and what follows the last block, are one layer above it. Names
    with a part that starts with visual, vision or image are the image tower, all others the text tower. A tower without
    such blocks is one layer.
    """
    towers: dict[bool, list[str]] = {}
    for name in names:
        towers.setdefault(IMAGE.search(name) is not None, []).append(name)
    return {name: above for tower in towers.values() for name, above in _of_tower(tower).items()}


def _of_tower(names: list[str]) -> dict[str, int]:
    blocks = {name: name[: match.end()] for name in names if (match := BLOCK.search(name))}
    order = {block: depth for depth, block in enumerate(dict.fromkeys(blocks.values()), start=1)}
    if not order:
        return dict.fromkeys(names, 0)
    top, passed, depths = len(order) + 1, False, {}
    for name in names:
        passed = passed or name in blocks
        if name in blocks:
            depths[name] = order[blocks[name]]
        elif EMBEDDING.search(name):
            depths[name] = 0
        else:
            depths[name] = top if passed or PROJECTION.search(name) else 0
    return {name: top - depth for name, depth in depths.items()}

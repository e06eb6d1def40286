"""best.safetensors: the same bytes for the same weights."""

from __future__ import annotations

import torch
from safetensors import safe_open

from cusa.common.files import sha256_of_file
from cusa.runs.weights import save_weights


def test_the_file_is_the_same_each_time_and_has_the_metadata(tmp_path):
    """safetensors alone orders metadata by chance."""
    tensors = {"head.weight": torch.arange(6.0).reshape(2, 3), "température": torch.tensor(0.5)}
    metadata = {"epoch": "3", "base_sha256": "ab" * 32, "note": 'a "quoted" ü\\\n'}
    digests = set()
    for order in (metadata, dict(reversed(metadata.items()))):
        for number in range(8):
            save_weights(tmp_path / f"{number}.safetensors", tensors, order)
            digests.add(sha256_of_file(tmp_path / f"{number}.safetensors"))
    assert len(digests) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())

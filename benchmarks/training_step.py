"""A training step with CUSA compared with a contrastive one: CLIP ViT-B/32, 37,632-d teacher features from disk."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import Claim

from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.config.training import Train
from cusa.losses import CUSALoss
from cusa.student.backbones import Backbone
from cusa.student.student import Student
from cusa.teachers.store import FeatureStore
from cusa.teachers.transform import ImageTransform
from cusa.training.batches import TrainingBatch
from cusa.training.step import TrainingTask

BATCH, TOKENS, ROUNDS, ROWS = 16, 16, 9, 2000


class RandomClip(Backbone):
    """CLIP ViT-B/32 with random weights, which needs no hub."""

    tokenises = True
    image_transform = ImageTransform(224, 224, (0.5,) * 3, (0.5,) * 3)
    dimension = 512

    def __init__(self) -> None:
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        self.model = CLIPModel(CLIPConfig())

    def image_features(self, images):
        return self.model.get_image_features(pixel_values=self.image_transform.normalise(images)).pooler_output

    def text_features(self, texts):
        return self.model.get_text_features(**texts).pooler_output


def main() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    backbone = RandomClip()
    families = {
        "contrastive": {"contrastive": {}},
        "cusa": {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}},
    }
    tasks, optimisers = {}, {}
    for name, losses in families.items():
        configuration = validate(LossConfiguration, losses)
        tasks[name] = TrainingTask(Student(backbone, configuration), CUSALoss(configuration), Train(epochs=1)).train()
        optimisers[name] = torch.optim.AdamW(tasks[name].parameters(), lr=1e-6)
    images = torch.randint(0, 255, (BATCH, 3, 224, 224), dtype=torch.uint8)
    texts = {
        "input_ids": torch.randint(3, 40000, (BATCH, TOKENS)),
        "attention_mask": torch.ones(BATCH, TOKENS, dtype=torch.long),
    }
    texts["input_ids"][:, -1] = 49407
    with tempfile.TemporaryDirectory() as name:
        for kind, dimension in (("image", 37_632), ("text", 768)):
            folder = Path(name) / kind
            folder.mkdir()
            np.save(
                folder / "features.npy", rng.standard_normal((ROWS, dimension), dtype=np.float32).astype(np.float16)
            )
            (folder / "meta.json").write_text('{"model": "m", "weights_sha256": ""}')
        stores = {kind: FeatureStore(Path(name) / kind, ROWS) for kind in ("image", "text")}

        def step(experiment: str) -> float:
            rows = np.sort(rng.choice(ROWS, BATCH, replace=False))
            started = time.perf_counter()
            teachers = [None, None]
            if experiment == "cusa":
                teachers = [torch.from_numpy(stores[kind][rows]) for kind in ("image", "text")]
            batch = TrainingBatch(images, texts, *teachers, torch.arange(BATCH))
            losses = tasks[experiment](batch)
            optimisers[experiment].zero_grad(set_to_none=True)
            losses.total.backward()
            optimisers[experiment].step()
            return time.perf_counter() - started

        for experiment in families:
            step(experiment)
        seconds = {experiment: [] for experiment in families}
        for number in range(ROUNDS):
            # The experiments take turns in alternating order, so that a slow phase of the machine affects both.
            for experiment in list(families)[:: 1 if number % 2 else -1]:
                seconds[experiment].append(step(experiment))
    cusa, contrastive = (statistics.median(seconds[name]) for name in ("cusa", "contrastive"))
    measured = f"{cusa / contrastive:.3f} ({cusa:.2f} s against {contrastive:.2f} s, CPU, batch {BATCH})"
    Claim("a CUSA step over a contrastive step, CLIP ViT-B/32", measured, "1.03", cusa / contrastive <= 1.03).report()


if __name__ == "__main__":
    main()

"""Files in the shape of those that the authors published."""

from __future__ import annotations

import os
from pathlib import Path

import yaml


def soft(prefix: str, tau: float, low: float, high: float) -> dict:
    found = {}
    for side in ("image", "text"):
        found |= {f"{prefix}{side}_tau": tau, f"{prefix}{side}_tau_min": low, f"{prefix}{side}_tau_max": high}
    return found


def published(cross: bool = True, uni: bool = True) -> dict:
    """The values of all eight published configurations."""
    common = {"use_loss": "kl", "contrastive_loss_mode": "mean", **soft("the_softlabel_", 1.0, 0.1, 1.0)}
    return {
        "contrastive": {
            "is_on": True,
            "is_block_tau": False,
            "tau": 0.05,
            "tau_min": 0.01,
            "tau_max": 0.10,
            "rate": 1.0,
            "contrastive_loss_mode": "mean",
        },
        "cross_softlabel": {
            "is_on": cross,
            "use_same_tau": True,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 0.99),
            "rate": 0.10,
            **common,
            "cross_softlabel_mode": "each",
            "use_same_softlabel_tau": True,
            "is_block_softlabel_tau": True,
        },
        "uni_softlabel": {
            "is_on": uni,
            "use_cross_softlabel_same_tau": False,
            "use_same_tau": False,
            "is_block_tau": False,
            **soft("", 0.45, 0.10, 1.00),
            "rate": 0.50,
            **common,
            "use_cross_softlabel_same_softlabel_tau": True,
            "use_same_softlabel_tau": False,
            "is_block_softlabel_tau": True,
        },
    }


def published_yaml(folder: Path, student="ViT-B/32", batch_size=128, epochs=30, **changes) -> Path:
    content = {
        "save_path": "output/vitb32/coco/cusa",
        "dataset_name": "cross_coco",
        "data_path": "",
        "batch_size_train": batch_size,
        "batch_size_test": batch_size,
        "batch_size_testall": batch_size,
        "clip_model": student,
        "is_all_gather": False,
        "loss_config": published(),
        "optimizer": {"opt": "adamW", "lr": 0.00001, "weight_decay": 0.0001},
        "schedular": {
            "sched": "cosine",
            "epochs": epochs,
            "min_lr": 0.000001,
            "decay_rate": 1,
            "warmup_lr": 0.00001,
            "warmup_epochs": 0,
            "cooldown_epochs": 0,
        },
    }
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


class Hostile:
    """What a pickle of it would do when it is read by pickle."""

    def __reduce__(self):
        return os.system, ("touch was-here",)

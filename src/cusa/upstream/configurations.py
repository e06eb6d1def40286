"""The published YAML files as sections of our configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cusa.config.experiments import Experiment
from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.errors import ConfigurationError


def loss_config(mapping: Mapping[str, Any]) -> LossConfiguration:
    """Translate a published YAML's `loss_config` mapping into our loss configuration.

    Where USA shares CSA's temperatures although CSA is off, which the published code cannot run, USA's own values
    in the same mapping are used. Raises ConfigurationError naming the key that is missing or wrong.
    """
    try:
        on = {name: section for name, section in mapping.items() if section["is_on"]}
        translated: dict[str, Any] = {}
        if "contrastive" in on:
            translated["contrastive"] = _contrastive(on["contrastive"])
        if "cross_softlabel" in on:
            section = on["cross_softlabel"]
            translated["cross_softlabel"] = {
                **_soft_label(section, share_with_cross=False),
                "mode": section["cross_softlabel_mode"],
            }
        if "uni_softlabel" in on:
            share = "cross_softlabel" in on
            translated["uni_softlabel"] = _soft_label(on["uni_softlabel"], share_with_cross=share)
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the loss_config lacks {error} or holds something else in its place; expected the mapping "
            "`loss_config` of a published YAML file."
        ) from None
    return validate(Experiment, translated).losses


def _contrastive(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rate": section["rate"],
        "reduction": section["contrastive_loss_mode"],
        "temperature": {
            "start": section["tau"],
            "min": section["tau_min"],
            "max": section["tau_max"],
            "learned": not section["is_block_tau"],
        },
    }


def _soft_label(section: Mapping[str, Any], share_with_cross: bool) -> dict[str, Any]:
    def pair(prefix: str, tied: str, blocked: str) -> dict[str, Any]:
        ranges = {
            modality: {
                "start": section[f"{prefix}{modality}_tau"],
                "min": section[f"{prefix}{modality}_tau_min"],
                "max": section[f"{prefix}{modality}_tau_max"],
            }
            for modality in ("image", "text")
        }
        return {**ranges, "tied": section[tied], "learned": not section[blocked]}

    share_logits = share_with_cross and section.get("use_cross_softlabel_same_tau", False)
    share_teacher = share_with_cross and section.get("use_cross_softlabel_same_softlabel_tau", False)
    return {
        "rate": section["rate"],
        "loss": section["use_loss"],
        "reduction": section["contrastive_loss_mode"],
        "temperature": "cross" if share_logits else pair("", "use_same_tau", "is_block_tau"),
        "teacher_temperature": "cross"
        if share_teacher
        else pair("the_softlabel_", "use_same_softlabel_tau", "is_block_softlabel_tau"),
    }


def read_config(path: str | Path) -> dict[str, Any]:
    """One of their YAML files as an overlay of ours, ready to be written as YAML.

    The data stays as it is in the configuration that the overlay is laid on: theirs names a folder, ours a data set.
    Raises ConfigurationError when the file is not one of theirs, or asks for what this project does not do.
    """
    try:
        published = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist; name one of the published YAML files.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML ({error}).") from None
    try:
        optimiser, schedule = published["optimizer"], published["schedular"]
        losses = loss_config(published["loss_config"])
        student, name = published["clip_model"], Path(published["save_path"]).name
        train = {
            "epochs": schedule["epochs"],
            "batch_size": published["batch_size_train"],
            "eval_batch_size": published["batch_size_testall"],
            "lr": optimiser["lr"],
            "min_lr": schedule["min_lr"],
            "weight_decay": optimiser["weight_decay"],
            "schedule": "epoch",
            "warmup_steps": 0,
        }
        other = {
            "optimizer.opt": (str(optimiser["opt"]).lower(), "adamw"),
            "schedular.sched": (schedule["sched"], "cosine"),
            "schedular.warmup_epochs": (schedule.get("warmup_epochs", 0), 0),
            "schedular.cooldown_epochs": (schedule.get("cooldown_epochs", 0), 0),
            "schedular.decay_rate": (schedule.get("decay_rate", 1), 1),
            "is_all_gather": (published.get("is_all_gather", False), False),
        }
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} lacks {error} or holds something else in its place; expected one of the published YAML files."
        ) from None
    if wrong := [f"{key} is {found!r}, only {known!r} is" for key, (found, known) in other.items() if found != known]:
        raise ConfigurationError(f"{path}: {'; '.join(wrong)} supported.")
    return {
        "student": {"name": student, "towers": None},
        "train": train,
        "experiments": {re.sub(r"[^A-Za-z0-9_.\-]", "-", name): losses.model_dump(mode="json")},
    }

"""Translation of the published YAML files into sections of this project's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cusa.config.experiments import Experiment
from cusa.config.files import read_file
from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.config.training import Train
from cusa.errors import ConfigurationError


def loss_config(mapping: Mapping[str, Any]) -> LossConfiguration:
    """Translate the mapping `loss_config` of a published YAML file into a LossConfiguration.

    A file may say that USA shares the temperatures of CSA although CSA is off. The published code cannot run this;
    here USA's own values in the same mapping are used. Raises ConfigurationError that names the missing or wrong key.
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
            f"the mapping `loss_config` lacks a key, or a key has the wrong type ({type(error).__name__}: {error}); "
            "expected the `loss_config` of a published YAML file."
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
    """Translate a published YAML file into an overlay: a mapping that can be written as YAML for --configfile.

    The overlay has no section `dataset`, because the published files name only a folder. Raises ConfigurationError
    when the file is not a published one, or has a setting that this project does not support, and for what `read_file`
    refuses in files of this project too.
    """
    published = read_file(path)
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
        # Settings that this project has in one way only: the value in the file, and the value that is supported.
        fixed = {
            "optimizer.opt": (str(optimiser["opt"]).lower(), "adamw"),
            "schedular.sched": (schedule["sched"], "cosine"),
            "schedular.warmup_epochs": (schedule.get("warmup_epochs", 0), 0),
            "schedular.cooldown_epochs": (schedule.get("cooldown_epochs", 0), 0),
            "schedular.decay_rate": (schedule.get("decay_rate", 1), 1),
            "is_all_gather": (published.get("is_all_gather", False), False),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} lacks a key, or a key has the wrong type ({type(error).__name__}: {error}); expected one of the "
            "published YAML files."
        ) from None
    differing = [(key, value, supported) for key, (value, supported) in fixed.items() if value != supported]
    if differing:
        problems = [f"{key} is {value!r}, only {supported!r} is supported" for key, value, supported in differing]
        raise ConfigurationError(f"{path}: {'; '.join(problems)}.")
    try:
        validate(Train, train, at="train")
    except ConfigurationError as error:
        raise ConfigurationError(f"{path} would give train a wrong value: {error}") from None
    return {
        "captions": {"clean": "published", "max_words": 64},
        "student": {"name": student, "towers": None},
        "train": train,
        "experiments": {re.sub(r"[^A-Za-z0-9_.\-]", "-", name): losses.model_dump(mode="json")},
    }

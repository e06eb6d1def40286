"""Reading what the authors of the paper published: here, the `loss_config` of their YAML files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cusa.config import LossConfiguration, validate
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
    return validate(LossConfiguration, translated)


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

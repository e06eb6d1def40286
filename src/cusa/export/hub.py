"""Uploads an exported folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cusa.errors import ConfigurationError, DataError, cause_of, reason_of


def require_name(name: str) -> None:
    """Raise ConfigurationError unless `name` can be that of a repository at the hub: NAME or OWNER/NAME."""
    from huggingface_hub import utils
    from huggingface_hub.errors import HFValidationError

    validators: Any = utils  # it is not in the names that this module lists
    try:
        validators.validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigurationError(
            f"--push-to-hub {name!r} is not a valid name of a repository ({reason_of(error)}); give NAME or OWNER/NAME."
        ) from None


def require_login() -> None:
    """Raise ConfigurationError unless there is a token for the hub, before hours of work are spent."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise ConfigurationError(
            "--push-to-hub needs a token of the Hugging Face hub that may write, and there is none; run `hf auth "
            "login`, or set HF_TOKEN."
        )


def push(folder: Path, name: str) -> str:
    """Upload a folder to the repository `name`, which is made, private, if it does not exist; returns its address.

    Files of the repository that the folder does not have stay. Raises DataError if the hub cannot be reached or
    refuses; the folder is complete all the same.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    again = f"The folder is complete; upload it with `hf upload {name} {folder}`."
    api = HfApi()
    try:
        address = api.create_repo(name, repo_type="model", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=str(folder),
            repo_type="model",
            commit_message=f"cusa export {folder.name}",
        )
    except HfHubHTTPError as error:
        raise DataError(
            f"the Hugging Face hub refuses {name} ({reason_of(error)}); check that the token may write there. {again}"
        ) from error
    except Exception as error:  # without a network, HTTP libraries raise errors of their own kinds
        raise DataError(f"the Hugging Face hub cannot be reached ({cause_of(error)}). {again}") from error
    return str(address)

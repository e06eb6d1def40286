"""What `cusa init` says about data that it does not read: what they are, and how they become data that it reads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cusa.commands.packed_files import MOST_ENTRIES, is_too_large
from cusa.commands.split_files import files_in
from cusa.common.image_files import IMAGE_ENDINGS
from cusa.config.data_files import TABLE_ENDINGS
from cusa.errors import ConfigurationError

ADDRESS = re.compile(r"\w+:/+\w")
ON_HUB = re.compile(r"https?:/+(?:www\.)?huggingface\.co/datasets/([\w-]+/[\w.-]+)")
NAME_ON_HUB = re.compile(r"([\w-]+/[\w.-]+)")
SAVED = ("dataset_info.json", "state.json")  # beside the Arrow files of one split


def how_to_download(name: str) -> str:
    """A remark about a name that is an address, or may be one on Hugging Face's hub; empty for other names."""
    is_address = ADDRESS.match(name) is not None
    on_hub = ON_HUB.match(name) if is_address else None
    known = (on_hub or NAME_ON_HUB.fullmatch(name)) if on_hub or not Path(name).parent.exists() else None
    if known is None:
        return " It is an address; download the data first." if is_address else ""
    folder = known[1].rpartition("/")[2]
    return (
        f" If it is a data set of Hugging Face's hub, `hf download --repo-type dataset {known[1]} --local-dir "
        f"{folder}` downloads it, and `cusa init {folder}` looks at it."
    )


def how_to_name(folder: Path) -> str:
    """A remark about a folder without readable files."""
    if is_too_large(folder):
        return (
            f" It holds more than {MOST_ENTRIES:,} files and folders, and was looked at no deeper than in its folders; "
            "name the folder that holds your data."
        )
    below = [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    for place in (folder, *below):
        pictures = [child for child in files_in(place, IMAGE_ENDINGS) if child.suffix]
        for ending, what in ((".txt", "text files"), (".json", "JSON files")):
            if any(picture.with_suffix(ending).is_file() for picture in pictures):
                return (
                    f" Pictures with their captions in {what} of the same names are read from tars: "
                    f"tar --sort=name -cf pairs.tar -C {shlex.quote(str(place))} . makes one."
                )
        if any(picture.with_suffix(".caption").is_file() for picture in pictures):
            return (
                f" Rename the captions in {place} from .caption to .txt; a tar of them and the pictures is then read."
            )
        if pictures and not files_in(folder, TABLE_ENDINGS):
            return (
                f" {place} has pictures, but no captions; write a table with a column of names and one of captions. A "
                "search without captions takes a pre-trained model: `cusa import-model --help`."
            )
    return ""


def refuse_saved(folder: Path) -> None:
    """Raise ConfigurationError for a folder that `save_to_disk` of Hugging Face's datasets wrote."""
    if (folder / "dataset_dict.json").is_file() or all((folder / name).is_file() for name in SAVED):
        raise ConfigurationError(
            f"{folder} is a data set in Arrow, as save_to_disk of Hugging Face's datasets writes it; write each split "
            "as Parquet: load_from_disk(FOLDER)[SPLIT].to_parquet('SPLIT.parquet'), without [SPLIT] if there is none."
        )

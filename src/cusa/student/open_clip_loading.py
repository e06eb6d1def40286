"""Finds a model of open_clip: its architecture, its weights, its preprocessing and its tokeniser."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cusa.common.files import expand_home, expanded
from cusa.common.root_logger import root_logger_at
from cusa.config.models import OPEN_CLIP, StudentSettings, is_weights_file
from cusa.errors import ConfigurationError, CusaError, DataError, cause_of
from cusa.student.open_clip_files import shapes_in, warn_of_resized

log = logging.getLogger(__name__)

CONFIGURATION = "open_clip_config.json"
FOLDER, HUB = "local-dir:", "hf-hub:"
# open_clip's names for how pictures are prepared.
LOOKS = ("mean", "std", "interpolation", "resize_mode")
TOKENISER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class Loaded:
    """A model of open_clip, its tokeniser, and the settings of its architecture."""

    model: Any
    tokeniser: Any
    model_settings: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """The arguments for open_clip: a name, a tag or a file of weights, and how pictures are prepared.

    The tag is None for folders and for models of the hub, which have their weights and settings beside them; `looks` is
    None if open_clip knows it.
    """

    name: str
    pretrained: str | None
    quick_gelu: bool = False
    looks: Mapping[str, Any] | None = None

    @property
    def beside_it(self) -> bool:
        """Whether weights and settings lie in the folder or the repository that `name` names."""
        return self.name.startswith((FOLDER, HUB))


def is_open_clip_folder(name: str) -> bool:
    """Whether a name is a folder as open_clip saves a model, which transformers cannot read."""
    folder = expanded(name)
    return (folder / CONFIGURATION).is_file() and not (folder / "config.json").is_file()


def load_open_clip(settings: StudentSettings, weights: bool = True) -> Loaded:
    """The model that `settings.name` and `settings.pretrained` name; for its errors see OpenClip.load."""
    name = settings.name
    assert name is not None
    try:
        import open_clip
    except ImportError:
        raise ConfigurationError(
            f"student.name {name} is a model of open_clip, which is not installed: it needs open_clip; run pip install "
            "-e '.[open-clip]'."
        ) from None
    source = _source(name, settings.pretrained)
    keys: dict[str, Any] = {"force_quick_gelu": source.quick_gelu}
    if source.looks is not None:
        keys["force_preprocess_cfg"] = {key: source.looks[key] for key in LOOKS if key in source.looks}
    if weights:
        keys |= {"pretrained": source.pretrained, "require_pretrained": True}
    else:
        keys |= {"pretrained": None, "load_weights": False, "pretrained_text": False}
    file = Path(source.pretrained) if source.pretrained is not None and is_weights_file(source.pretrained) else None
    shapes: Mapping[str, tuple[int, ...]] = {}
    try:
        if weights and file is not None:
            shapes = shapes_in(file)
        # open_clip logs each of its steps, and also the errors that it raises, to the root logger.
        with root_logger_at(logging.CRITICAL):
            model = open_clip.create_model(source.name, **keys)
    except DataError as error:
        raise ConfigurationError(
            f"the weights of student.name {name} could not be had ({str(error).removesuffix('.')}). {_advice(source)}"
        ) from None
    except CusaError:
        raise
    except Exception as error:  # open_clip and the hub raise anything at weights that do not fit or are not there
        raise ConfigurationError(
            f"the weights of student.name {name} could not be had ({cause_of(error)}). {_advice(source)}"
        ) from error
    if file is not None:
        warn_of_resized(file, shapes, model)
    about = dict(open_clip.get_model_config(source.name) or {})
    if source.quick_gelu:
        about["quick_gelu"] = True
    return Loaded(model.eval(), _tokeniser(source, name), about)


def _advice(source: Source) -> str:
    if source.name.startswith(FOLDER):
        return f"The folder needs weights that belong to its {CONFIGURATION}."
    if source.pretrained is not None and is_weights_file(source.pretrained):
        return f"The file {source.pretrained} has to hold the weights of this architecture."
    return (
        "open_clip fetches them once, from where there is a network; or copy the file, and give its path as "
        "student.pretrained."
    )


def _source(name: str, pretrained: str | None) -> Source:
    """The arguments for open_clip by the student's name and weights. Raises ConfigurationError for unknown ones."""
    if is_open_clip_folder(name):
        return Source(f"{FOLDER}{expand_home(name)}", None)
    architecture = name.removeprefix(OPEN_CLIP)
    if architecture == name:  # a published name of a ResNet CLIP, whose weights are OpenAI's
        return Source(f"{name}-quickgelu", "openai")
    if architecture.startswith((HUB, FOLDER)):
        if pretrained is not None:
            raise ConfigurationError(
                f"student.pretrained is {pretrained}, but {architecture} has its weights beside it; leave it out."
            )
        return Source(architecture, None)
    return _known_architecture(architecture, pretrained)


def _known_architecture(architecture: str, pretrained: str | None) -> Source:
    import open_clip

    about = open_clip.get_model_config(architecture)
    if about is None:
        known = open_clip.list_models()
        near = ", ".join(get_close_matches(architecture, known, n=3, cutoff=0.3)) or "none is near"
        raise ConfigurationError(
            f"student.name {OPEN_CLIP}{architecture}: open_clip {open_clip.__version__} has no architecture of this "
            f"name among its {len(known)} (near it: {near})."
        )
    tags: list[str] = open_clip.list_pretrained_tags_by_model(architecture)
    listed = ", ".join(tags) or "none"
    if pretrained is None:
        if len(tags) == 1:
            return _tagged(architecture, tags[0])
        raise ConfigurationError(
            f"student.name {OPEN_CLIP}{architecture} has {len(tags)} sets of weights; give student.pretrained, one of "
            f"them ({listed}) or the path of a file."
        )
    if not is_weights_file(pretrained):
        if not open_clip.get_pretrained_cfg(architecture, pretrained):
            raise ConfigurationError(
                f"student.pretrained {pretrained}: open_clip knows no such weights of {architecture}; it knows "
                f"{listed}. A file is given by its path, for instance ./{pretrained}.safetensors."
            )
        return _tagged(architecture, pretrained)
    path = Path(expand_home(pretrained))
    if not path.is_file():
        raise ConfigurationError(
            f"student.pretrained {pretrained} does not exist (relative paths start at {Path.cwd()})."
        )
    return Source(architecture, str(path), looks=_looks_of_file(path, architecture, tags))


def _tagged(architecture: str, tag: str) -> Source:
    """Weights by their tag. Some were trained with another activation (QuickGELU) than their architecture has."""
    import open_clip

    weights = open_clip.get_pretrained_cfg(architecture, tag)
    return Source(architecture, tag, quick_gelu=bool(weights.get("quick_gelu", False)), looks=weights)


def _looks_of_file(path: Path, architecture: str, tags: list[str]) -> Mapping[str, Any] | None:
    """How pictures are prepared for weights in a file: as open_clip's file beside it says, else as for the tags.

    If the tags differ, open_clip's default is taken, and the log says so.
    """
    import open_clip

    beside = path.parent / CONFIGURATION
    if beside.is_file():
        try:
            found: Mapping[str, Any] = json.loads(beside.read_text(encoding="utf-8"))["preprocess_cfg"]
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigurationError(
                f"{beside} does not say how pictures are prepared ({cause_of(error)}); expected JSON with a "
                "`preprocess_cfg`. Correct it, or move the weights to another folder."
            ) from None
        return found
    known = [
        {key: weights.get(key) for key in LOOKS}
        for weights in (open_clip.get_pretrained_cfg(architecture, tag) for tag in tags)
    ]
    if known and all(each == known[0] for each in known):
        return known[0]
    log.warning(
        "%s: pictures are prepared as OpenAI's CLIP does it, because open_clip %s; put the %s of the weights beside "
        "them if they were trained otherwise",
        path,
        f"prepares them in several ways for its weights of {architecture}" if known else f"has none of {architecture}",
        CONFIGURATION,
    )
    return None


def _tokeniser(source: Source, name: str) -> Any:
    """The model's tokeniser, from the folder of the weights where its files lie there."""
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    about = (open_clip.get_model_config(source.name) or {}).get("text_cfg", {})
    folder = None
    if source.pretrained is not None and is_weights_file(source.pretrained) and about.get("hf_tokenizer_name"):
        folder = Path(source.pretrained).parent
    try:
        if folder is not None and any((folder / file).is_file() for file in TOKENISER_FILES):
            return HFTokenizer(
                str(folder),
                context_length=about.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
                tokenizer_mode=about.get("tokenizer_mode"),
                **about.get("tokenizer_kwargs", {}),
            )
        with root_logger_at(logging.CRITICAL):
            return open_clip.get_tokenizer(source.name)
    except Exception as error:  # transformers raises anything where files are missing
        raise ConfigurationError(
            f"the tokeniser of student.name {name} could not be had ({cause_of(error)}). It is fetched once, from "
            "where there is a network; or put its files (tokenizer.json, tokenizer_config.json) beside the weights, "
            "and give the path of these as student.pretrained."
        ) from error

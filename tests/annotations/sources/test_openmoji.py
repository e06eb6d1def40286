"""The embedded default's source."""

from __future__ import annotations

from collections import Counter

import pytest
from PIL import Image

from cusa.annotations.sources.openmoji import Emoji, OpenMojiSource, base_emoji
from cusa.config.dataset import OpenMojiDataset
from cusa.errors import ConfigurationError


def source(tmp_path, **settings) -> OpenMojiSource:
    return OpenMojiSource(OpenMojiDataset(name="e", format="openmoji", **settings), tmp_path)


def test_all_emoji_with_a_picture_are_found(tmp_path):
    emoji = source(tmp_path).emoji
    assert len(emoji) == 1918  # 1,711 named exactly like their picture, 207 but for the variation selector
    assert len({one.image_id for one in emoji}) == len(emoji)


def test_names_and_keywords_are_text_and_not_markup(tmp_path):
    captions = {caption for one in source(tmp_path).emoji for caption in one.captions}
    assert "flag: Trinidad & Tobago" in captions
    assert not [caption for caption in captions if "&amp;" in caption or "&#" in caption]


@pytest.mark.parametrize(
    ("one", "other"),
    [("🏃", "🏃🏽‍♀️"), ("👩‍🚒", "👨🏿‍🚒"), ("🧑‍🚒", "👩‍🚒"), ("👨‍🦰", "👩"), ("🏃‍➡️", "🏃‍♂️"), ("👍", "👍🏻")],
)
def test_variants_share_a_base(one, other):
    assert base_emoji(one) == base_emoji(other)


def test_different_emoji_do_not_share_a_base():
    assert base_emoji("🐶") != base_emoji("🐱")
    assert base_emoji("🇫🇷") != base_emoji("🇩🇪")
    assert base_emoji("🏽") != ()  # a skin tone alone is still an emoji


def test_no_base_is_in_two_splits(tmp_path):
    splits = source(tmp_path).splits
    bases = {split: {base_emoji(one.characters) for one in members} for split, members in splits.items()}
    assert not bases["train"] & bases["val"]
    assert not bases["train"] & bases["test"]
    assert not bases["val"] & bases["test"]
    assert len(splits["test"]) >= 300
    assert len(splits["val"]) >= 150


def test_the_split_depends_on_its_seed_alone(tmp_path):
    ids = [[one.image_id for one in source(tmp_path, split_seed=seed).splits["test"]] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_labelled_variants_belong_to_held_out_emoji(tmp_path):
    emoji = source(tmp_path)
    held_out = {one.image_id for one in emoji.splits["test"]}
    counts = Counter(one.image_id for one, _, _ in emoji.variants)
    assert set(counts) <= held_out
    assert min(counts.values()) >= 6  # itself and five skin tones


def test_variants_are_called_by_their_names(tmp_path):
    """A search shows these names, because the variants have no captions."""
    emoji = source(tmp_path)
    names = [name for _, _, name in emoji.variants]
    assert len(set(names)) == len(names)
    assert not {one.image_id for split in emoji.splits.values() for one in split}.intersection(names)
    plain = [name for one, picture, name in emoji.variants if picture == one.svg]
    assert plain == [one.name for one in dict.fromkeys(one for one, _, _ in emoji.variants)]
    assert all("skin tone" in name for name in set(names).difference(plain))


def test_captions_are_the_name_and_the_other_keywords(tmp_path):
    emoji = Emoji("x", tmp_path / "X.svg", "waving hand", ("hand", "wave", "waving hand"), "people_body")
    assert emoji.captions == ["waving hand", "hand, wave"]
    assert Emoji("x", tmp_path / "X.svg", "knot", (), "objects").captions == ["knot"]


def test_labels_are_groups_where_they_are_asked_for(tmp_path):
    """Those of the variants stay, because image retrieval searches for the same emoji."""
    groups = ["food_drink", "people_body"]
    emoji = source(tmp_path / "pics", groups=groups, labels="group", picture_size=8)
    labels = {record.split: set() for record in emoji.records()}
    for record in emoji.records():
        labels[record.split].add(record.label)
    assert labels["test"] == labels["train"] == set(groups)
    assert labels["variants"].isdisjoint(groups)


def test_records_of_one_group(tmp_path):
    emoji = source(tmp_path / "pics", groups=["food_drink"], test_images=20, val_images=10, picture_size=32)
    records = list(emoji.records())
    assert {record.split for record in records} == {"train", "val", "test"}
    with Image.open(records[0].image_path) as picture:
        assert picture.size == (32, 32)
        assert picture.convert("RGBA").getextrema()[3] == (255, 255)


def test_only_people_have_skin_tones(tmp_path):
    assert source(tmp_path).dataset.absent() == {}
    assert source(tmp_path, groups=["flags", "people_body"]).dataset.absent() == {}
    others = source(tmp_path, groups=["food_drink", "animals_nature"], test_images=20)
    assert others.dataset.absent().keys() == {"variants"}
    assert others.variants == []


def test_people_without_skin_tones_in_test_are_refused(tmp_path):
    few = source(tmp_path, groups=["flags", "people_body"], test_images=1, val_images=1)
    with pytest.raises(ConfigurationError, match="None of the 3 emoji of test has skin-tone variants.*test_images"):
        few.variants  # noqa: B018


def test_positives_list_every_emoji_of_a_keyword(tmp_path):
    emoji = source(tmp_path, groups=["animals_nature"], test_images=60, val_images=10)
    pairs = list(emoji.extended_positives())
    members = {one.image_id: one for one in emoji.splits["test"]}
    assert any(count > 3 for count in Counter(caption for caption, _ in pairs).values())
    for caption, image_id in pairs:
        assert caption in members[image_id].keywords or caption == members[image_id].name


def test_sentence_pairs_are_half_without_overlap(tmp_path):
    pairs = list(source(tmp_path, groups=["animals_nature"], test_images=60, val_images=10).sentence_pairs())
    assert all(0 <= pair.score <= 1 for pair in pairs)
    alike = sum(pair.score > 0 for pair in pairs)
    assert alike * 2 == len(pairs)


def test_unknown_groups_and_too_large_splits_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"dataset.groups has unknown \['fod'\]"):
        source(tmp_path, groups=["fod"]).emoji  # noqa: B018
    with pytest.raises(ConfigurationError, match="leave none of the"):
        source(tmp_path, groups=["component"]).splits  # noqa: B018

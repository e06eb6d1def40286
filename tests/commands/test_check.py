"""`cusa check` finds problems before the workflow runs for hours."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from format_files import write_parquet_struct
from PIL import Image

from cusa.commands.check import check
from cusa.commands.finding import require_sound
from cusa.errors import ConfigurationError


def found(mapping, **options) -> dict[str, tuple[str, bool]]:
    return {finding.subject: (finding.text, finding.sound) for finding in check(mapping, **options)}


def test_a_sound_configuration(tiny_configuration, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    findings = found(tiny_configuration)
    assert all(sound for _, sound in findings.values())
    assert findings["split train"][0] == "32 images, 64 captions"
    assert findings["images looked at"][0] == "48 of 48"
    teachers = tiny_configuration["teachers"]
    assert "24 numbers a row" in findings[f"image model {teachers['image']['name']}"][0]
    assert "20 numbers a row" in findings[f"text model {teachers['text']['name']}"][0]
    assert findings["student of contrastive"][0].startswith(str(tiny_clip))
    assert "train.gpus is 0" in findings["device"][0]
    assert not list(tmp_path.iterdir())


def test_pretrained_weights_at_the_rate_of_new_heads_are_doubtful(tiny_configuration):
    def doubtful(**train):
        changed = tiny_configuration | {"train": tiny_configuration["train"] | {"lr": 0.002, **train}}
        return [finding.text for finding in check(changed) if finding.doubtful and finding.subject == "learning rate"]

    (text, *_) = doubtful()
    assert "with the learning rate 0.002" in text
    assert "set train.tower_lr, for instance to 1e-5" in text
    assert doubtful(tower_lr=1e-5) == []


def test_images_without_labels_are_a_finding_where_a_benchmark_reads_them(tiny_configuration):
    benchmarks = {"zero_shot_classification": {"dataset_images": True}, "linear_probe": {"dataset_images": True}}
    findings = found(tiny_configuration | {"benchmarks": benchmarks})
    text, sound = findings["labels for zero_shot_classification in test"]
    assert not sound
    assert "no image has a label; name the column of labels in dataset.columns.label" in text
    assert not findings["labels for linear_probe in train"][1]


def test_the_trained_part_of_a_student_is_counted_and_names_that_do_not_exist_are_findings(tiny_configuration):
    student = tiny_configuration["student"]
    own = {"contrastive": {}, "student": student | {"adapt": {"image": {"last_layers": 4}}}}
    findings = found(
        tiny_configuration
        | {
            "student": student | {"adapt": {"image": {"lora": {"rank": 2}}, "text": {"frozen": ["*"]}}},
            "experiments": tiny_configuration["experiments"] | {"deep": own},
        }
    )
    assert findings["student of contrastive"][1]
    assert "million are trained (student.adapt)" in findings["student of contrastive"][0]
    text, sound = findings["student of deep"]
    assert not sound
    assert "`student.adapt.image.last_layers` is 4, but the image side has 1 layers; give at most as many" in text


def test_an_interpolation_of_adapters_is_sized_as_a_whole_model(tiny_configuration):
    student = tiny_configuration["student"] | {"adapt": {"image": {"lora": {"rank": 2}}}}
    between = {"interpolate": {"experiment": "contrastive", "alphas": [0.5]}}
    experiments = {"contrastive": {"contrastive": {}}, "between": between}
    findings = found(tiny_configuration | {"student": student, "experiments": experiments})
    assert "student.adapt" in findings["student of contrastive"][0]
    assert "student.adapt" not in findings["student of between"][0]


def test_chunks_of_a_student_that_normalises_over_the_batch_are_a_finding(tiny_configuration):
    text = tiny_configuration["teachers"]["text"]["name"]
    towers = {"image": {"name": "efficientnet-lite0"}, "text": {"name": text}, "dimension": 8}
    train = {**tiny_configuration["train"], "chunk_size": 4}
    findings = found({**tiny_configuration, "student": {"name": None, "towers": towers}, "train": train})
    text, sound = findings["training of contrastive"]
    assert not sound
    assert "`train.chunk_size`: the student normalises over the batch" in text


@pytest.mark.parametrize(
    ("towers", "settings", "told"),
    [
        ("efficientnet-lite0", {}, "the student normalises over the batch"),
        ("vit", {"augmentation": {"image": {}}}, "changes the picture of each pair"),
        ("vit", {}, None),
    ],
    ids=["batch-norm", "changed-pictures", "saves"],
)
def test_images_that_are_not_shared_by_their_captions_are_told(
    tiny_configuration, tiny_vision, tiny_sentences, towers, settings, told
):
    image = str(tiny_vision) if towers == "vit" else towers
    pair = {"image": {"name": image}, "text": {"name": str(tiny_sentences)}, "dimension": 8}
    train = {**tiny_configuration["train"], "captions_per_image": "all", **settings}
    findings = found({**tiny_configuration, "student": {"name": None, "towers": pair}, "train": train})
    if told is None:
        assert "captions of an image in contrastive" not in findings
    else:
        assert told in findings["captions of an image in contrastive"][0]


@pytest.mark.parametrize(
    ("changed", "told"),
    [({}, "0.0% of captions have several parts"), ({"drop_words": 0.2}, None)],
    ids=["parts", "words"],
)
def test_captions_of_one_part_are_told_where_only_parts_are_changed(
    tiny_configuration, shapes, tmp_path, changed, told
):
    rows = json.loads((shapes / "train.json").read_text())
    for row in rows:
        row["caption"] = row["caption"].replace(",", "")
    places = {split: str(tmp_path / f"{split}.json") for split in ("train", "val", "test")}
    for place in places.values():
        Path(place).write_text(json.dumps(rows))
    dataset = {**tiny_configuration["dataset"], "annotations": places, "image_root": str(shapes)}
    train = {**tiny_configuration["train"], "augmentation": {"caption": changed}}
    findings = list(check({**tiny_configuration, "dataset": dataset, "train": train}))
    parts = [each for each in findings if each.subject == "parts of captions"]
    assert len(parts) == (told is not None)
    assert all(each.doubtful and told in each.text for each in parts)


def test_a_caption_of_many_images_is_told(tiny_configuration, shapes, tmp_path):
    """Such as what a site shows where there is no text. Few equal captions are usual."""
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    files = {split: str(data / f"{split}.json") for split in ("train", "val", "test")}
    changed = {**tiny_configuration, "dataset": {**tiny_configuration["dataset"], "annotations": files}}
    assert "equal captions" not in found(changed)
    rows = json.loads((data / "train.json").read_text())
    for row in rows[:12]:
        row["caption"] = "No description."
    (data / "train.json").write_text(json.dumps(rows))
    (told,) = [finding for finding in check(changed) if finding.subject == "equal captions"]
    assert told.doubtful
    assert "`No description.` 12 times; for each of them, all images but its own count as wrong answers" in told.text


def test_problems_of_the_data_are_findings(tiny_configuration, shapes, tmp_path):
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    rows = json.loads((data / "train.json").read_text())
    rows[0]["caption"] = "?"
    (data / "train.json").write_text(json.dumps(rows))
    (data / "pics" / rows[4]["image_id"]).unlink()
    files = {split: str(data / f"{split}.json") for split in ("train", "val", "test")}
    dataset = {**tiny_configuration["dataset"], "annotations": files}
    findings = found({**tiny_configuration, "dataset": dataset})
    text, sound = findings["missing image"]
    assert not sound
    assert text.startswith("1 image files that do not exist")
    assert "add missing_image to dataset.skip" in text
    assert rows[4]["image_id"] in text
    assert not findings["empty caption"][1]
    dataset["skip"] = ["missing_image", "empty_caption"]
    findings = found({**tiny_configuration, "dataset": dataset})
    assert findings["missing image"][0].startswith("1 skipped, as dataset.skip says")
    assert findings["missing image"][1]


def test_sentence_pairs_are_read_before_anything_is_trained(tiny_configuration, tmp_path):
    places = {name: tmp_path / f"{name}.tsv" for name in ("nan", "same", "sound")}
    for path, scores in zip(places.values(), (("1", "nan"), ("2", "2"), ("1", "2")), strict=True):
        path.write_text("first\tsecond\tscore\n" + "".join(f"a dog\ta hound\t{score}\n" for score in scores))
    benchmarks = {
        **tiny_configuration.get("benchmarks", {}),
        "sts": {"sentence_pairs": {k: str(v) for k, v in places.items()}},
    }
    findings = found({**tiny_configuration, "benchmarks": benchmarks})
    text, sound = findings["sentence pairs nan"]
    assert not sound
    assert "nan.tsv, line 3: the score is 'nan'" in text
    assert findings["sentence pairs same"] == ("2 pairs, all of one score, so no correlation is defined", True)
    assert findings["sentence pairs sound"] == ("2 pairs", True)


def test_the_clean_up_of_captions_is_named(tiny_configuration):
    assert found(tiny_configuration)["captions"] == ("caption clean-up none, any number of words", True)
    published = {**tiny_configuration, "captions": {"clean": "published", "max_words": 9}}
    assert found(published)["captions"][0] == "caption clean-up published, at most 9 words"
    theirs = {"theirs": {"file": __file__, "student": tiny_configuration["student"]["name"]}}
    findings = {finding.subject: finding for finding in check({**tiny_configuration, "checkpoints": theirs})}
    assert findings["captions"].doubtful
    assert "theirs learned from captions cleaned as published" in findings["captions"].text


def test_captions_that_the_models_have_no_words_for_are_told_but_stop_nothing(tiny_configuration, shapes, tmp_path):
    """The tiny models know a few English words; every third caption is in Amharic here."""
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    for split in ("train", "val", "test"):
        rows = json.loads((data / f"{split}.json").read_text())
        for number, row in enumerate(rows):
            english = row["caption"].lower().replace(",", "").rstrip(".")
            row["caption"] = f"ቀይ ፖም {number}" if number % 3 == 0 else english
        (data / f"{split}.json").write_text(json.dumps(rows))
    files = {split: str(data / f"{split}.json") for split in ("train", "val", "test")}
    mapping = {**tiny_configuration, "dataset": {**tiny_configuration["dataset"], "annotations": files}}
    findings = {finding.subject: finding for finding in check(mapping)}
    text, student = tiny_configuration["teachers"]["text"]["name"], "tokens of the student of contrastive"
    for subject in (f"tokens of {text}", student):
        finding = findings[subject]
        assert finding.sound
        assert finding.doubtful
        assert finding.lines()[0].startswith(f"WARN  {subject}: ")
        assert "distinct texts become" in finding.text
        assert "(Ethiopic 100%)" in finding.details["unknown tokens"]
        assert finding.details["Ethiopic"].startswith("34 captions, 100.0% unknown tokens")
        assert "rows of tokens, so the model cannot tell captions apart" in finding.details["equal captions"]
    assert "google/siglip2-base-patch16-224" in findings[student].details["unknown tokens"]
    require_sound(list(findings.values()))

    known = {finding.subject: finding for finding in check({**tiny_configuration, "captions": {"clean": "published"}})}
    assert known[student].lines()[0].startswith(f"ok    {student}: 0.0% unknown tokens; ")


def test_images_are_sampled_unless_all_are_asked_for(tiny_configuration, monkeypatch):
    monkeypatch.setattr("cusa.commands.check.SAMPLED_IMAGES", 10)
    assert found(tiny_configuration)["images looked at"][0] == "10 of 48"
    assert found(tiny_configuration, every_image=True)["images looked at"][0] == "48 of 48"


def test_pictures_that_the_format_writes_are_sized_and_only_sampled(tiny_configuration, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("cusa.commands.check.SAMPLED_IMAGES", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    rows = {split: json.loads((shapes / f"{split}.json").read_text()) for split in ("train", "val", "test")}
    for row in (row for members in rows.values() for row in members):
        row["image_path"] = str(shapes / row["image_path"])
    dataset = {"name": "packed", **write_parquet_struct(tmp_path, rows)}
    findings = found({**tiny_configuration, "dataset": dataset})
    assert all(sound for _, sound in findings.values())
    assert findings["images looked at"][0] == "10 of 48"
    assert findings["pictures"][0] == "0.00 GB for 48 images, in results/packed/images"
    assert not list((tmp_path / "scratch").iterdir())


def test_models_that_cannot_be_had_are_findings(tiny_configuration, tmp_path):
    (tmp_path / "empty").mkdir()
    mapping = {**tiny_configuration, "student": {"name": str(tmp_path / "empty"), "towers": None}}
    mapping["teachers"] = {**tiny_configuration["teachers"], "text": {"name": str(tmp_path / "empty")}}
    findings = found(mapping)
    assert not findings["student of contrastive"][1]
    assert not findings[f"text model {tmp_path / 'empty'}"][1]
    assert "could not be loaded" in findings["student of contrastive"][0]


def test_baselines_alone_are_checked_too(tiny_configuration, tmp_path):
    """Nothing is trained; the teachers are loaded all the same, and nothing is counted that no benchmark reads."""
    (tmp_path / "pairs.tsv").write_text("first\tsecond\tscore\nred\tblue\t0.1\nred\tred\t1\n")
    alone = dict.fromkeys(tiny_configuration["experiments"]) | {"teachers": {"baseline": "teachers"}}
    benchmarks = {**tiny_configuration["benchmarks"], "sts": {"sentence_pairs": {"mine": str(tmp_path / "pairs.tsv")}}}
    findings = found({**tiny_configuration, "experiments": alone, "benchmarks": benchmarks})
    assert findings["configuration"][0] == "0 experiments, 1 baseline, seeds 23"
    assert all(sound for _, sound in findings.values())
    assert findings[f"image model {tiny_configuration['teachers']['image']['name']}"][0].endswith("0.00 GB in float16")
    assert "no text finds an image" in findings["left out: teachers, itr"][0]


@pytest.mark.parametrize("trainable", [True, False])
def test_features_are_sized_in_the_type_that_stores_them(tiny_configuration, monkeypatch, trainable):
    """A frozen tower that is also the teacher is stored once, in the wider of the two types; see cusa.plan."""
    monkeypatch.setattr("cusa.commands.check.GIGABYTE", 1)
    image, text = (tiny_configuration["teachers"][side]["name"] for side in ("image", "text"))
    towers = {"image": {"name": image, "trainable": trainable}, "text": {"name": text}, "dimension": 8}
    findings = found({**tiny_configuration, "student": {"name": None, "towers": towers}})
    rows = 32 if trainable else 48  # the features of a teacher are only of train, those of a frozen tower of all splits
    expected = f"{rows * 24 * (2 if trainable else 4):.2f} GB in {'float16' if trainable else 'float32'}"
    assert findings[f"image model {image}"][0].endswith(expected)


def test_features_of_views_are_sized_for_all_views_of_the_train_split(tiny_configuration, monkeypatch):
    monkeypatch.setattr("cusa.commands.check.GIGABYTE", 1)
    image, text = (tiny_configuration["teachers"][side]["name"] for side in ("image", "text"))
    towers = {"image": {"name": image}, "text": {"name": text, "trainable": False}, "dimension": 8}
    train = {**tiny_configuration["train"], "augmentation": {"image": {}, "caption": {}, "views": 3}}
    findings = found({**tiny_configuration, "student": {"name": None, "towers": towers}, "train": train})
    [views] = [text for name, (text, _) in findings.items() if " of 3 views" in name]
    assert views.endswith(f"{64 * 3 * 20 * 4:.2f} GB in float32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: its absence is NOT tested")
def test_few_images_to_test_are_doubtful(tiny_configuration, monkeypatch):
    """The tests' data have some tens; a benchmark that is off needs none."""
    named = {found.subject: found for found in check(tiny_configuration)}
    few = named["few images to test"]
    assert (few.sound, few.doubtful) == (True, True)
    count = int(named["split test"].text.split()[0])
    assert (
        f"the split test has {count} images, so that one more right answer is {100 / count:.1f} points of R@1"
        in few.text
    )
    monkeypatch.setattr("cusa.commands.training_findings.FEW_TEST_IMAGES", count)
    assert "few images to test" not in {found.subject for found in check(tiny_configuration)}


def test_gpus_that_are_there_and_not_asked_for_are_told(tiny_configuration, monkeypatch):
    monkeypatch.setattr("cusa.common.compute.visible_gpus", lambda: 2)
    (device,) = [found for found in check(tiny_configuration) if found.subject == "device"]
    assert (device.sound, device.doubtful) == (True, True)
    assert device.text.endswith("train.gpus is 0, but PyTorch sees 2 GPUs; set train.gpus to use them")


def test_gpus_that_are_not_there(tiny_configuration):
    mapping = {**tiny_configuration, "train": {**tiny_configuration["train"], "gpus": 2}}
    findings = list(check(mapping))
    expected = "train.gpus asks for 2, PyTorch sees 0; lower train.gpus, or run nvidia-smi to see why"
    assert findings[-1].text == expected
    with pytest.raises(ConfigurationError, match=rf"1 of {len(findings)} checks failed: GPUs; see the lines marked"):
        require_sound(findings)


def test_a_missing_faiss_is_a_finding(tiny_configuration, monkeypatch):
    """The report's gallery would miss it after the training."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    text, sound = found(tiny_configuration)["faiss"]
    assert not sound
    assert "pip install 'cusa[cpu]'" in text


def test_a_disk_that_is_too_small(tiny_configuration, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    text, sound = found(tiny_configuration)["disk"]
    assert not sound
    assert "0.00 MB free in" in text


@pytest.mark.skipif(os.access("/proc/sys", os.W_OK), reason="/proc/sys can be written here: NOT tested")
def test_a_folder_that_cannot_be_written(tiny_configuration, monkeypatch):
    monkeypatch.chdir("/proc/sys")
    text, sound = found(tiny_configuration)["disk"]
    assert not sound
    assert text.startswith("/proc/sys cannot be written (a read-only file system, or another user's folder)")


def test_a_student_that_cannot_be_loaded_is_tried_once(tiny_configuration, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    findings = found(tiny_configuration | {"student": {"name": "no-such/model"}})
    assert "student.name no-such/model could not be loaded" in findings["student of contrastive"][0]
    assert findings["student of cusa"] == ("it is that of contrastive, see there", False)


def test_the_near_name_of_a_teacher_is_suggested(tiny_configuration):
    teachers = tiny_configuration["teachers"] | {"image": {"name": "efficientnet-lite"}}
    text, sound = found(tiny_configuration | {"teachers": teachers})["image model efficientnet-lite"]
    assert not sound
    assert "Did you mean efficientnet-lite0?" in text


def test_copies_across_splits_are_doubtful(tiny_configuration, shapes, tmp_path):
    lists = {}
    for split, path in tiny_configuration["dataset"]["annotations"].items():
        lists[split] = json.loads(Path(path).read_text())
        for record in lists[split]:
            record["image_path"] = str(shapes / record["image_path"])
    copy = tmp_path / "copy.png"
    shutil.copy(lists["train"][0]["image_path"], copy)
    lists["test"].append({"image_path": str(copy), "caption": "a copy", "image_id": "copy"})
    annotations = {split: str(tmp_path / f"{split}.json") for split in lists}
    for split, records in lists.items():
        Path(annotations[split]).write_text(json.dumps(records))
    dataset = tiny_configuration["dataset"] | {"annotations": annotations}
    (copies,) = [each for each in check(tiny_configuration | {"dataset": dataset}) if "copies" in each.subject]
    assert copies.sound
    assert copies.doubtful
    assert copies.text.startswith("1 images are byte-identical copies of one in another split")


def test_too_little_data_is_a_finding(tiny_configuration, tmp_path):
    train = {**tiny_configuration["train"], "batch_size": 50, "accumulate": 2}
    (tmp_path / "birds/wren").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "birds/wren/a.png")
    benchmarks = {**tiny_configuration["benchmarks"]}
    benchmarks["image_retrieval"] = {"labelled_images": {"birds": str(tmp_path / "birds")}}
    findings = found({**tiny_configuration, "train": train, "benchmarks": benchmarks})
    text, sound = findings["enough data for contrastive, cusa"]
    assert not sound
    assert "has 64 pairs of image and caption, but a step takes 100 (train.batch_size 50 x 1 processes" in text
    text, sound = findings["labelled images birds"]
    assert not sound
    assert "birds has 1 images of one class, `wren`" in text
    assert found(tiny_configuration)["enough data for contrastive, cusa"] == ("8 steps of 8 pairs an epoch", True)


def test_a_tracker_whose_package_is_missing_is_a_finding(tiny_configuration, monkeypatch):
    monkeypatch.setattr("cusa.tracking.tracker.find_spec", lambda name: None if name == "wandb" else object())
    train = {**tiny_configuration["train"], "trackers": ["wandb", "mlflow"]}
    findings = found({**tiny_configuration, "train": train})
    assert findings["tracker mlflow"] == ("installed", True)
    text, sound = findings["tracker wandb"]
    assert not sound
    assert "pip install 'cusa[wandb]'" in text


def test_folds_that_do_not_divide_the_test_images_are_found_before_anything_is_trained(tiny_configuration):
    text, sound = found(tiny_configuration | {"benchmarks": {"itr": {"folds": 3}}})["folds"]
    assert not sound
    assert "benchmarks.itr.folds is 3, but the split test has 8 images" in text
    assert found(tiny_configuration | {"benchmarks": {"itr": {"folds": 4}}})["folds"] == ("4 of 2 test images", True)


def test_keys_that_change_nothing_are_doubtful(tiny_configuration):
    teachers = tiny_configuration["teachers"]
    frozen = {side: model | {"trainable": False} for side, model in teachers.items()}
    student = {"name": None, "towers": frozen | {"dimension": 8}}
    train = {"compile": True, "tower_lr": 1e-5, "chunk_size": 4, "early_stop": 2, "gather": "global"}
    train |= {"captions_per_image": 2, "schedule": "step", "warmup_steps": 16}
    changed = tiny_configuration | {"student": student, "shards": {"pixels": "memory-map"}}
    changed["experiments"] = {"contrastive": {"contrastive": {}}}
    changed["train"] = tiny_configuration["train"] | train
    findings = list(check(changed))
    texts = [finding.text for finding in findings if finding.doubtful]
    for key in ("compile", "tower_lr", "chunk_size", "early_stop", "gather", "captions_per_image", "warmup_steps"):
        assert [text for text in texts if f"train.{key}" in text], key
    assert [text for text in texts if text.startswith("shards.pixels")]
    require_sound(findings)


def test_a_key_that_changes_nothing_in_several_trainings_is_one_line(tiny_configuration):
    train = tiny_configuration["train"] | {"early_stop": 2, "gather": "global"}
    findings = [each for each in check(tiny_configuration | {"train": train}) if "no effect" in each.subject]
    assert [each.subject for each in findings] == ["no effect in contrastive, cusa"] * 2
    assert ["train.early_stop" in findings[0].text, "train.gather" in findings[1].text] == [True, True]


def test_compiling_on_the_cpu_is_doubtful_where_a_tower_is_trained(tiny_configuration):
    def told(**train) -> list[str]:
        changed = tiny_configuration | {"train": tiny_configuration["train"] | train}
        return [each.subject for each in check(changed) if each.doubtful and "takes minutes on a CPU" in each.text]

    assert told(compile=True) == ["compiling the towers of contrastive, cusa"]
    assert told() == []


def test_layers_that_cannot_be_checkpointed_are_found(tiny_configuration):
    student = tiny_configuration["student"] | {"adapt": {side: {"frozen": ["*"]} for side in ("image", "text")}}
    train = tiny_configuration["train"] | {"checkpoint_towers": True}
    with pytest.raises(
        ConfigurationError, match="`train.checkpoint_towers` .experiment contrastive. is true, but both"
    ):
        list(check(tiny_configuration | {"student": student, "train": train}))


def test_a_file_with_braces_in_its_name_is_refused_as_by_the_workflow(tiny_configuration, shapes, tmp_path):
    folder = Path(shutil.copytree(shapes, tmp_path / "set {a}"))
    dataset = {"name": "shapes", "format": "published", "annotations": str(folder)}
    with pytest.raises(ConfigurationError, match=r"set \{a\}/train.json has braces in its path"):
        list(check(tiny_configuration | {"dataset": dataset}))

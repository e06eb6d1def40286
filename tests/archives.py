"""Small copies of the benchmarks' archives: folders, file names and metadata formats exactly as they unpack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(int(part) for part in np.random.default_rng(number).integers(0, 255, 3))
    Image.new("RGB", (40, 32), colour).save(path)


def cub(folder: Path) -> Path:
    """Two images of class 1, of which none is tested, two each of 101 and 200."""
    root = folder / "CUB_200_2011"
    classes = {1: "001.Black_footed_Albatross", 101: "101.White_Pelican", 200: "200.Common_Yellowthroat"}
    rows = [(label, f"{name}/{name[4:]}_000{copy}_18.jpg") for label, name in classes.items() for copy in (1, 2)]
    for number, (_, name) in enumerate(rows):
        picture(root / "images" / name, number)
    numbered = list(enumerate(rows, start=1))
    (root / "images.txt").write_text("".join(f"{number} {name}\n" for number, (_, name) in numbered))
    (root / "image_class_labels.txt").write_text("".join(f"{number} {label}\n" for number, (label, _) in numbered))
    return root


def cars(folder: Path) -> Path:
    """cars_annos.mat as MATLAB wrote it: a 1 x n struct array."""
    from scipy.io import savemat

    root = folder / "cars"
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    annotations = np.zeros((1, 4), dtype=[(name, object) for name in fields])
    for number, label in enumerate((98, 99, 99, 196)):
        name = f"car_ims/00000{number + 1}.jpg"
        picture(root / name, number)
        annotations[0, number] = (name, 1, 1, 9, 9, label, number % 2)
    savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": np.array([["AM General"]])})
    return root


def sop(folder: Path) -> Path:
    root = folder / "Stanford_Online_Products"
    names = ["chair_final/111_0.JPG", "chair_final/111_1.JPG", "sofa_final/222_0.JPG"]
    for number, name in enumerate(names):
        picture(root / name, number)
    rows = "".join(f"{number} {11319 + number // 2} 3 {name}\n" for number, name in enumerate(names, start=1))
    (root / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n" + rows)
    return root


def inshop(folder: Path) -> Path:
    root = folder / "In-shop"
    names = [f"img/WOMEN/Dresses/id_0000000{item}/0{item}_{view}_front.jpg" for item in (1, 2) for view in (1, 2, 3)]
    roles = ["query", "gallery", "gallery", "query", "gallery", "train"]
    for number, name in enumerate(names):
        picture(root / "Img" / name, number)
    rows = "".join(f"{name}      {name.split('/')[3]} {role}\n" for name, role in zip(names, roles, strict=True))
    (root / "Eval").mkdir()
    heading = f"{len(names)}\nimage_name item_id evaluation_status\n"
    (root / "Eval/list_eval_partition.txt").write_text(heading + rows)
    return root


def inaturalist(folder: Path) -> Path:
    root = folder / "inat"
    names = [f"train_val2018/{name}" for name in ("Insecta/2267/a.jpg", "Insecta/2267/b.jpg", "Aves/3000/c.jpg")]
    for number, name in enumerate(names):
        picture(root / name, number)
    (root / "Inat_dataset_splits").mkdir()
    (root / "Inat_dataset_splits/Inaturalist_test_set1.txt").write_text("\n".join(names) + "\n")
    return root


def senteval(folder: Path) -> Path:
    """SentEval's data/downstream: five pairs a file, made-up sentences of a few words, one empty score a year."""
    from cusa.annotations.sentence_pairs import YEARS

    generator = np.random.default_rng(0)
    words = ["a", "red", "blue", "small", "large", "circle", "square", "and", "green"]

    def sentence() -> str:
        return " ".join(generator.choice(words, 4))

    root = folder / "downstream"
    for year, subsets in YEARS.items():
        place = root / "STS" / f"{year.upper()}-en-test"
        place.mkdir(parents=True)
        for number, subset in enumerate(subsets):
            pairs = [f"{sentence()}\t{sentence()}\n" for _ in range(5)]
            scores = [f"{score:.3f}\n" for score in generator.random(5) * 5]
            if number == 0:
                scores[2] = "\n"
            (place / f"STS.input.{subset}.txt").write_text("".join(pairs))
            (place / f"STS.gs.{subset}.txt").write_text("".join(scores))
    rows = [
        f"main-news\tMSRvid\t2012test\t{n:04d}\t{generator.random() * 5:.3f}\t{sentence()}\t{sentence()}\n"
        for n in range(6)
    ]
    (root / "STS/STSBenchmark").mkdir()
    (root / "STS/STSBenchmark/sts-test.csv").write_text("".join(rows))
    (root / "SICK").mkdir()
    heading = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    sick = [f"{n}\t{sentence()}\t{sentence()}\t{generator.random() * 5:.1f}\tNEUTRAL\n" for n in range(6)]
    (root / "SICK/SICK_test_annotated.txt").write_text(heading + "".join(sick))
    return root

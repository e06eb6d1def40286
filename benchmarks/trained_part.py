"""Training a part of a CLIP (`student.adapt`) against all of it: the size of what is saved, and the time of a step.

The CLIP has the size of ViT-B/32 and random weights, which cost as much. One core, 8 pairs a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from measure import Claim, best_of_turns
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from cusa.config.adaptation import Adaptation
from cusa.config.losses import LossConfiguration
from cusa.config.section import validate
from cusa.losses import CUSALoss
from cusa.student.dual_encoder import DualEncoder
from cusa.student.student import Student
from cusa.teachers.transform import CLIP_MEAN, CLIP_STD, ImageTransform

PAIRS, TOKENS, TURNS = 8, 16, 4
START, END = 49406, 49407
PARTS = {
    "all": None,
    "LoRA": {side: {"lora": {"rank": 8}} for side in ("image", "text")},
    "two layers": {side: {"last_layers": 2} for side in ("image", "text")},
}
LOSSES = validate(LossConfiguration, {"contrastive": {}})


class UntokenisedCLIP(DualEncoder):
    """A CLIP without a tokeniser, which no hub is needed for."""

    def tokenise(self, captions: Sequence[str]) -> tuple[list[list[int]], int]:
        return [[START, 320, END] for _ in captions], 0


def student_of(part: dict | None) -> Student:
    torch.manual_seed(0)
    transform = ImageTransform(224, 224, CLIP_MEAN, CLIP_STD)
    student = Student(UntokenisedCLIP(CLIPModel(CLIPConfig()), None, transform, 77), LOSSES)
    if part is not None:
        student.adapt(validate(Adaptation, part))
    return student.train()


def saved(student: Student) -> tuple[float, float]:
    """Megabytes of best.safetensors, and of a state, which has two moments of each weight too."""
    frozen = student.frozen_names()
    weights = sum(tensor.nbytes for name, tensor in student.state_dict().items() if name not in frozen)
    moments = 2 * sum(weight.nbytes for weight in student.parameters() if weight.requires_grad)
    return weights / 1e6, (weights + moments) / 1e6


def step_of(student: Student, images: Tensor, tokens: Tensor) -> Callable[[], None]:
    loss = CUSALoss(LOSSES)
    optimiser = torch.optim.AdamW([weight for weight in student.parameters() if weight.requires_grad])

    def step() -> None:
        optimiser.zero_grad()
        heads = {
            "cross_image": student.encode_image(images, "cross"),
            "cross_text": student.encode_text(tokens, "cross"),
        }
        heads |= {"uni_image": None, "uni_text": None}
        loss(**heads, teacher_image=None, teacher_text=None, image_ids=torch.arange(PAIRS)).total.backward()
        optimiser.step()

    return step


def main() -> None:
    torch.set_num_threads(1)
    images = torch.randint(0, 255, (PAIRS, 3, 224, 224), dtype=torch.uint8)
    tokens = torch.randint(1, START, (PAIRS, TOKENS))
    tokens[:, -1] = END
    students = {name: student_of(part) for name, part in PARTS.items()}
    steps = {name: step_of(student, images, tokens) for name, student in students.items()}
    for step in steps.values():
        step()  # the optimiser makes its moments
    seconds = best_of_turns(TURNS, **steps)
    megabytes = {name: saved(student) for name, student in students.items()}
    for name in PARTS:
        weights, state = megabytes[name]
        print(f"{name}: best.safetensors {weights:.0f} MB, state {state:.0f} MB, a step {seconds[name]:.2f} s")
    share = megabytes["LoRA"][1] / megabytes["all"][1]
    measured = f"{megabytes['LoRA'][1]:.0f} MB, {100 * share:.1f} % of that of all weights"
    Claim("state of a CLIP ViT-B/32 with LoRA of rank 8", measured, "5 %", share < 0.05).report()
    for name in ("LoRA", "two layers"):
        share = seconds[name] / seconds["all"]
        measured = f"{seconds[name]:.2f} s, {100 * share:.0f} % of that of all weights"
        Claim(f"a step of a CLIP ViT-B/32 with {name}", measured, "90 %", share < 0.9).report()


if __name__ == "__main__":
    main()

"""The findings of `cusa check` about captions: their clean-up, their repetitions, their parts and their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cusa.annotations.caption_variants import parts_of
from cusa.annotations.convert import Inspection
from cusa.commands.finding import Finding
from cusa.config.captions import PUBLISHED
from cusa.plan import Plan

if TYPE_CHECKING:
    from cusa.student.backbones import Backbone
    from cusa.teachers.encoders import TextEncoder
    from cusa.teachers.token_use import TokenUse

FEW_PARTS = 0.05  # a smaller share of captions with several parts gives a warning
# A caption gives a warning if it is there so many times, and is such a share of all.
OFTEN, OFTEN_SHARE = 10, 0.01
EXAMPLES = 3


def clean_up(plan: Plan) -> Finding:
    """How captions are cleaned. Checkpoints that the authors published have learned from captions as in the paper."""
    cleaning = plan.configuration.cleaning
    if plan.checkpoints and cleaning != PUBLISHED:
        text = f"{cleaning}, but {', '.join(plan.checkpoints)} learned from captions cleaned as published; write "
        return Finding("captions", text + "captions: {clean: published} to compare with them", doubtful=True)
    return Finding("captions", str(cleaning))


def repeated_captions(inspection: Inspection) -> Iterator[Finding]:
    """A warning about captions that are there many times, such as the text that a site shows where there is none."""
    counts = Counter(cleaned for _, cleaned in inspection.texts)
    least = max(OFTEN, OFTEN_SHARE * len(inspection.texts))
    often = [(text, count) for text, count in counts.most_common() if count >= least]
    if not often:
        return
    shown = ", ".join(f"`{text:.60}` {count:,} times" for text, count in often[:EXAMPLES])
    more = f" and {len(often) - EXAMPLES:,} others" if len(often) > EXAMPLES else ""
    text = (
        f"among {len(inspection.texts):,} captions looked at are {shown}{more}; for each of them, all images but its "
        "own count as wrong answers, in training and in R@k. Remove captions that say nothing of their image"
    )
    yield Finding("equal captions", text, doubtful=True)


def parts_to_change(plan: Plan, inspection: Inspection) -> Iterator[Finding]:
    """A warning if `train.augmentation.caption` changes only parts of captions, and few captions have several."""
    settings = {name: plan.run_configuration(name).train.augmentation for name in plan.experiments}
    changed = {name: each.caption for name, each in settings.items() if each is not None and each.caption is not None}
    of_parts = [name for name, each in changed.items() if each.drop_words == 0 and each.reorder != "words"]
    if not of_parts or not inspection.texts:
        return
    cleaning = plan.configuration.cleaning
    share = sum(len(parts_of(text, cleaning)) > 1 for text, _ in inspection.texts) / len(inspection.texts)
    few = share < FEW_PARTS
    advice = "; nearly all stay as they are: set drop_words, or reorder: words, in train.augmentation.caption"
    text = f"{share:.1%} of captions have several parts between commas, which {', '.join(of_parts)} leaves out or moves"
    yield Finding("parts of captions", text + advice * few, doubtful=few)


def text_model_tokens(encoder: TextEncoder, inspection: Inspection) -> Iterator[Finding]:
    """The tokens of a text teacher or a frozen text tower. Nothing if the data set has no captions."""
    from cusa.teachers.token_use import MULTILINGUAL, token_use

    if texts := inspection.texts:
        use = token_use(texts, sum(inspection.captions.values()), encoder.tokenise, encoder.vocabulary())
        yield _finding(f"tokens of {encoder.name}", use, MULTILINGUAL)


def student_tokens(run: str, backbone: Backbone, inspection: Inspection) -> Iterator[Finding]:
    """The tokens of a student that tokenises. Nothing if the data set has no captions."""
    from cusa.teachers.token_use import MULTILINGUAL_STUDENT, token_use

    if (texts := inspection.texts) and backbone.tokenises:
        captions = sum(inspection.captions.values())
        use = token_use(texts, captions, lambda cleaned: backbone.tokenise(cleaned)[0], backbone.vocabulary())
        yield _finding(f"tokens of the student of {run}", use, MULTILINGUAL_STUDENT)


def _finding(subject: str, use: TokenUse, multilingual: str) -> Finding:
    warnings = use.warnings(multilingual)
    return Finding(subject, use.sentence(), details=use.by_script() | warnings, doubtful=bool(warnings))

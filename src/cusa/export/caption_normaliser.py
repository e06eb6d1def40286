"""The clean-up of captions as the normaliser of a tokeniser, so that the exported tokeniser cleans its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cusa.config.captions import CaptionCleaning

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The characters that str.split() treats as white space; \s in a regular expression lacks the four ASCII separators.
_BLANKS = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# The characters that Unicode's rule of the final sigma looks for, and those that it skips.
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"
_MARKS = r"'.:\u00b7\u0387\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a"
_PAST = rf"[\p{{Mn}}\p{{Me}}\p{{Cf}}\p{{Lm}}\p{{Sk}}{_MARKS}]*"


def caption_normaliser(cleaning: CaptionCleaning, prompt: str = "") -> Any:
    """A normaliser of tokenizers that cleans a caption as `clean_caption` does, and puts `prompt` before it.

    A caption without a word, which `clean_caption` turns into "", stays as it is under `clean: none`.
    """
    from tokenizers import Regex, normalizers

    replace = normalizers.Replace
    steps: list[Any] = []
    if cleaning.clean == "published":
        steps = [
            # Python writes the small sigma at the end of a word as \u03c2; the library's Lowercase does not. \K forgets
            # what was matched before it, so that this is not replaced.
            replace(Regex(rf"{_CASED}{_PAST}\K\u03a3(?!{_PAST}{_CASED})"), "\u03c2"),
            normalizers.Lowercase(),
            replace(Regex(r"[,.'!?\"()*#:;~\-/]"), " "),
            replace("<person>", "person"),
        ]
    steps += [replace(Regex(f"[{_BLANKS}]+"), " "), replace(Regex(r"\A | \z"), "")]
    if cleaning.max_words is not None:
        steps.append(replace(Regex(rf"\A(?:[^ ]+ ){{{cleaning.max_words - 1}}}[^ ]+\K .*\z"), ""))
    if prompt:
        steps.append(normalizers.Prepend(prompt))
    return normalizers.Sequence(steps)


def add_normaliser(tokeniser: Tokenizer, normaliser: Any) -> None:
    """Let a tokeniser of tokenizers apply `normaliser` before its own."""
    from tokenizers import normalizers

    own = tokeniser.normalizer
    tokeniser.normalizer = normaliser if own is None else normalizers.Sequence([normaliser, own])

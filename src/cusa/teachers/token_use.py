"""Measures how well a tokeniser fits captions: unknown tokens, captions that become equal, and captions that are cut
off.

A model has no words for a script that it was not trained on. Its tokeniser then gives unknown tokens, or spells every
letter, and different captions look alike to the model, or have almost no content. No error is raised.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

# Above these shares, a warning gives advice.
UNKNOWN_TOKENS = 0.05
EQUAL_TEXTS = 0.05
CUT_CAPTIONS = 0.05
# Tokens a character above which a script is spelled letter by letter or byte by byte. English has about 0.3. A
# character of the second kind is a word or a syllable, so models that know it well have nearly one token for each.
SPELLED = 0.8
SPELLED_SYLLABLES = 1.2
SYLLABLES = ("Cjk", "Hangul", "Hiragana", "Katakana")
FEWEST_CAPTIONS = 10  # of a script, for a warning about it
NO_LETTERS = "no letters"
LETTERS_LOOKED_AT = 40
BLANK = "\u2581"  # the token of sentencepiece for a blank; it also stands alone before an unknown word
UNASSIGNED = "\U0010ffff"  # a character that no vocabulary has
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-mpnet-base-v2 or BAAI/bge-m3"
MULTILINGUAL_STUDENT = "google/siglip2-base-patch16-224, or `towers` with a text tower such as " + MULTILINGUAL


class Vocabulary(NamedTuple):
    """How a model splits texts.

    `split` gives all token ids of texts, without prompt and special tokens. `unknown` is the id of the token for
    unknown words, None if there is none. `room` is the number of a caption's own tokens that the model reads. `start`
    gives the token ids as `split` does, without blanks, and of long texts perhaps only the first; threads may call it.
    None stands for `split`.
    """

    split: Callable[[list[str]], Sequence[Sequence[int]]]
    unknown: int | None
    room: int
    start: Callable[[list[str]], Sequence[Sequence[int]]] | None = None

    def knows(self, cleaned: list[str]) -> list[bool]:
        """Whether each of the cleaned texts has a token that is not the unknown one."""
        if self.unknown is None:
            return [True] * len(cleaned)
        return known_rows((self.start or self.split)(cleaned), self.unknown)


def vocabulary_of(tokeniser: Any, limit: int, prompt: str = "") -> Vocabulary:
    """The vocabulary of a tokeniser of transformers, for a model that reads `limit` tokens.

    A caption may use those that special tokens and the prompt leave.
    """

    def split(texts: list[str]) -> Sequence[Sequence[int]]:
        ids: list[list[int]] = tokeniser(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return ids

    # Tokenisers that know every byte name a special token, such as the end of the text, as the unknown one.
    others = (tokeniser.bos_token_id, tokeniser.eos_token_id, tokeniser.pad_token_id, tokeniser.cls_token_id)
    unknown = None if tokeniser.unk_token_id in others else tokeniser.unk_token_id
    backend = getattr(tokeniser, "backend_tokenizer", None)
    start = None if backend is None else partial(own_tokens, backend)
    return Vocabulary(split, unknown, limit - len(tokeniser(prompt)["input_ids"]), start)


def own_tokens(tokeniser: Any, texts: list[str]) -> list[list[int]]:
    """The token ids of texts by a tokeniser of the package tokenizers, without special tokens and blanks, truncated.

    The settings of the tokeniser do not change, so that other threads may use it meanwhile.
    """
    blank = tokeniser.token_to_id(BLANK)
    encoded = tokeniser.encode_batch(texts, add_special_tokens=False)
    return [
        [token for token, is_text in zip(each.ids, each.attention_mask, strict=True) if is_text and token != blank]
        for each in encoded
    ]


def unknown_token(tokeniser: Any) -> int | None:
    """The id of the unknown token of a tokeniser of the package tokenizers; None if there is none."""
    name: str | None = getattr(tokeniser.model, "unk_token", None)
    if name is not None:
        found: int | None = tokeniser.token_to_id(name)
        return found
    try:
        tokens = tokeniser.model.tokenize(UNASSIGNED)  # Unigram does not name its unknown token
    except Exception:  # noqa: BLE001 (tokenizers raises Exception itself if there is no unknown token)
        return None
    return tokens[0].id if len(tokens) == 1 else None  # several are the bytes of the character


def known_rows(rows: Sequence[Sequence[int]], unknown: int | None) -> list[bool]:
    """Whether each row of token ids has another one than the unknown token; all of them if `unknown` is None."""
    return [unknown is None or any(token != unknown for token in row) for row in rows]


@dataclass
class Counts:
    """Counts over captions: of all, or of one script."""

    captions: int = 0
    tokens: int = 0
    unknown: int = 0
    characters: int = 0

    @property
    def unknown_share(self) -> float:
        """The share of unknown tokens, 0 to 1."""
        return self.unknown / max(1, self.tokens)

    @property
    def tokens_per_character(self) -> float:
        """Tokens a character that is not white space."""
        return self.tokens / max(1, self.characters)


@dataclass
class TokenUse:
    """The use of tokens in a sample of captions.

    `texts`, `cleaned` and `rows` are the numbers of distinct captions, of distinct cleaned captions, and of distinct
    rows of tokens. `total`, `scripts` and `cut` (captions that are cut off) are empty if the vocabulary is not known.
    """

    captions: int
    of_captions: int
    texts: int
    cleaned: int
    rows: int
    room: int | None = None
    cut: int = 0
    has_unknown: bool = False
    total: Counts = field(default_factory=Counts)
    scripts: dict[str, Counts] = field(default_factory=dict)

    def sentence(self) -> str:
        """The counts in one sentence."""
        parts = []
        if self.has_unknown:
            parts.append(f"{self.total.unknown_share:.1%} unknown tokens")
        if self.room is not None:
            parts.append(f"{self.total.tokens_per_character:.2f} tokens a character")
        parts.append(f"{self.texts:,} distinct texts become {self.rows:,} rows of tokens")
        if self.room is not None:
            parts.append(f"{self.cut / max(1, self.captions):.1%} of captions are cut off after {self.room} tokens")
        looked_at = "all" if self.captions == self.of_captions else f"{self.captions:,} of {self.of_captions:,}"
        return f"{'; '.join(parts)} ({looked_at} captions looked at)"

    def by_script(self) -> dict[str, str]:
        """A line for each of the most frequent scripts, if there are several."""
        most = sorted(self.scripts.items(), key=lambda item: -item[1].captions)[:8]
        unknown = ", {:.1%} unknown tokens" if self.has_unknown else ""
        return {
            script: f"{counts.captions:,} captions{unknown.format(counts.unknown_share)}, "
            f"{counts.tokens_per_character:.2f} tokens a character"
            for script, counts in most
            if len(self.scripts) > 1
        }

    def warnings(self, multilingual: str) -> dict[str, str]:
        """A sentence with advice for each share that is too high. `multilingual` names models that may be better."""
        found = {}
        advice = f"the model hardly knows this script or language; choose a multilingual one such as {multilingual}"
        if unknown := {script: counts for script, counts in self._scripts() if counts.unknown_share > UNKNOWN_TOKENS}:
            shares = ", ".join(f"{script} {counts.unknown_share:.0%}" for script, counts in unknown.items())
            found["unknown tokens"] = f"{self.total.unknown_share:.0%} of all tokens are unknown ({shares}): {advice}."
        spelled = {script: counts for script, counts in self._scripts() if script not in unknown}
        if spelled := {script: counts for script, counts in spelled.items() if _is_spelled(script, counts)}:
            rates = ", ".join(f"{script} {counts.tokens_per_character:.1f}" for script, counts in spelled.items())
            found["spelled words"] = f"words are spelled, with this many tokens a character ({rates}): {advice}."
        if self.texts - self.rows > EQUAL_TEXTS * self.texts:
            by_cleaning = self.texts - self.cleaned > (self.texts - self.rows) / 2
            reason = "captions.clean: none keeps them apart" if by_cleaning else advice
            found["equal captions"] = (
                f"{self.texts:,} distinct texts are {self.cleaned:,} after clean-up and {self.rows:,} rows of tokens, "
                f"so the model cannot tell captions apart: {reason}."
            )
        if self.cut > CUT_CAPTIONS * self.captions:
            found["cut captions"] = (
                f"{self.cut / self.captions:.0%} of captions are longer than the {self.room} tokens that the model "
                "reads, and their ends are cut off: shorten them, or choose a model that reads more (for a student, "
                "look at student.max_tokens too)."
            )
        return found

    def _scripts(self) -> list[tuple[str, Counts]]:
        """The scripts that are warned about: all if there is one, else those with enough captions."""
        enough = FEWEST_CAPTIONS if len(self.scripts) > 1 else 1
        return [(script, counts) for script, counts in sorted(self.scripts.items()) if counts.captions >= enough]


def token_use(
    captions: Sequence[tuple[str, str]],
    of_captions: int,
    read: Callable[[list[str]], Sequence[Sequence[int]]],
    vocabulary: Vocabulary | None,
) -> TokenUse:
    """The token use of `captions`, a sample of `of_captions` captions: each as it was written, and as cleaned.

    `read` gives the token ids that the model reads of cleaned captions.
    """
    texts, cleaned = {text for text, _ in captions}, [clean for _, clean in captions]
    rows = {tuple(row) for row in read(cleaned)} if cleaned else set()
    use = TokenUse(len(captions), of_captions, len(texts), len(set(cleaned)), len(rows))
    if vocabulary is None or not cleaned:
        return use
    use.room, use.has_unknown = vocabulary.room, vocabulary.unknown is not None
    for text, ids in zip(cleaned, vocabulary.split(cleaned), strict=True):
        unknown = sum(token == vocabulary.unknown for token in ids)
        characters = sum(map(len, text.split()))
        use.cut += len(ids) > vocabulary.room
        for counts in (use.total, use.scripts.setdefault(script_of(text), Counts())):
            counts.captions += 1
            counts.tokens += len(ids)
            counts.unknown += unknown
            counts.characters += characters
    return use


def script_of(text: str) -> str:
    """The script of most of a text's first letters, by Unicode's names: Latin, Ethiopic, Cjk, ...; else NO_LETTERS.

    Fullwidth and mathematical letters count as scripts of their own.
    """
    letters = islice((letter for letter in text if letter.isalpha()), LETTERS_LOOKED_AT)
    counts = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)
    return counts.most_common(1)[0][0].title() if counts else NO_LETTERS


def _is_spelled(script: str, counts: Counts) -> bool:
    limit = SPELLED_SYLLABLES if script in SYLLABLES else SPELLED
    return script != NO_LETTERS and counts.tokens_per_character > limit

"""What tokenisers make of captions: the packaged sentence model, CLIP's bytes, and models made here."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from cusa.config.models import TextModel
from cusa.teachers.registry import load_text_encoder
from cusa.teachers.sentence_encoder import as_sentence_encoder
from cusa.teachers.token_use import (
    MULTILINGUAL,
    NO_LETTERS,
    Vocabulary,
    own_tokens,
    script_of,
    token_use,
    unknown_token,
    vocabulary_of,
)

ENGLISH = ["A red apple.", "a small dog", "Two dogs run on the beach", "An umbrella, open", "a horse in the snow"]
CHINESE = ["一只红色的苹果", "一只绿色的苹果", "两只狗在海滩上跑", "一把打开的雨伞", "雪地里的一匹马"]
AMHARIC = ["ቀይ ፖም", "ትንሽ ውሻ", "ሁለት ውሾች", "ጃንጥላ", "ፈረስ በበረዶ"]
THAI = ["แอปเปิ้ลสีแดง", "สุนัขตัวเล็ก", "ร่มที่เปิดอยู่", "ม้าในหิมะ", "เรือใบ"]
ARABIC = ["تفاحة حمراء", "كلب صغير", "مظلة مفتوحة", "حصان في الثلج", "قارب"]
EMOJI = ["🍎", "🐶🐶", "☂", "🐴❄", "⛵"]


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder(TextModel(name="all-MiniLM-L6-v2"))


def used(encoder, captions: list[str], cleaned: list[str] | None = None):
    pairs = list(zip(captions, cleaned or captions, strict=True))
    return token_use(pairs, len(pairs), encoder.tokenise, encoder.vocabulary())


def test_english_is_known_to_an_english_model(minilm):
    use = used(minilm, ENGLISH)
    assert use.total.unknown == use.cut == 0
    assert (use.texts, use.rows) == (5, 5)
    assert use.warnings(MULTILINGUAL) == {}
    assert use.sentence().startswith("0.0% unknown tokens; 0.")
    assert "5 distinct texts become 5 rows of tokens; 0.0% of captions are cut off after 254 tokens" in use.sentence()
    assert use.sentence().endswith("(all captions looked at)")


@pytest.mark.parametrize(
    ("captions", "script"), [(CHINESE, "Cjk"), (AMHARIC, "Ethiopic"), (THAI, "Thai"), (EMOJI, NO_LETTERS)]
)
def test_scripts_without_words_in_the_model_are_told_with_advice(minilm, captions, script):
    """Captions that say different things become the same tokens, and the numbers are in the sentence."""
    use = used(minilm, captions)
    assert use.total.unknown / use.total.tokens > 0.2
    assert use.rows < use.texts or script == "Cjk"
    warning = use.warnings(MULTILINGUAL)["unknown tokens"]
    assert f"({script} " in warning
    assert "paraphrase-multilingual-mpnet-base-v2 or BAAI/bge-m3" in warning


def test_captions_that_become_one_row_of_tokens_are_counted(minilm):
    use = used(minilm, AMHARIC)
    rows = {tuple(row) for row in minilm.tokenise(AMHARIC)}
    assert (use.texts, use.rows) == (5, len(rows))
    assert f"5 distinct texts are 5 after clean-up and {len(rows)} rows" in use.warnings("x")["equal captions"]


def test_a_script_that_is_spelled_letter_by_letter_is_told(minilm):
    """No token is unknown, yet the model reads letters."""
    use = used(minilm, ARABIC)
    assert use.total.unknown == 0
    assert "a character (Arabic 1.0)" in use.warnings(MULTILINGUAL)["spelled words"]


def test_bytes_have_no_unknown_tokens_but_many_a_character():
    import open_clip

    clip = open_clip.get_tokenizer("ViT-B-32")
    vocabulary = Vocabulary(lambda texts: [clip.encode(text) for text in texts], None, 75)
    for captions, script in ((CHINESE, "Cjk"), (AMHARIC, "Ethiopic"), (THAI, "Thai")):
        use = token_use([(text, text) for text in captions], 5, vocabulary.split, vocabulary)
        assert "unknown" not in use.sentence()
        assert f"({script} " in use.warnings(MULTILINGUAL)["spelled words"]
    assert token_use([(text, text) for text in ENGLISH], 5, vocabulary.split, vocabulary).warnings("x") == {}


def test_few_captions_of_another_script_are_seen_among_many(minilm):
    use = used(
        minilm, [f"{text} {n}" for n in range(100) for text in ENGLISH] + [f"{AMHARIC[0]} {n}" for n in range(12)]
    )
    assert use.total.unknown_share < 0.05
    assert "Ethiopic" in use.warnings(MULTILINGUAL)["unknown tokens"]
    assert list(use.by_script()) == ["Latin", "Ethiopic"]
    assert use.by_script()["Latin"].startswith("500 captions, 0.0% unknown tokens, 0.")


def test_clean_up_that_makes_captions_equal_is_told_as_the_reason(minilm):
    codes = [f"AB-{n}" for n in range(20)] + [f"AB.{n}" for n in range(20)]
    use = used(minilm, codes, [code.lower().replace("-", " ").replace(".", " ") for code in codes])
    assert (use.texts, use.cleaned, use.rows) == (40, 20, 20)
    assert "captions.clean: none keeps them apart" in use.warnings("x")["equal captions"]


def test_captions_longer_than_the_model_reads_are_counted(tiny_sentences):
    """The tiny model reads 32 tokens, two of them special."""
    encoder = load_text_encoder(TextModel(name=str(tiny_sentences)))
    assert encoder.vocabulary().room == 30
    assert encoder.vocabulary(12).room == 10
    use = used(encoder, ["red " * 30, "red " * 31, "blue"])
    assert use.cut == 1
    assert "33% of captions are longer than the 30 tokens" in use.warnings("x")["cut captions"]
    prompted = load_text_encoder(TextModel(name=str(tiny_sentences), prompt="a large "))
    assert prompted.vocabulary().room == 28
    assert used(prompted, ["red " * 30]).cut == 1


def test_a_text_is_known_if_one_token_is_not_the_unknown_one(minilm):
    vocabulary = minilm.vocabulary()
    assert vocabulary.knows(["😀", "smile", "smile 😀"]) == [False, True, True]
    assert not any(vocabulary.knows(AMHARIC))
    assert all(vocabulary.knows(ARABIC))
    assert vocabulary._replace(start=None).knows(["😀", "smile", "smile 😀"]) == [False, True, True]


def test_asking_for_known_texts_leaves_the_settings_of_the_tokeniser(minilm):
    """Other threads may use it at the same time; the tokeniser refuses changes meanwhile."""
    encoder = as_sentence_encoder(minilm)
    tokeniser, vocabulary = encoder.model.tokenizer, encoder.vocabulary()
    encoder.tokenise(["a dog"])
    before = tokeniser.backend_tokenizer.truncation
    assert before is not None
    assert vocabulary.knows(["😀 " * 600]) == [False]
    assert tokeniser.backend_tokenizer.truncation == before


def test_a_tokeniser_of_bytes_knows_every_text():
    vocabulary = Vocabulary(lambda texts: [list(text.encode()) for text in texts], None, 75)
    assert vocabulary.knows(["😀", "a"]) == [True, True]


@pytest.mark.parametrize(
    ("model", "unknown", "known"),
    [
        (models.WordLevel({"[U]": 0, "a": 1}, unk_token="[U]"), 0, [True, False]),
        (models.WordPiece({"[U]": 4, "a": 1}, unk_token="[U]"), 4, [True, False]),
        (models.Unigram([("<unk>", 0.0), ("a", -1.0), ("▁", -1.0)], 0, False), 0, [True, False]),
        (models.Unigram([("a", 0.0), ("▁", -1.0)], None, False), None, [True]),
        (
            models.Unigram([("<unk>", 0.0), ("a", -1.0), *((f"<0x{n:02X}>", -2.0) for n in range(256))], 0, True),
            None,
            [True] * 2,
        ),
        (models.BPE({"a": 0}, []), None, [True]),
    ],
)
def test_the_unknown_token_of_every_model_of_tokenizers(model, unknown, known):
    tokeniser = Tokenizer(model)
    tokeniser.pre_tokenizer = pre_tokenizers.Metaspace() if "Unigram" in type(model).__name__ else None
    assert unknown_token(tokeniser) == unknown
    tokens = own_tokens(tokeniser, ["a", "😀"][: len(known)])
    assert [any(token != unknown for token in row) for row in tokens] == known


def test_padding_is_no_known_word(tiny_sentences):
    tokeniser = AutoTokenizer.from_pretrained(tiny_sentences)
    vocabulary = vocabulary_of(tokeniser, 32)
    tokeniser(["zebra", "a small red circle"], padding="max_length", max_length=9)
    assert vocabulary.knows(["zebra", "a zebra", "zebra " * 5]) == [False, True, False]


def test_a_model_that_does_not_say_its_vocabulary_is_looked_at_by_its_rows():
    use = token_use([(text, text) for text in AMHARIC], 9, lambda texts: [[1, 2]] * len(texts), None)
    assert use.sentence() == "5 distinct texts become 1 rows of tokens (5 of 9 captions looked at)"
    assert list(use.warnings("x")) == ["equal captions"]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a dog", "Latin"),
        ("собака", "Cyrillic"),
        ("犬 USB", "Latin"),
        ("いぬが走る", "Hiragana"),
        ("", NO_LETTERS),
        ("12-3/4 🐶", NO_LETTERS),
    ],
)
def test_the_script_is_that_of_most_letters(text, script):
    assert script_of(text) == script

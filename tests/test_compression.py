"""Prompt compression: the formulas by hand, what must survive, and a classifier that learns."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

from gcd.compression.annotation import AnnotationSettings, annotate, filter_annotated
from gcd.compression.classifier import (
    IGNORED,
    Chunk,
    Classifier,
    TrainClassifierSettings,
    load_classifier,
)
from gcd.compression.distillation import delete_by_model, delete_by_rule
from gcd.compression.prompt import ScoredPrompt, compress, score_prompt
from gcd.compression.recipe import (
    RecipeSettings,
    choose_windows,
    make_example,
    train_by_recipe,
    windows,
)
from gcd.compression.selection import (
    SelectionSettings,
    Token,
    Word,
    chunk_ends,
    cut_out,
    find_words,
    select,
)
from gcd.compression.tiny_encoder import TinyEncoderSource, save_tiny_encoder
from gcd.core.errors import UserError
from gcd.core.interfaces import load_method
from gcd.core.params import Params
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import Conversation, PairedOutput, PseudoConversation, Reason, write_records
from gcd.data import read_prompt
from tests import tiny
from tests.conftest import ROOT
from tests.scripted import Scripted
from tests.settings import method_settings, sections

PLAIN = SelectionSettings(force_tokens=[], force_reserve_digit=False, drop_consecutive=False)
PROMPTS = sorted((ROOT / "data/prompts").glob("*.md"))
TINY = TinyEncoderSource(hidden_size=32, layers=2, heads=2, vocabulary_size=600, context=512)


def one_a_word(text: str) -> int:
    """A tokenizer for which every word is one token."""
    return 1


def tokens(text: str, probabilities: list[float]) -> list[Token]:
    """The words between spaces as one sub-token each."""
    found, start = [], 0
    for piece, probability in zip(text.split(" "), probabilities, strict=True):
        found.append(Token(start, start + len(piece), probability))
        start += len(piece) + 1
    return found


def kept_text(
    text: str,
    sub_tokens: list[Token],
    percentage: int,
    settings: SelectionSettings = PLAIN,
    count: Callable[[str], int] = one_a_word,
) -> str:
    words = find_words(text, 0, len(text), sub_tokens, settings)
    return cut_out(text, words, select(text, words, percentage, settings, count))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random encoder whose vocabulary is that of the prompts."""
    folder = tmp_path_factory.mktemp("encoder")
    save_tiny_encoder(TINY, [read_prompt_text(path) for path in PROMPTS], 0, folder)
    return folder


# --- Words ------------------------------------------------------------------------------------


def test_a_word_is_the_mean_of_its_sub_tokens() -> None:
    """play|ing -> (0.2 + 0.6) / 2; a mark and what follows it are a word: /etc, not etc."""
    text = "playing ls /etc."
    spans = [(0, 4), (4, 7), (8, 10), (11, 12), (12, 15), (15, 16)]
    sub_tokens = [
        Token(*span, p) for span, p in zip(spans, [0.2, 0.6, 0.5, 1, 0, 0.9], strict=True)
    ]
    words = find_words(text, 0, len(text), sub_tokens, PLAIN)
    assert [text[word.start : word.end] for word in words] == ["playing", "ls", "/etc", "."]
    assert [word.probability for word in words] == pytest.approx([0.4, 0.5, 0.5, 0.9])


def test_a_digit_makes_its_sub_token_certain_and_not_the_whole_word() -> None:
    """B|0078 -> (0.2 + 1) / 2: the original's rule, which does not always keep such a word."""
    settings = PLAIN.model_copy(update={"force_reserve_digit": True})
    [word] = find_words("B0078", 0, 5, [Token(0, 1, 0.2), Token(1, 5, 0.1)], settings)
    assert word.probability == pytest.approx(0.6)


def test_a_line_end_that_no_token_covers_is_a_word_of_its_own() -> None:
    settings = PLAIN.model_copy(update={"force_tokens": ["\n", "."]})
    text = "one.\ntwo"
    sub_tokens = [Token(0, 3, 0.1), Token(3, 4, 0.2), Token(5, 8, 0.3)]
    words = find_words(text, 0, len(text), sub_tokens, settings)
    assert [(text[word.start : word.end], word.probability) for word in words] == [
        ("one", 0.1),
        (".", 1.0),
        ("\n", 1.0),
        ("two", 0.3),
    ]


def test_line_ends_in_a_token_that_is_white_space_are_words() -> None:
    """XLM-R reads a line end as a space: with the word after it, or as a token of its own."""
    settings = PLAIN.model_copy(update={"force_tokens": ["\n"]})
    text = "a\nb\n\n/"
    spans = [(0, 1), (1, 3), (3, 5), (5, 6)]
    words = find_words(text, 0, len(text), [Token(*span, 0.5) for span in spans], settings)
    assert [text[word.start : word.end] for word in words] == ["a", "\n", "b", "\n", "\n", "/"]
    assert chunk_ends(text, spans, 3) == [1, 4]


def test_force_tokens_inside_another_token_are_part_of_it() -> None:
    """`[SEP]` is a token of its own for some encoders; no character is in two words."""
    settings = PLAIN.model_copy(update={"force_tokens": ["[", "]"]})
    words = find_words("a [SEP] b", 0, 9, tokens("a [SEP] b", [0.1, 0.2, 0.3]), settings)
    assert [(word.start, word.end, word.probability) for word in words] == [
        (0, 1, 0.1),
        (2, 7, 0.2),
        (8, 9, 0.3),
    ]


def test_a_control_token_in_a_prompt_is_plain_text(encoder: Path) -> None:
    """Web shopping's pages are full of [SEP]."""
    classifier, _ = load_classifier(0, encoder)
    ids, spans = classifier.encode("a [SEP] b")
    assert classifier.tokenizer.sep_token_id not in ids
    assert (2, 3) in spans


def test_the_white_space_in_a_token_is_not_part_of_the_word() -> None:
    """XLM-R's tokens begin with the space before them, and a space before a mark is a token."""
    text = "go to /"
    sub_tokens = [Token(0, 2, 0.5), Token(2, 5, 0.5), Token(5, 6, 0.5), Token(6, 7, 0.5)]
    words = find_words(text, 0, len(text), sub_tokens, PLAIN)
    assert [text[word.start : word.end] for word in words] == ["go", "to", " ", "/"]


# --- Selection --------------------------------------------------------------------------------


def test_the_threshold_counts_a_word_as_often_as_it_has_tokens() -> None:
    """0.1 0.2 0.3 0.4: percentile 51 lies at 1.53 of 0 .. 3, is 0.253, and two are above it.

    With 0.4 three times it lies at 2.55 of 0 .. 5, is 0.355, and one word is above it.
    """
    text = "a b c ddd"
    sub_tokens = tokens(text, [0.1, 0.2, 0.3, 0.4])
    assert kept_text(text, sub_tokens, 50) == "c ddd"
    assert kept_text(text, sub_tokens, 50, count=lambda word: len(word.strip())) == "ddd"


def test_ties_with_the_threshold_are_dropped_but_for_certain_words() -> None:
    text = "a b c d"
    assert kept_text(text, tokens(text, [0.5, 0.5, 0.5, 0.5]), 70) == ""
    assert kept_text(text, tokens(text, [0.5, 1.0, 1.0, 1.0]), 50) == "b c d"


def test_at_most_the_asked_share_of_tokens_is_kept() -> None:
    """Distinct probabilities: the percentile is at (1.01 - rate)(n - 1), above it are fewer.

    From 100 (1 - rate) tokens on that is at most rate * n; one token less may keep one more.
    """
    for percentage in (1, 30, 50, 70, 99):
        for count in (100, 101, 137, 510):
            words = [
                Word(place, place + 1, (place * 7919 % count) / count) for place in range(count)
            ]
            kept = select("x" * count, words, percentage, PLAIN, one_a_word)
            assert percentage / 100 - 0.02 <= sum(kept) / count <= percentage / 100
    three = [Word(place, place + 1, place / 3) for place in range(3)]
    assert sum(select("xxx", three, 30, PLAIN, one_a_word)) == 1


def test_force_tokens_are_kept_even_beyond_the_rate() -> None:
    settings = PLAIN.model_copy(update={"force_tokens": ["?"]})
    text = "a? b? c? d"
    spans = [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10)]
    sub_tokens = [Token(*span, 0.1 + place / 10) for place, span in enumerate(spans)]
    assert kept_text(text, sub_tokens, 30, settings) == "? ? ?"
    assert kept_text(text, sub_tokens, 30) == "? d"


def test_consecutive_equal_force_tokens_are_one_where_no_word_is_kept_between() -> None:
    text = "one\n\ntwo\nthree\nfour"
    once = SelectionSettings(force_tokens=["\n"], force_reserve_digit=False, drop_consecutive=True)
    every = once.model_copy(update={"drop_consecutive": False})
    sub_tokens = [Token(0, 3, 0.9), Token(5, 8, 0.1), Token(9, 14, 0.2), Token(15, 19, 0.8)]
    assert kept_text(text, sub_tokens, 40, once) == "one\nfour"
    assert kept_text(text, sub_tokens, 40, every) == "\n\n\n\n"


# --- What survives ----------------------------------------------------------------------------


def test_case_lines_and_fences_are_those_of_the_original() -> None:
    """The encoder reads no case; what is kept is cut out of the text."""
    text = "Act: bash\n\n```bash\nls  ThisFolder\n```\nSo THAT is it."
    words = [Word(*span, 1.0) for span in [(0, 3), (3, 4), (5, 9), (9, 10), (10, 11)]]
    words += [Word(place, place + 1, 1.0) for place in (11, 12, 13)]
    words += [Word(*span, 1.0) for span in [(14, 18), (18, 19), (19, 21), (23, 33), (33, 34)]]
    rest = [Word(*span, 0.0) for span in [(34, 37), (37, 38), (38, 40)]]
    last = [Word(*span, 1.0) for span in [(41, 45), (46, 48), (49, 51), (51, 52)]]
    kept = [True] * len(words) + [False] * len(rest) + [True, False, False, True]
    assert cut_out(text, words + rest + last, kept) == (
        "Act: bash\n\n```bash\nls  ThisFolder\nTHAT ."
    )


def test_nothing_between_kept_words_is_no_space() -> None:
    text = "home/anna now"
    words = [Word(0, 4, 1.0), Word(4, 5, 0.0), Word(5, 9, 1.0), Word(10, 13, 1.0)]
    assert cut_out(text, words, [True, False, True, True]) == "homeanna now"
    assert cut_out(text, words, [True, False, False, True]) == "home now"


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_rate_1_is_the_identity(encoder: Path, path: Path) -> None:
    """Byte for byte, so the row would be full_prompt's; and a lower rate keeps the turns."""
    prompt = parse_prompt(read_prompt_text(path), path.name)
    settings = method_settings("llmlingua2").selection
    scored = score_prompt(prompt, load_classifier(0, encoder)[0], 510)
    assert len(scored.chunks) > 1
    assert compress(scored, 100, settings, len) == prompt
    half = compress(scored, 50, settings, len)
    assert [message.role for message in half] == [message.role for message in prompt]
    assert all(message.content.strip() for message in half)
    assert _characters(half) < _characters(prompt)
    for before, after in zip(prompt, half, strict=True):
        letters = iter(before.content)
        assert all(letter in letters for letter in after.content if not letter.isspace())


def _characters(prompt: Conversation) -> int:
    return sum(len(message.content) for message in prompt)


def test_a_message_that_would_be_empty_keeps_its_most_probable_word() -> None:
    prompt = [tiny.system("keep these words"), tiny.user("not these")]
    text = "keep these words\n\nnot these"
    spans = [(0, 4), (5, 10), (11, 16), (18, 21), (22, 27)]
    probabilities = [0.9, 0.8, 0.7, 0.1, 0.2]
    found = [Token(*span, p) for span, p in zip(spans, probabilities, strict=True)]
    scored = ScoredPrompt(prompt, text, [Chunk(0, len(text), found)])
    texts = [message.content for message in compress(scored, 50, PLAIN, one_a_word)]
    assert texts == ["keep these", "these"]


def test_chunks_end_at_a_full_stop_or_a_line_end_if_there_is_one() -> None:
    text = "a b. c d\ne f g h i"
    spans = [
        (0, 1),
        (2, 3),
        (3, 4),
        (5, 6),
        (7, 8),
        (9, 10),
        (11, 12),
        (13, 14),
        (15, 16),
        (17, 18),
    ]
    assert chunk_ends(text, spans, 4) == [3, 5, 9, 10]
    assert chunk_ends(text, spans, 10) == [10]
    assert chunk_ends(text, spans, 9) == [5, 10]
    assert chunk_ends("", [], 4) == []


def test_a_chunk_of_a_long_text_is_read_by_itself(encoder: Path) -> None:
    """Its probabilities are those of a text that is the chunk alone."""
    classifier, _ = load_classifier(0, encoder)
    text = "Delete a file. " * 8
    first, second, *_ = classifier.score(text, 12)
    [alone] = classifier.score(text[second.start : second.end], 12)
    assert text[first.end :].lstrip().startswith("Delete")
    assert [token.probability for token in second.tokens] == pytest.approx(
        [token.probability for token in alone.tokens], abs=1e-6
    )


def test_more_tokens_than_the_encoder_reads_are_an_error(encoder: Path) -> None:
    with pytest.raises(UserError, match=r"chunk_tokens is 511.*reads 512 at once"):
        load_classifier(0, encoder)[0].score("a", 511)


# --- The recipe -------------------------------------------------------------------------------


def test_labels_variation_and_gap_by_hand() -> None:
    """Of to, delete, rm, use, three are in the text: variation 1/4. The case does not count."""
    found = annotate("To delete a file I use rm", "to delete rm quickly", 150)
    assert found.labels == [True, True, False, False, False, False, True]
    assert found.variation == pytest.approx(1 / 4)
    assert found.gap == 0.0
    assert found.kept == pytest.approx(3 / 7)


def test_a_word_found_twice_is_a_gap() -> None:
    """hitting 3/4, matching 2/4."""
    found = annotate("a b c d", "a b b", 150)
    assert found.labels == [True, True, False, False]
    assert found.variation == 0.0
    assert found.gap == pytest.approx(1 / 4)


def test_the_nearest_match_is_taken_forward_first_and_in_the_window_only() -> None:
    assert annotate("x a b a", "b a", 150).labels == [False, False, True, True]
    assert annotate("a x x x a", "a a", 4).labels == [True, False, False, False, False]
    assert annotate("x x a", "a", 4).variation == 1.0  # two words away, in the third place
    assert annotate("x x a", "a", 6).variation == 0.0


def test_an_empty_compression_keeps_nothing_and_varies_in_nothing() -> None:
    found = annotate("a b", "", 150)
    assert (found.labels, found.variation, found.gap) == ([False, False], 0.0, 0.0)


def test_filters_drop_the_worst_and_never_the_faultless() -> None:
    settings = AnnotationSettings(search_words=150, variation_percentile=90, gap_percentile=90)
    faultless = [annotate("a b c", "a c", 150)] * 9
    invented = annotate("a b c", "a z", 150)
    doubled = annotate("a b c", "a a", 150)
    assert filter_annotated([*faultless, invented], settings) == faultless
    assert filter_annotated([*faultless, doubled], settings) == faultless
    assert filter_annotated(faultless, settings) == faultless
    assert filter_annotated([], settings) == []


def test_the_rule_deletes_function_words_and_repeated_marks() -> None:
    assert delete_by_rule("To delete a file, I use `rm`.") == "delete file , use ` rm ` ."
    assert delete_by_rule("```bash\nls\n```") == "` bash ls `"
    assert delete_by_rule("Do not go.") == "not go ."


def test_the_model_sees_the_text_alone_and_an_unfinished_answer_is_none() -> None:
    def answer(prompt: Conversation, conversation: Conversation) -> str:
        return conversation[-1].content.split()[0]

    assert delete_by_model(["one two", "three"], Scripted(answer), 5) == ["one", "three"]
    cut = Scripted(lambda prompt, conversation: "one …")
    silent = Scripted(lambda prompt, conversation: None)
    assert delete_by_model(["one two"], cut, 5) == [None]
    assert delete_by_model(["one two"], silent, 5) == [None]


def test_windows_end_with_sentences_or_lines_and_lose_no_word() -> None:
    text = "a b. c d e\nf g h i j"
    assert windows(text, 4) == ["a b.", "c d e", "f g h i", "j"]
    assert windows(text, 100) == [text]
    assert " ".join(windows(text, 3)).split() == text.split()


def recipe(**changes: Any) -> RecipeSettings:
    settings: RecipeSettings = method_settings("llmlingua2").recipe
    training = TrainClassifierSettings(
        steps=60, batch_size=8, learning_rate=0.01, gradient_clip=1.0
    )
    return settings.model_copy(update={"training": training, **changes})


def test_windows_are_drawn_once_each() -> None:
    texts = ["a. b. c.", "b. d."]
    every = choose_windows(texts, recipe(window_words=1, windows=9), 0)
    assert every == ["a.", "b.", "c.", "d."]
    drawn = choose_windows(texts, recipe(window_words=1, windows=2), 0)
    assert len(drawn) == 2
    assert drawn == [one for one in every if one in drawn]


def test_only_sub_tokens_of_the_text_are_labelled(encoder: Path) -> None:
    classifier, _ = load_classifier(0, encoder)
    example = make_example(classifier, annotate("Delete the file.", "Delete file", 150), 510)
    words = classifier.tokenizer.convert_ids_to_tokens(example.ids)
    assert (words[0], words[-1]) == ("[CLS]", "[SEP]")
    assert (example.labels[0], example.labels[-1]) == (IGNORED, IGNORED)
    kept = [word for word, label in zip(words, example.labels, strict=True) if label == 1]
    assert "".join(kept).replace("##", "") == "deletefile"
    short = make_example(classifier, annotate("Delete the file.", "Delete file", 150), 2)
    assert (len(short.ids), len(short.labels)) == (4, 4)


def learn(encoder: Path, **changes: Any) -> tuple[Classifier, Any]:
    classifier, trained = load_classifier(0, encoder)
    assert not trained
    texts = [message.content for path in PROMPTS for message in parse_prompt(path.read_text(), "")]
    settings = recipe(**changes)
    record = train_by_recipe(
        classifier, texts, settings, longest=510, seed=0, load_generator=pytest.fail
    )
    return classifier, record


def test_a_random_encoder_learns_the_rule_and_twice_the_same(encoder: Path) -> None:
    """Which words are function words it can only know from the labels."""
    classifier, record = learn(encoder)
    assert record.variation == 0.0
    assert record.validation_accuracy > 0.9 > record.majority_accuracy
    [chunk] = classifier.score("Delete the file.", 510)
    the = [token for token in chunk.tokens if (token.start, token.end) == (7, 10)]
    assert the[0].probability == min(token.probability for token in chunk.tokens)
    again, same = learn(encoder)
    assert same == record
    before, after = classifier.model.state_dict(), again.model.state_dict()
    assert all(before[name].equal(after[name]) for name in before)


def test_too_few_windows_are_an_error(encoder: Path) -> None:
    with pytest.raises(UserError, match=r"of 1 windows 1 were compressed and 1 are left"):
        learn(encoder, windows=1)


# --- Checkpoints and the method ---------------------------------------------------------------


def save_checkpoint(encoder: Path, folder: Path, labels: int) -> Path:
    """A token classifier of `labels` classes with the encoder's tokenizer."""
    tokenizer = BertTokenizerFast.from_pretrained(encoder)
    tokenizer.save_pretrained(folder)
    config = BertConfig.from_pretrained(encoder, num_labels=labels)
    BertForTokenClassification(config).save_pretrained(folder)
    return folder


def test_a_bad_checkpoint_is_an_error_that_names_the_key(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded.*methods\.llmlingua2\.encoder"):
        load_classifier(0, tmp_path)
    three = save_checkpoint(encoder, tmp_path / "three", 3)
    with pytest.raises(UserError, match=r"expected two labels.*found 3 labels"):
        load_classifier(0, three)
    assert load_classifier(0, save_checkpoint(encoder, tmp_path / "two", 2))[1]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: Path) -> Path:
    """The current folder, with a prepared tiny model, a prompt and a little pseudo data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(taught, "models/base")
    Path("models/base/model.json").write_text('{"source": "path"}')
    Path("data/tasks/toy").mkdir(parents=True)
    shutil.copy(ROOT / "data/prompts/os_interaction.md", "data/tasks/toy/prompt.md")
    pseudo = Path("data/pseudo/toy")
    output = PairedOutput(index=0, pseudo_input="a", teacher_output="b", student_output="c")
    write_records(pseudo / "paired_outputs.jsonl", [output])
    write_records(pseudo / "reasons.jsonl", [Reason(index=0, reason="The prompt says so.")])
    turns = [tiny.user(tiny.OUTPUT), tiny.assistant(tiny.ANSWER)]
    conversation = PseudoConversation(index=0, messages=turns, end="committed")
    write_records(pseudo / "conversations.jsonl", [conversation])
    return tmp_path


def method_params(source: str, **changes: Any) -> Params:
    settings = method_settings("llmlingua2")
    encoder = settings.encoder.model_copy(update={"source": source, "tiny": TINY})
    training = recipe().training.model_copy(update={"steps": 4})
    method = settings.model_copy(
        update={"encoder": encoder, "recipe": recipe(training=training), **changes}
    )
    return Params({**sections("seed", "model", "run_episodes"), "method": method}, {})


def test_fit_writes_a_prompt_a_row_and_what_the_rates_came_to(base: Path) -> None:
    method = load_method("llmlingua2")
    params = method_params("tiny", rates=[100, 50, 10])
    rows = ["llmlingua2_100", "llmlingua2_50", "llmlingua2_10"]
    assert method.rows(params.method) == rows
    for out in ("one", "two"):
        method.fit("toy", params, base / out, base / "work")
    files = [file.relative_to(base / "one") for file in sorted((base / "one").rglob("*.*"))]
    assert files == sorted([*(Path(row, "prompt.md") for row in rows), Path("rates.json")])
    for file in files:
        assert (base / "one" / file).read_bytes() == (base / "two" / file).read_bytes()
    unchanged = read_prompt_text(base / "one/llmlingua2_100/prompt.md")
    assert parse_prompt(unchanged, "") == read_prompt("toy")[1]
    record = json.loads((base / "one/rates.json").read_text())
    assert record["recipe"]["training"] > record["recipe"]["validation"] > 0
    found = [record["rows"][row] for row in rows]
    assert [row["asked"] for row in found] == [1.0, 0.5, 0.1]
    assert found[0]["realised"] == found[0]["realised_with_template"] == 1.0
    assert 1.0 > found[1]["realised"] > found[2]["realised"]
    for name, row in zip(rows, found, strict=True):
        agent = method.load_agent(name, "toy", params, base / "one", base / "work")
        assert agent.prompt_tokens == row["prompt_tokens"]
    full = load_method("full_prompt").load_agent("full_prompt", "toy", params, base, base / "work")
    assert full.prompt_tokens == found[0]["prompt_tokens"] == record["full_prompt"]["prompt_tokens"]


def test_a_trained_checkpoint_is_used_as_it_is(base: Path, encoder: Path) -> None:
    params = method_params("path")
    folder = save_checkpoint(encoder, base / "mine", 2)
    source = params.method.encoder.path.model_copy(update={"folder": str(folder)})
    updated = params.method.encoder.model_copy(update={"path": source})
    params = method_params("path", encoder=updated)
    load_method("llmlingua2").fit("toy", params, base / "out", base / "work")
    record = json.loads((base / "out/rates.json").read_text())
    assert record["recipe"] is None
    assert record["encoder"] == {"source": "path", "folder": str(folder)}

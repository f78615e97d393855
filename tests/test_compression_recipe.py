"""The recipe that trains a compressor: labels by hand, a classifier that learns, the method."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

from gcd.compression.annotation import AnnotationSettings, annotate, filter_annotated
from gcd.compression.classifier import (
    IGNORED,
    Classifier,
    TrainClassifierSettings,
    load_classifier,
)
from gcd.compression.distillation import delete_by_model, delete_by_rule
from gcd.compression.recipe import (
    RecipeSettings,
    choose_windows,
    make_example,
    train_by_recipe,
    windows,
)
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
from tests.test_compression import PROMPTS


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
    encoder = settings.encoder.model_copy(update={"source": source, "tiny": tiny.ENCODER})
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
    records = [Path("rates.json"), Path("training.json")]
    assert files == sorted([*(Path(row, "prompt.md") for row in rows), *records])
    for file in files:
        assert (base / "one" / file).read_bytes() == (base / "two" / file).read_bytes()
    unchanged = read_prompt_text(base / "one/llmlingua2_100/prompt.md")
    assert parse_prompt(unchanged, "") == read_prompt("toy")[1]
    record = json.loads((base / "one/rates.json").read_text())
    assert record["recipe"]["training"] > record["recipe"]["validation"] > 0
    training = json.loads((base / "one/training.json").read_text())
    assert training["optimizer_steps"] == 4
    assert training["read_tokens"] > training["supervised_tokens"] > 0
    # At least two FLOPs a weight and token forwards, and as many again backwards; the embeddings,
    # a third of the tiny encoder's weights or more, are looked up.
    assert training["flops"] > training["trainable_parameters"] * training["read_tokens"]
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
    assert not (base / "out/training.json").exists()
    assert record["encoder"] == {"source": "path", "folder": str(folder)}

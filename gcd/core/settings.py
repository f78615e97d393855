"""The sections of params.yaml, typed: one class each, without defaults.

`gcd/core/params.py` reads the file into them. What every task has is in
`gcd/core/task_settings.py`; a task's or a method's own section is the `Settings` of its module.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
Percentage = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of params.yaml: every key required, no other key allowed, exact types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class WheelRelease(Section):
    """A Python wheel and its SHA-256."""

    package: str
    version: str
    sha256: str


class WheelSource(WheelRelease):
    """A model file inside a wheel, and its SHA-256."""

    file: str
    file_sha256: str


class WheelFolderSource(WheelRelease):
    """A folder of model files inside a wheel, in transformers' format."""

    folder: str


class HubSource(Section):
    """A repository of the model hub; `revision` is a commit, a tag or a branch."""

    id: str
    revision: str


class PathSource(Section):
    """A local folder in transformers' format."""

    folder: str


class TinySource(Section):
    """A random Llama of these sizes, taught the tasks' protocols (`gcd/tiny_model.py`).

    Trained from scratch for `steps` steps; a lesson has up to `longest_filler` random words.
    """

    hidden_size: Count
    intermediate_size: Count
    layers: Count
    heads: Count
    key_value_heads: Count
    vocabulary_size: Count
    context: Count
    steps: Count
    learning_rate: Positive
    longest_filler: Count
    seed: int


class PrepareModelSettings(Section):
    """Where the base model comes from: `source` picks one of the four."""

    source: Literal["wheel", "hub", "path", "tiny"]
    wheel: WheelSource
    hub: HubSource
    path: PathSource
    tiny: TinySource


class ModelSettings(Section):
    """How the base model is loaded, and how many tokens a batch of generation may hold."""

    quantization: Literal["none", "nf4"]
    dtype: Literal["float32", "bfloat16"]
    batch_tokens: Count


class GenerationSettings(Section):
    """Where models that write pseudo data run, but for `base`, which always runs in this process.

    `openings` says how a server is made to begin a reply with given text: it continues a last
    assistant message, or the user turn asks for it.
    """

    engine: Literal["transformers", "openai"]
    openings: Literal["continue", "ask"]


class GenerationServerSettings(Section):
    """Where the server of engine openai is, and how hard it is pressed.

    At most `parallel_requests` are under way and `requests_per_minute` (null: no limit) begin,
    retries included. One that fails, or has no answer after `timeout_seconds`, is sent again up to
    `retries` times, after longer and longer pauses.
    """

    address: Annotated[str, Field(pattern=r"^https?://\S+$")]
    parallel_requests: Count
    requests_per_minute: Positive | None
    retries: Annotated[int, Field(ge=0)]
    timeout_seconds: Positive


class TeacherSettings(Section):
    """How long an agent turn of the prompted teacher (and of the student) may get."""

    max_new_tokens: Count


class MakePseudoInputsSettings(Section):
    """How pseudo inputs are asked for, and which model invents them.

    New ones are asked after `demonstrations` shown ones, in at most `max_requests` requests; fewer
    than `minimum` usable ones are an error.
    """

    model: Name
    minimum: Count
    max_requests: Count
    requests_per_round: Count
    demonstrations: Count
    temperature: Positive
    top_p: Share


class MakePairedOutputsSettings(Section):
    """The model that answers with and without the prompt.

    Fewer than `minimum` usable pairs are an error.
    """

    model: Name
    minimum: Count


class MakeReasonsSettings(Section):
    """Model and sampling of reasons; fewer than `minimum` usable ones are an error."""

    model: Name
    minimum: Count
    temperature: Positive
    top_p: Share
    max_new_tokens: Count


class MakePseudoConversationsSettings(Section):
    """Self role-playing: one model plays both sides.

    The environment is sampled, and ends the conversation by `end_token`. `live_conversations` are
    played at the same time, as far as memory holds their keys and values.
    """

    model: Name
    minimum: Count
    live_conversations: Count
    temperature: Positive
    top_p: Share
    end_token: str


class LoraSettings(Section):
    """LoRA on all linear layers."""

    rank: Count
    alpha: Count
    dropout: Share


class TrainSettings(Section):
    """The one training loop; how long it runs on a task, the task says.

    The paged optimizers are bitsandbytes' and need a GPU. `gradient_checkpointing` keeps a layer's
    input only and computes the rest again on the way back: less memory, a third more work.
    `conversations` says what SFT imitates: whole self role-played conversations, or of each the
    first exchange alone, a pseudo input and the teacher's output.
    """

    optimizer: Literal["adamw", "paged_adamw_32bit", "paged_adamw_8bit"]
    gradient_checkpointing: bool
    micro_batch_tokens: Count
    max_length: Count
    learning_rate: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Positive
    checkpoint_every: Count
    conversations: Literal["role_played", "single_turn"]
    lora: LoraSettings


class RecordTeacherStatesSettings(Section):
    """How many teacher-visited states every row answers."""

    max_states: Count


class RunEpisodesSettings(Section):
    """Length of an agent turn in tokens, and how many episodes are played at the same time.

    Then a row is asked for the prompt, in `recall_requests` PG requests: it writes at most
    `recall_tokens` tokens, which are compared with as many of the prompt.
    """

    max_new_tokens: Count
    live_environments: Count
    recall_requests: Count
    recall_tokens: Count


class RecordBaseBehaviourSettings(Section):
    """How long the base model's answers to general instructions may get, in tokens."""

    answer_tokens: Count


class ProbeBehaviourSettings(Section):
    """Length of a reply to an extraction request, in tokens, and what counts as revealed.

    That is a run of at least `run_words` words of the prompt.
    """

    extraction_tokens: Count
    run_words: Count


class ScoreSettings(Section):
    """Intervals and tests of `score`.

    `confidence` is the level of the intervals, 1 - `confidence` that of the tests;
    `bootstrap_samples` resamples for the former, `permutations` draws for the latter. Row
    `compared_row` is compared with every other one.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap_samples: Count
    permutations: Count
    compared_row: str


class ReportSettings(Section):
    """How much of a message reports/transcripts.html shows."""

    transcript_characters: Count

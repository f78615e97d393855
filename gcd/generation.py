"""Which model writes a part of the pseudo data, and where it runs (params.yaml, `generation`)."""

from pathlib import Path
from typing import Literal

from gcd.core.errors import UserError
from gcd.core.interfaces import TextGenerator
from gcd.core.params import Params, read_params
from gcd.core.timings import loading


def check_model(engine: Literal["transformers", "openai"], model: str, key: str) -> None:
    """Whether `engine` can know a model of this name.

    Args:
        engine: see params.yaml, `generation.engine`.
        model: the name.
        key: the parameter that holds it, for the error.

    Raises:
        UserError: a server's model is called `base`; or another model than the base model is
            neither a local folder nor a pinned repository of the hub.
    """
    if engine == "openai":
        if model == "base":
            raise UserError(
                f"params.yaml: key `{key}`: `base` is the model of engine transformers. With "
                "generation.engine openai, give the name that the server knows its model by."
            )
    elif model != "base" and not Path(model).is_dir() and "@" not in model:
        raise UserError(
            f"params.yaml: key `{key}`: expected `base`, a local folder, or owner/name@revision of "
            f"the model hub; got {model!r}, which is no folder here and names no revision."
        )


def load_generator(params: Params, model: str, key: str, work: Path) -> TextGenerator:
    """The `model` of a synthesis stage, in this process or on the server; replies kept in `work`.

    Args:
        params: with the sections `generation` and `model`.
        model: its name, checked as `check_model` does.
        key: the parameter that holds it.
        work: the stage's folder of unfinished work.

    Raises:
        UserError: there is no such model, or no such server.
    """
    check_model(params.generation.engine, model, key)
    # Seconds of imports each, of which a run needs one and check_params none.
    if params.generation.engine == "transformers":
        with loading():
            from gcd.core.language_model import load_language_model
        return load_language_model(params.model, model, work)
    with loading():
        from gcd.openai_engine import load_served_model
    # Not among the stage's own sections: DVC and the work folder do not depend on it.
    server = read_params("generation_server").generation_server
    return load_served_model(server, params.generation.openings, model, work)

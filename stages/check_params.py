"""Check every key of params.yaml: known, present, of the right type.

python -m stages.check_params
"""

from gcd.core.params import SECTIONS, load_file, read_params
from gcd.core.stage import run


def main() -> None:
    file = load_file()
    groups = [f"{group}.{name}" for group in ("tasks", "methods") for name in file.get(group) or {}]
    read_params(*SECTIONS, "methods", *groups)


if __name__ == "__main__":
    run(main)

"""Check every key of params.yaml: known, present, of the right type.

python -m stages.check_params
"""

from gcd.core.params import every_section, load_file, read_params
from gcd.core.stage import run


def main() -> None:
    read_params(*every_section(load_file()))


if __name__ == "__main__":
    run(main)

"""Export a trained row as files that others serve.

python -m gcd.exports os_interaction gcd --to exports/shell
python -m gcd.exports os_interaction gcd --to exports/shell --merged --gguf adapter --gguf merged
"""

import argparse
import logging
import sys
from pathlib import Path

from gcd.core.errors import UserError


def main() -> None:
    """The command line. Exit status 1 after an error, which is the last line; 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(
        prog="python -m gcd.exports", description=str(__doc__).split("\n", 1)[0]
    )
    parser.add_argument("task", help="a key under `tasks:` in params.yaml")
    parser.add_argument("row", help="a method with a LoRA adapter: gcd, seqkd, …")
    parser.add_argument("--to", required=True, type=Path, help="the folder, e.g. exports/shell")
    parser.add_argument("--merged", action="store_true", help="the merged model too")
    parser.add_argument(
        "--gguf",
        action="append",
        default=[],
        choices=["adapter", "merged"],
        help="as a GGUF file for llama.cpp too; may be given twice",
    )
    parser.add_argument("--replace", action="store_true", help="put it in an old export's place")
    options = parser.parse_args()
    try:
        from gcd.exports.writing import write_exports  # 7 s of imports that --help does without

        write_exports(
            options.task,
            options.row,
            options.to,
            at=options.to,
            merged=options.merged,
            gguf=options.gguf,
            again=f"python -m gcd.exports {options.task} {options.row} --to NEW_FOLDER",
            replace=options.replace,
        )
    except UserError as error:
        sys.exit(f"exports: {error}")
    except KeyboardInterrupt:
        logging.info("Interrupted. Nothing is written.")
        sys.exit(130)


if __name__ == "__main__":
    main()

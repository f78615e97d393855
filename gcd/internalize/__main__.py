"""From a prompt to an adapter and a verdict: what `make internalize` does.

python -m gcd.internalize examples/support/prompt.md --inputs examples/support/inputs.jsonl

Ends with exports/NAME/. Interrupted or killed, the same command goes on. Docs: docs/internalize.md.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from gcd.core.errors import UserError
from gcd.repro.__main__ import interrupt, only_one


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gcd.internalize", description=str(__doc__).split("\n", 1)[0]
    )
    parser.add_argument("prompt", type=Path, help="text file: system text, demonstration turns")
    parser.add_argument("--inputs", type=Path, help='lines {"input": "…"}: what your users say')
    parser.add_argument("--format", type=Path, help="JSON Schema (.json) or regular expression")
    parser.add_argument("--model", help="a folder, or owner/name@revision of the model hub")
    parser.add_argument("--name", help="of the export; by default the prompt's")
    parser.add_argument("--rows", metavar="METHOD,…", help="methods beside those of the profile")
    parser.add_argument("--previous", help="the export that this one updates")
    parser.add_argument(
        "--warm-start", action="store_true", help="training begins with that export's adapter"
    )
    parser.add_argument("--merged", action="store_true", help="the merged model too")
    parser.add_argument(
        "--gguf",
        action="append",
        default=[],
        choices=["adapter", "merged"],
        help="as a GGUF file for llama.cpp too; may be given twice",
    )
    return parser.parse_args()


def main() -> None:
    """Exit status 1 after an error, which is the last line; 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        # What is wrong with the input is said before torch is imported.
        from gcd.internalize.checks import check
        from gcd.internalize.settings import read_settings

        settings = read_settings()
        asked = check(
            options.prompt,
            settings.prompt,
            inputs=options.inputs,
            format=options.format,
            model=options.model,
            name=options.name,
            rows=options.rows.split(",") if options.rows else [],
            previous=options.previous,
            warm_start=options.warm_start,
            merged=options.merged,
            gguf=options.gguf,
        )
        from gcd.internalize.running import internalize

        with only_one():
            folder = internalize(asked, settings)
        logging.info("%s/report.html has the verdict.", folder)
    except UserError as error:
        sys.exit(f"internalize: {error}")
    except KeyboardInterrupt:
        logging.info("Interrupted. Finished work is kept; the same command continues.")
        sys.exit(130)


if __name__ == "__main__":
    main()

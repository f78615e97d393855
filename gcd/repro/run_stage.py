"""`dvc repro --single-item <stage>`, with dvc.lock written by `update_lock`.

python -m gcd.repro.run_stage fit@os_interaction-gcd
"""

import sys
from typing import Any

from dvc.cli import main as dvc
from dvc.dvcfile import Lockfile
from dvc.stage import serialize

from gcd.repro.lock import update_lock


def dump_stages(lockfile: Lockfile, stages: list[Any], **options: Any) -> None:
    """In place of DVC's method of this name, for the dvc.lock of the working folder."""
    update_lock({n: c for s in stages for n, c in serialize.to_lockfile(s, **options).items()})
    lockfile.repo.scm_context.track_file(lockfile.relpath)


def main(stage: str) -> int:
    """Run one stage; returns DVC's exit status."""
    Lockfile.dump_stages = dump_stages
    return int(dvc(["--wait-for-lock", "repro", "--single-item", stage]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

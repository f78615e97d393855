"""Tell which sandbox commands will run in here, and why: `python -m gcd.tasks.os_interaction`."""

import sys

from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.tasks.os_interaction.sandbox_command import preflight

if __name__ == "__main__":
    try:
        limits = read_params("tasks.os_interaction").task.sandbox
        sys.stdout.write(preflight(limits.disk_bytes, limits.user_id) + "\n")
    except UserError as error:
        sys.exit(str(error))

"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(Exception):
    """Bad input: a parameter, a file, a prompt, a missing program, a full disk.

    The message says what was expected, what came and what to do. A stage prints it on one line,
    without a traceback, and exits with status 1 (`gcd.core.stage.run`).
    """

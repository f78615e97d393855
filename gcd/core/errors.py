"""Exceptions for what the person at the keyboard can mend, and for a row that fails by itself."""


class UserError(Exception):
    """Bad input: a parameter, a file, a prompt, a missing program, a full disk.

    The message says what was expected, what came and what to do. A stage prints it on one line,
    without a traceback, and exits with status 1 (`gcd.core.stage.run`).
    """


class RowFailure(UserError):  # noqa: N818  (what it names is a result, not a mistake)
    """A row that cannot be trained or played: its loss diverges, its memory runs out.

    A result like another: the stage records the reason and ends well, the tables show the row as
    failed, and the other rows go on (`gcd.core.failures`).
    """

"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and how to mend it.

    The command line prints the message without a stack trace and exits with status 1.
    """

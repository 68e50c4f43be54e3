"""The one exception that a user's mistake may raise."""


class UserError(Exception):
    """Something the user can mend; the message says in one sentence what, where and what to do.

    The command line prints the message without a traceback and exits with status 1.
    """

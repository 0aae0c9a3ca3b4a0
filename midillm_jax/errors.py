"""The one exception whose message is meant for the person at the command line."""


class UserError(Exception):
    """One sentence saying what was found, where, what was expected and what to do; commands exit with code 2."""

"""The one exception whose message is meant for the person at the command line."""


class UserError(Exception):
    """One sentence saying what was found, where, what was expected and what to do; commands exit with code 2."""


def require(*rules: tuple[str, object, bool, str]) -> None:
    """Refuses the first value that is not good: its name, the value, whether it is good, what was expected.

    Raises:
        UserError: there is one.
    """
    for name, found, good, expected in rules:
        if not good:
            raise UserError(f"{name} is {found}; expected {expected}")


def first_line(error: BaseException) -> str:
    """What another library says first, which may say much; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class TryAgain(UserError):
    """What stopped this run is mended; the same command, started again, goes on. Exit code 75, as in sysexits.h."""

"""The one kind of error that is a user's to mend: commands print it as a line. Any other is ours, and shows its traceback."""

from collections.abc import Collection


class InputError(ValueError):
    """Something given is wrong; the text names the value, the limit and what to do."""


def check_choice(what: str, value: object, options: Collection) -> None:
    """InputError unless a value is one of the options.

    Example:
        >>> check_choice("head", "D", ("A", "B"))
        Traceback (most recent call last):
        InputError: head is 'D'; choose one of 'A', 'B'
    """
    if value not in options:
        raise InputError(f"{what} is {value!r}; choose one of {', '.join(map(repr, options))}")


def check_range(what: str, value: float | None, low: float, high: float | None) -> None:
    """InputError unless a value lies from low to high (None: no limit); a value of None is fine.

    Example:
        >>> check_range("nms", 1.5, 0, 1)
        Traceback (most recent call last):
        InputError: nms is 1.5; it must be from 0 to 1
    """
    if value is not None and not (low <= value and (high is None or value <= high)):
        raise InputError(f"{what} is {value}; it must be " + (f"at least {low}" if high is None else f"from {low} to {high}"))

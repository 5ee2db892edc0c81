"""The one kind of error that is a user's to mend: commands print it as a line. Any other is ours, and shows its traceback."""


class InputError(ValueError):
    """Something given is wrong; the text names the value, the limit and what to do."""

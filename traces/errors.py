"""The one exception a user sees."""


class BadInput(ValueError):  # noqa: N818 - named for what it is, not for how it travels
    """Input that Tilecast cannot use. The message is one line: what is wrong, where, and what would be right.

    The command line prints it and exits with code 2.
    """

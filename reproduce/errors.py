"""The error that a user of `reproduce` can fix: shown as text, without a traceback, exit code 2."""


class ReproduceError(Exception):
    """Something the user can fix; the text says what, where and how."""

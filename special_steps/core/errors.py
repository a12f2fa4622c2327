"""The one exception type for what a user can fix."""


class UserError(Exception):
    """A mistake in the input or the settings; its text names the file, the value and the fix."""


def one_line(error: BaseException, length: int = 300) -> str:
    """Another library's exception as one line of bounded length, to quote in a UserError."""
    text = " ".join(f"{error}".split()) or type(error).__name__
    return text if len(text) <= length else text[:length] + " ..."

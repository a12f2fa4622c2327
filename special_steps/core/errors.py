"""The one exception type for what a user can fix."""


class UserError(Exception):
    """A mistake in the input or the settings; its text names the file, the value and the fix.

    It may quote a file: line breaks become blanks, and characters that a terminal would obey, or cannot write, "?".
    """

    def __init__(self, text: str = "") -> None:
        """Keep the text as one line that can be written anywhere."""
        kept = (c if c.isprintable() else " " if c.isspace() else "?" for c in text)
        super().__init__("".join(kept))


def one_line(error: BaseException, length: int = 300) -> str:
    """Another library's exception as one line of bounded length, to quote in a UserError."""
    text = " ".join(f"{error}".split()) or type(error).__name__
    return text if len(text) <= length else text[:length] + " ..."

"""The one exception type for what a user can mend."""


class UserError(Exception):
    """A mistake in the input or the settings; its text names the file, the value and the fix."""

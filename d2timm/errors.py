"""The one exception that stands for a user's mistake."""

__all__ = ["ConfigError"]


class ConfigError(ValueError):
    """A mistake in what the user asked for.

    Its text is one line that names the value, what is allowed and the fix. Scripts print it without a
    traceback and end with an exit code that is not 0.
    """

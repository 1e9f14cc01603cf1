"""What can be wrong with a request to this package."""


class WiringError(ValueError):
    """A wrong name, option, number or weight. The message names it and what to do; nothing was changed."""

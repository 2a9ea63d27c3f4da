"""The error a user can mend: what was asked for breaks a rule."""


class UserError(ValueError):
    """A rule was broken by configuration or data; the message states rule, value and remedy.

    `field` is the dotted path in the YAML (`train.data.path`), or None when no single key is at fault.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

"""The one exception of the lab: a sentence for the user, and what may help."""


class LabError(Exception):
    def __init__(self, message, hint=None):
        super().__init__(message)
        self.hint = hint

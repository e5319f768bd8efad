"""Errors of media files; every message names the file and the remedy."""

from __future__ import annotations

from erv.errors import UserError


class MediaError(UserError):
    """A file that cannot be used as it is.

    Args:
        path: The file.
        problem: What is wrong with it.
        remedy: What can be done other than replacing the file; empty: the general advice.
    """

    def __init__(self, path: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {problem}; {remedy or 'replace the file, or set media.on_corrupt=skip or mask'}")
        self.path, self.problem, self.remedy = path, problem, remedy

    @property
    def reason(self) -> str:
        """The problem, and the remedy if this error has a specific one; without the file's name."""
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str, str]]:
        """Errors cross process borders, and the default would call the constructor with the message alone."""
        return type(self), (self.path, self.problem, self.remedy)


class MissingMedia(MediaError):
    """The file does not exist."""


class CorruptMedia(MediaError):
    """The file cannot be decoded to the end of what is needed, or is over a limit."""


class NoVideo(CorruptMedia):
    """The file has no picture track, or one without frames."""

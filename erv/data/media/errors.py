"""What can be wrong with a clip's files; every message names the file and the remedy."""

from __future__ import annotations


class MediaError(Exception):
    """A file that cannot be used as it is: its `path`, the `problem`, and what else may be done than replacing the file."""

    def __init__(self, path: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {problem}; {remedy or 'replace the file, or set media.on_corrupt=skip or mask'}")
        self.path, self.problem, self.remedy = path, problem, remedy

    @property
    def reason(self) -> str:
        """The problem, with the remedy where it is one of its own; without the file's name."""
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str, str]]:
        """Errors cross process borders; the default would pass the message alone."""
        return type(self), (self.path, self.problem, self.remedy)


class MissingMedia(MediaError):
    """There is no such file."""


class CorruptMedia(MediaError):
    """The file cannot be decoded to the end of what is needed, or is larger than the limits allow."""


class NoVideo(CorruptMedia):
    """The file holds no picture track, or one without frames."""

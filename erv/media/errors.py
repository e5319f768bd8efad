"""What can be wrong with a media file; every message names the file and the remedy."""

from __future__ import annotations

from collections.abc import Callable


class MediaError(Exception):
    """A clip that cannot be used as it is."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., MediaError], tuple[str, ...]]:
        """Errors cross process borders in data-loading workers; the default needs the constructor's own arguments."""
        return (_rebuild, (self.__class__.__name__, self.path, str(self)))


class MissingMedia(MediaError):
    """There is no such file."""


class CorruptMedia(MediaError):
    """The file cannot be decoded to the end of what is needed."""


class NoVideo(MediaError):
    """The file holds no picture track, or one without frames."""


def _rebuild(name: str, path: str, message: str) -> MediaError:
    kind = {c.__name__: c for c in (MissingMedia, CorruptMedia, NoVideo)}.get(name, MediaError)
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.path = path
    return error

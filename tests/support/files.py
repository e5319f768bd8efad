"""Tower inputs and features of media files, decoded in this process."""

import torch

from erv.data.media.container import Limits
from erv.data.media.decode import decode


def load_media(processor, path):
    """What the towers take of a file; a file without sound has no "audio"."""
    decoded = decode(path, None, processor.media_spec(), Limits())
    return processor.tensors(decoded.frames, decoded.waveform)


@torch.no_grad()
def encode_files(policy, paths):
    """Tower features of files."""
    return policy.encode([load_media(policy.processor, path) for path in paths])

"""HumanOmni's vision projector: two convolutional branches and one MLP branch over the same tower features.

Spec: policy.md section 3. Submodules have the names of the public checkpoints; "bn" is a LayerNorm over channels there, too.
The blocks are timm's RegNet bottlenecks, written out because the project does not depend on timm.

Shapes: B clips, T frames, g * g = N patches of width d per frame, g' * g' tokens of width D per frame after the projector,
g' = ceil(g / 2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channel axis of `[B, C, H, W]`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, then ChannelNorm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = ChannelNorm(outputs, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> `[B, outputs, H, W]`."""
        return self.bn(self.conv(x))


class SqueezeExcite(nn.Module):
    """Channel attention: scale each channel by a function of all channel means."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> same shape."""
        return x * torch.sigmoid(self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """RegNet bottleneck of ratio 1 with a depthwise 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, groups=outputs)
        self.se = SqueezeExcite(outputs, round(inputs / 4))
        self.conv3 = ConvNorm(outputs, outputs)
        self.downsample = ConvNorm(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` -> `[B, outputs, H, W]`."""
        y = F.silu(self.conv2(F.silu(self.conv1(x))))
        return F.silu(self.conv3(self.se(y)) + self.downsample(x))  # no activation between conv3 and the sum


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """`depth` bottlenecks named b1, b2, …; the first one changes the width."""
    blocks = nn.Sequential()
    for number in range(1, depth + 1):
        blocks.add_module(f"b{number}", Bottleneck(inputs if number == 1 else outputs, outputs))
    return blocks


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs))


class VisionProjector(nn.Module):
    """Tower features `[B, T, N, d]` -> three branches of video tokens `[B, T * g' * g', D]`: video, body, face."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        depth, spatial_padding = (2, 0) if kind == "all_in_one_small" else (4, 1)
        for branch in ("video", "body"):
            self.add_module(f"s1_{branch}", _stage(inputs, outputs, depth))
            conv = nn.Conv3d(outputs, outputs, 2, stride=(1, 2, 2), padding=(1, spatial_padding, spatial_padding))
            self.add_module(f"sampler_{branch}", nn.Sequential(conv, nn.SiLU()))
            self.add_module(f"s2_{branch}", _stage(outputs, outputs, depth))
            self.add_module(f"readout_{branch}", _mlp(outputs, outputs))
        self.mlp_2xgelu_face = _mlp(inputs, outputs)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, T, N, d]` -> (video, body, face), each `[B, T * g' * g', D]`."""
        return self.branch("video", features), self.branch("body", features), self.pool_face(self.face(features))

    def branch(self, name: str, features: Tensor) -> Tensor:
        """Run a convolutional branch, "video" or "body": `[B, T, N, d]` -> `[B, T * g' * g', D]`."""
        batch, frames, patches, width = features.shape
        grid = int(patches**0.5)
        x = features.reshape(batch * frames, grid, grid, width).permute(0, 3, 1, 2)
        x = self.get_submodule(f"s1_{name}")(x)
        x = x.reshape(batch, frames, *x.shape[1:]).transpose(1, 2)  # [B, D, T, g, g]
        # padding on both sides of time makes T + 1 outputs; without the last one, output t sees frames t - 1 and t
        x = self.get_submodule(f"sampler_{name}")(x)[:, :, :frames]
        x = x.transpose(1, 2).flatten(0, 1)
        x = self.get_submodule(f"s2_{name}")(x).flatten(2).transpose(1, 2)  # [B * T, g' * g', D]
        return self.get_submodule(f"readout_{name}")(x.reshape(batch, -1, x.shape[-1]))

    def face(self, features: Tensor) -> Tensor:
        """Run the MLP branch up to its pooling: `[B, T, N, d]` -> `[B, T, N, D]`."""
        return self.mlp_2xgelu_face(features)

    def pool_face(self, tokens: Tensor) -> Tensor:
        """Pool `[B, T, N, D]` to `[B, T * g' * g', D]` by bilinear resizing to half the grid, rounded up."""
        batch, frames, patches, width = tokens.shape
        grid = int(patches**0.5)
        x = tokens.reshape(batch * frames, grid, grid, width).permute(0, 3, 1, 2)
        half = (grid + 1) // 2
        x = F.interpolate(x, size=(half, half), mode="bilinear", align_corners=False)
        return x.flatten(2).transpose(1, 2).reshape(batch, -1, width)

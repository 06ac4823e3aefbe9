"""The network that drives: a convolutional encoder, an LSTM, and a head whose velocities are fed back."""

from __future__ import annotations

import torch
from camera import HEIGHT, WIDTH
from simulator import ACTIONS, SCALARS
from torch import nn

FILTERS = (8, 22)
KERNEL, STRIDE, PADDING = 5, 2, 2
MAP = (FILTERS[1], HEIGHT // 4, WIDTH // 4)
"""What the encoder gives: 22 filters at 15 × 25 places, 8250 features."""
VELOCITIES = 2
FEATURES = MAP[0] * MAP[1] * MAP[2] + len(SCALARS)
"""8254 = 8250 + 4; with the 2 velocities the LSTM reads 8256, with its own 64 units 8320."""
INPUTS = FEATURES + VELOCITIES
UNITS = 64
FEATURE_DROPOUT = 0.3


def to_network(frames: torch.Tensor) -> torch.Tensor:
    """Pixels 0 … 255 as the network reads them."""
    return frames.float() * (1 / 128) - 1


class DrivingNetwork(nn.Module):
    """Action logits and velocities of every step from images and scalars."""

    def __init__(self) -> None:
        super().__init__()
        first, second = FILTERS
        self.conv0 = nn.Conv2d(1, first, KERNEL, STRIDE, PADDING)
        self.conv1 = nn.Conv2d(first, second, KERNEL, STRIDE, PADDING)
        self.lstm = nn.LSTMCell(INPUTS, UNITS)
        self.head = nn.Linear(UNITS, len(ACTIONS) + VELOCITIES)
        self.to(memory_format=torch.channels_last)  # several times faster on CPUs
        with torch.no_grad():  # forget gates begin open (Jozefowicz et al., ICML 2015)
            self.lstm.bias_ih[UNITS : 2 * UNITS] += 1

    def features(self, pixels: torch.Tensor, scalars: torch.Tensor) -> torch.Tensor:
        """Features [..., 8254] of images [..., HEIGHT, WIDTH] as the network reads them."""
        shape = pixels.shape[:-2]
        maps = pixels.reshape(-1, 1, HEIGHT, WIDTH).to(memory_format=torch.channels_last)
        maps = torch.relu(self.conv0(maps))
        maps = torch.relu(self.conv1(maps))
        return torch.cat([maps.reshape(*shape, -1), scalars], -1)

    def forward(
        self,
        features: torch.Tensor,
        state: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Logits [N, T, 4], velocities [N, T, 2] and (h, c, velocities) of features [N, T, 8254]."""
        count = len(features)
        if self.training:
            features = nn.functional.dropout(features, FEATURE_DROPOUT)
        w_x, w_v = self.lstm.weight_ih.split((FEATURES, VELOCITIES), 1)
        seen = features @ w_x.T + (self.lstm.bias_ih + self.lstm.bias_hh)
        if state is None:
            h = c = features.new_zeros(count, UNITS)
            state = h, c, features.new_zeros(count, VELOCITIES)
        h, c, v = state
        w = torch.cat([self.lstm.weight_hh, w_v], 1).T
        results = []
        for step in seen.unbind(1):
            i, f, g, o = (step + torch.cat([h, v], 1) @ w).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            results.append(self.head(h))
            v = results[-1][:, len(ACTIONS) :]
        whole = torch.stack(results, 1)
        return whole[..., : len(ACTIONS)], whole[..., len(ACTIONS) :], (h, c, v)

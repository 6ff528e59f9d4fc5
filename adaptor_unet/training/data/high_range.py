"""Pictures of high dynamic range, as many phones film, made into what an ordinary screen shows.

Light is counted in units of reference white, 203 cd/m2 (ITU-R BT.2408).  Axes: h height, w width.
"""

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

# FFmpeg's numbers for the two ways in which such light is coded (ITU-R BT.2100).
PQ, HLG = 16, 18
WHITE = 203.0
# Of the screen that HLG is shown on when nothing is said of it.
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2
LUMINANCE = numpy.array([0.2627, 0.6780, 0.0593], numpy.float32)
# Linear light of BT.2020's primaries to that of BT.709's (ITU-R BT.2087).
TO_BT709 = numpy.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], numpy.float32
)
# Light up to here stays as it is.
KNEE = 0.75
# Of an ordinary screen (ITU-R BT.1886).
SCREEN_GAMMA = 2.4


def ordinary_range(pixels: NDArray[numpy.uint16], transfer: int) -> Tensor:
    """h w 3 in 16 bits, coded by PQ or HLG with BT.2020's colours -> h w 3 in uint8, for an ordinary screen."""
    coded = numpy.arange(65536, dtype=numpy.float32) / 65535
    if transfer == PQ:
        light = pq_light(coded)[pixels]
    else:
        light = hlg_scene_light(coded)[pixels]
        light *= HLG_PEAK / WHITE * numpy.maximum(light @ LUMINANCE, 1e-6)[..., None] ** (HLG_GAMMA - 1)
    light = numpy.maximum(light @ TO_BT709.T, 0)
    # All three colours by one factor, which keeps the hue.
    brightest = numpy.maximum(light.max(-1, keepdims=True), 1e-6)
    light *= bent(brightest) / brightest
    return torch.from_numpy((light ** (1 / SCREEN_GAMMA) * 255).round().clip(0, 255).astype(numpy.uint8))


def bent(light: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """Below 1: unchanged up to ``KNEE``; what is brighter comes nearer and nearer to 1, without a kink."""
    left = 1 - KNEE
    return numpy.where(light <= KNEE, light, 1 - left * numpy.exp((KNEE - light) / left))


def pq_light(coded: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """ITU-R BT.2100, table 4: what is coded, 0 to 1, to light in units of ``WHITE``."""
    root = coded ** numpy.float32(1 / 78.84375)
    ratio = numpy.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return (10000 / WHITE * ratio ** (1 / 0.1593017578125)).astype(numpy.float32)


def hlg_scene_light(coded: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """ITU-R BT.2100, table 5: what is coded, 0 to 1, to light of the scene, 0 to 1."""
    high = (numpy.exp((coded - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return numpy.where(coded <= 0.5, coded**2 / 3, high).astype(numpy.float32)

"""What acts over the frames of a clip by tensors of its own: an adaptor, or a motion module."""

import torch

from .adaptor import VideoAdaptor
from .motion_module import MotionModule
from .whole_file import content_name

Network = VideoAdaptor | MotionModule


def content_of_network(network: Network) -> str:
    """A name for a network's settings and all of its values."""
    config = network.config.to_json() if isinstance(network, VideoAdaptor) else str(network.config)
    return content_name([(config, torch.zeros(0)), *sorted(network.state_dict().items())])

"""What acts over the frames of a clip by tensors of its own: an adaptor, or a motion module."""

from .adaptor import VideoAdaptor
from .motion_module import MotionModule

Network = VideoAdaptor | MotionModule

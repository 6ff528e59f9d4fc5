"""The nodes of the pack: each is a schema and one call."""

from comfy_api.latest import ComfyExtension, io

from ..adaptor_unet.host.folders import register_folder
from .adaptor import ApplyMagicVideo, LoadAdaptor, NewAdaptor, SaveAdaptor
from .clip import CausalWindows, ExpandLatent
from .consistency import CalibrateAdaptor, CrossFrameAttention, FrameAdain, FrameNoise
from .motion_module import ApplyMotionModule, LoadMotionLora, LoadMotionModule
from .train import TrainAdaptor


class MagicVideoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_folder()  # here, because the oldest host never calls on_load
        return [
            LoadAdaptor,
            NewAdaptor,
            ApplyMagicVideo,
            CausalWindows,
            ExpandLatent,
            TrainAdaptor,
            SaveAdaptor,
            CrossFrameAttention,
            FrameAdain,
            CalibrateAdaptor,
            FrameNoise,
            LoadMotionModule,
            LoadMotionLora,
            ApplyMotionModule,
        ]

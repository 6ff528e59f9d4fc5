"""The nodes of the pack: each is a schema and one call."""

from comfy_api.latest import ComfyExtension, io

from ..adaptor_unet.host.folders import register_folder
from .align import AlignFrames
from .apply import ApplyMagicVideo
from .calibrate import CalibrateAdaptor
from .directed import DirectedAttention
from .expand import ExpandLatent
from .files import LoadAdaptor, SaveAdaptor
from .new import NewAdaptor
from .noise import FrameNoise
from .train import TrainAdaptor
from .windows import CausalWindows


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
            DirectedAttention,
            AlignFrames,
            CalibrateAdaptor,
            FrameNoise,
        ]

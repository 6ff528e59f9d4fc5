"""What many nodes have: the pack's own type on the wire, a ModelPatcher around a video adaptor, and the seed."""

from comfy_api.latest import io

Adaptor = io.Custom("MAGICVIDEO_ADAPTOR")
CATEGORY = "magicvideo"


def seed(tooltip: str, name: str = "seed") -> io.Int.Input:
    return io.Int.Input(name, default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)

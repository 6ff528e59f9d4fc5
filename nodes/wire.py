"""What many nodes have: the type of an adaptor on the wire, a ModelPatcher around it; seed; place in the menu."""

from comfy_api.latest import io

Adaptor = io.Custom("MAGICVIDEO_ADAPTOR")
# Where the nodes stand in the menu; locales/*/main.json has each part's name.
CATEGORY = "magicvideo"
ADAPTORS = f"{CATEGORY}/adaptors"
UNTRAINED = f"{CATEGORY}/without training"


def seed(tooltip: str, name: str = "seed") -> io.Int.Input:
    return io.Int.Input(name, default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)

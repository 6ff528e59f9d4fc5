"""What many nodes have: types on the wire, places in the menu, and inputs.

On the wire an adaptor is a ModelPatcher around a VideoAdaptor, and a motion module one around a MotionModule.
"""

from comfy_api.latest import io

from ..adaptor_unet.host.versions import unchanging_seed
from ..trainer.node_inputs import ALL_SETTINGS

Adaptor = io.Custom("MAGICVIDEO_ADAPTOR")
MotionModule = io.Custom("MAGICVIDEO_MOTION_MODULE")
# Where the nodes stand in the menu; locales/*/main.json has each part's name.
CATEGORY = "magicvideo"
ADAPTORS = f"{CATEGORY}/adaptors"
MOTION_MODULES = f"{CATEGORY}/motion modules"
UNTRAINED = f"{CATEGORY}/without training"


def seed(tooltip: str, name: str = "seed", stays: bool = False) -> io.Int.Input:
    """Seed of all that chance decides; the page draws a new one after each run, unless it ``stays`` as it is."""
    after = unchanging_seed() if stays else True
    return io.Int.Input(name, default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=after, tooltip=tooltip)


def frames_per_clip() -> io.Int.Input:
    """How clips lie in the batch."""
    return io.Int.Input(
        "frames_per_clip",
        default=0,
        min=0,
        max=4096,
        tooltip="0: the whole batch is one clip. Otherwise clips of this length, one after the other.",
    )


def strength(tooltip: str) -> io.Float.Input:
    """Strength of an effect whose result is mixed with the plain one: 0 none of it, 1 all."""
    return io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def scaling_strength(tooltip: str) -> io.Float.Input:
    """Strength of what scales a change, of any sign: 0 none of it, 1 as trained."""
    return io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip=tooltip)


def start_percent(tooltip: str) -> io.Float.Input:
    """Point of sampling from which on an effect acts: 0 the start, 1 the end."""
    return io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


def end_percent(tooltip: str) -> io.Float.Input:
    """Point of sampling up to which an effect acts: 0 the start, 1 the end."""
    return io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


def of_setting(name: str, optional: bool = False, **limits: float) -> io.Input:
    """The input for a setting of training, with the type, default, choices, range and tooltip declared there.

    ``limits`` are narrower ones of the node.  Raises KeyError for a name that is no setting's.
    """
    setting = ALL_SETTINGS[name]
    told = {"default": setting.default, "tooltip": setting.tooltip, "optional": optional}
    if setting.choices:
        return io.Combo.Input(name, options=list(setting.choices), **told)
    if setting.multiple > 1:
        told["step"] = setting.multiple
    if setting.most is not None:
        told["max"] = setting.kind(setting.most)
    kind = io.Int if setting.kind is int else io.Float
    return kind.Input(name, **{"min": setting.kind(setting.least)} | told | limits)

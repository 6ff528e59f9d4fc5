"""An arm of a comparison, trained and measured: losses on held-out clips, and what sprites do of what is asked for.

Attention is torch's plain one throughout, which gives the same numbers each time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel

from magicvideo.adaptor_unet.host.training_unet import TrainingUnet
from magicvideo.adaptor_unet.temporal_network import Network
from magicvideo.adaptor_unet.training.loop import TrainingRun
from magicvideo.adaptor_unet.training.objective import Objective
from magicvideo.adaptor_unet.training.validation import validation_loss
from magicvideo.benchmarks.sprite_judge import SpriteJudge
from magicvideo.trainer.motion_training import MotionTraining


def train(training: MotionTraining) -> None:
    """Trains to the last step."""
    with sdpa_kernel(SDPBackend.MATH):
        training.train()


@contextmanager
def averages_at_work(run: TrainingRun) -> Iterator[None]:
    """In the context a run's averaged weights are in place, and all is computed in its precision."""
    with sdpa_kernel(SDPBackend.MATH), run.averages.in_place(), run.autocast():
        yield


def measured(
    run: TrainingRun, judge: SpriteJudge, network: Network | None, denoiser: TrainingUnet | None = None
) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of the judge's clips and losses of the run's held-out ones, each by name.

    Of the ``network``, which need not be the one that is trained, on the ``denoiser``, by default the run's own.
    """
    denoiser = denoiser or run.denoiser
    with averages_at_work(run):
        losses = validation_loss(Objective(denoiser, run.settings), run.clips.held_out, network)
        return judge.shares(denoiser, network), losses

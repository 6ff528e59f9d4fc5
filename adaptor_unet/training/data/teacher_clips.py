"""Clips that a teacher samples from prompts, once: a file each in the cache, so that a run that was stopped goes on.

Axes: f frames, c channels, h height, w width; n tokens, d channels of the text.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from ...whole_file import save_tensors
from ..settings import MotionModuleSettings
from ..step_plan import seed_from
from ..training_error import enough_memory
from .cache_files import contents, hash_of, read_rates, read_tensor
from .data_settings import LATENT_PIXELS, DataSettings
from .latent_cache import EMBEDDING, LOWER, MADE_OF, STORED, CachedClip, Encoders, FolderClips, LatentCache
from .latent_clip import LATENT_CHANNELS, JoinedSets, TrainingClips, fault_in
from .prepare import HELD_OUT_OF, TOO_FEW, evenly, spread

logger = logging.getLogger(__name__)

# Part of every name in the cache: raise it when the same teacher and settings give other clips.
VERSION = "1"
MOST_SHOWN = 40
# A clip ``f c h w`` for two texts ``n d``, the wanted one and the empty one, and a seed.  What comes last is told how
# many of the sampling steps are done, and of how many.
ClipSampler = Callable[[Tensor, Tensor, int, Callable[[int, int], None]], Tensor]


@dataclass(frozen=True)
class TeacherWork:
    """What a teacher is asked for: so many clips for each prompt, of these settings.

    ``teacher`` names all of its weights, ``encoders`` those of the text encoder and the autoencoder.
    """

    prompts: tuple[str, ...]
    data: DataSettings
    settings: MotionModuleSettings
    teacher: str
    encoders: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of a clip's latents, f c h w."""
        return (self.data.frames, LATENT_CHANNELS, self.data.height // LATENT_PIXELS, self.data.width // LATENT_PIXELS)

    def made_of(self, prompt: str, number: int, text: str) -> dict[str, object]:
        """All that decides what a prompt's clip of that number is, by name; ``text`` names what is read of it."""
        how = {name: getattr(self.settings, name) for name in ("teacher_steps", "teacher_cfg", "teacher_fps")}
        seed = seed_from("teacher", self.data.seed, prompt, number)
        whose = {"version": VERSION, "teacher": self.teacher, "encoders": self.encoders}
        made_of = whose | how | {"prompt": prompt, "seed": seed, "shape": list(self.shape)}
        # Of other prompts the encoders tell all; names of their clips stay those of earlier versions.
        return made_of | ({"text": text} if EMBEDDING in prompt else {})


def sampled_clips(
    work: TeacherWork,
    folder: Path,
    encoders: Callable[[], Encoders],
    sample: ClipSampler,
    progress: Callable[[int, int, str], None],
) -> FolderClips:
    """All clips of the prompts, from the cache or freshly sampled into it; each stays there when a later one fails.

    ``encoders`` is called once, and only when a prompt is not encoded yet.  ``progress`` as for ``build_cache``.
    Raises ValueError when the teacher gives values that cannot be learnt from, OutOfMemoryError when memory is short.
    """
    texts = LatentCache(folder, work.data, work.encoders, encoders)
    total = len(work.prompts) * work.settings.teacher_clips
    captions = {prompt: work.data.captioned(prompt) for prompt in work.prompts}
    telling = partial(progress, 0, total, "encoding prompts")
    paths = {caption: texts.text(caption, telling) for caption in ("", *captions.values())}
    empty = read_tensor(paths[""], "text")
    found: list[CachedClip] = []
    for prompt in work.prompts:
        for number in range(work.settings.teacher_clips):
            text = paths[captions[prompt]]
            made_of = work.made_of(captions[prompt], number, text.stem)
            path = folder / "teacher" / f"{hash_of(json.dumps(made_of, sort_keys=True))}.safetensors"
            if read_rates(path) is None:
                words = f"the teacher samples {shortened(prompt)!r}"
                telling = partial(told_step, progress, len(found), total, words)
                telling(0, work.settings.teacher_steps)
                with enough_memory("the teacher samples a clip", LOWER):
                    latents = sample(read_tensor(text, "text"), empty, made_of["seed"], telling)
                save_clip(path, latents, made_of, prompt)
            found.append(CachedClip(path, (work.settings.teacher_fps,), text, captions[prompt]))
    return FolderClips(found, empty)


def told_step(progress: Callable[[int, int, str], None], clip: int, clips: int, words: str, step: int, of: int) -> None:
    """Tells ``progress`` which clip is sampled, and how many of its sampling steps are done."""
    progress(clip, clips, f"{words}, step {step} of {of}")


def shortened(prompt: str) -> str:
    """A prompt as it is shown, cut where it is long."""
    return prompt if len(prompt) <= MOST_SHOWN else f"{prompt[:MOST_SHOWN]}..."


def save_clip(path: Path, latents: Tensor, made_of: dict[str, object], prompt: str) -> None:
    """Writes a sampled clip, f c h w, as an encoded clip's file is written.

    Raises ValueError for a clip that nothing can be learnt from, OutputError when it cannot be written.
    """
    stored = latents.to("cpu", STORED)
    if fault := fault_in(stored):
        raise ValueError(
            f"The teacher gave {'zeros' if fault == 'all zeros' else 'values that are not finite'} for the prompt "
            f"{shortened(prompt)!r}. Lower teacher_cfg, or let the model work in 32 bits, and start again."
        )
    told = {
        MADE_OF: json.dumps(made_of),
        "magicvideo.format": "latents",
        "magicvideo.fps": json.dumps([made_of["teacher_fps"]]),
    }
    tensors = {"0": stored}
    save_tensors(path, tensors, told | contents(tensors))


def with_teacher(own: TrainingClips | None, sampled: FolderClips, validation_clips: int) -> TrainingClips:
    """What a run learns from: the teacher's clips, behind the user's own if there are any.

    Of the user's own the held-out ones are looked at; else some of the teacher's are held out, spread evenly.
    """
    if own is not None:
        both = own.clip_count + len(sampled)
        return TrainingClips(JoinedSets((own.train, sampled)), own.held_out, own.empty_text, taught=True, sources=both)
    count = len(sampled.clips)
    places = evenly(count, min(validation_clips, count // HELD_OUT_OF))
    if not places:
        logger.info(TOO_FEW)
        return TrainingClips(sampled, spread(sampled, validation_clips), sampled.empty_text, taught=True)
    kept = FolderClips([clip for place, clip in enumerate(sampled.clips) if place not in places], sampled.empty_text)
    apart = tuple(sampled.clips[place][0] for place in places)
    return TrainingClips(kept, apart, sampled.empty_text, taught=True)


def read_prompts(text: str) -> tuple[str, ...]:
    """The prompts of a text, one a line, each once; empty lines are left out.  Raises ValueError when there is none."""
    prompts: Sequence[str] = [" ".join(line.split()) for line in text.splitlines()]
    found = tuple(dict.fromkeys(filter(None, prompts)))
    if not found:
        raise ValueError("there are no prompts for the teacher. Write one a line: what is to be seen in its clips")
    return found

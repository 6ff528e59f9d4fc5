"""Files of random numbers: another seed is another file, the same seed the same."""

import torch

from magicvideo.tools.make_random_checkpoint import random_lora, random_tensor


def test_another_seed_is_another_file_and_the_same_seed_the_same() -> None:
    first, again, other = random_lora(0), random_lora(0), random_lora(1)
    numbers = [name for name, tensor in first.items() if tensor.dim() > 1]
    assert numbers and all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in numbers)


def test_tensors_of_one_file_differ() -> None:
    one, two = (random_tensor(name, (4, 4), 3) for name in ("one.weight", "two.weight"))
    assert not torch.equal(one, two)

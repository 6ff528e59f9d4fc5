"""Names for tensors tell every difference, wherever it lies."""

import pytest
import torch

from magicvideo.adaptor_unet.content_name import content_name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_each_single_value_counts(dtype: torch.dtype) -> None:
    values = torch.zeros(3, 5, 7, dtype=dtype)
    names = {content_name([("x", values)])}
    for place in range(values.numel()):
        changed = values.clone()
        changed.view(-1)[place] = 1
        names.add(content_name([("x", changed)]))
    assert len(names) == 1 + values.numel()


def test_name_shape_dtype_and_order_count_and_layout_does_not() -> None:
    x, y = torch.arange(6.0).reshape(2, 3), torch.zeros(())
    names = [[("x", x)], [("y", x)], [("x", x.reshape(3, 2))], [("x", x.double())], [("x", x), ("y", y)]]
    names.append([("y", y), ("x", x)])
    assert len({content_name(tensors) for tensors in names}) == len(names)
    assert content_name([("x", x.T.contiguous().T)]) == content_name([("x", x)])
    with torch.inference_mode():
        assert content_name([("x", x + 0)]) == content_name([("x", x)])
    assert content_name([("x", torch.zeros(0))]) != content_name([])

"""ControlNet: each call of the model gets the hints of its own frames, in chunks, in the host's windows and whole."""

import logging

import comfy.context_windows
import comfy.utils
import nodes
import pytest
import torch
from comfy.controlnet import ControlBase, ControlNet
from comfy.model_patcher import ModelPatcher
from small_host import Sampler, build_model, conditioning, trained
from ways import far_looking

from magicvideo.adaptor_unet.host import hints
from magicvideo.adaptor_unet.host.binding import with_causal_windows
from magicvideo.adaptor_unet.host.hints import hint_rows
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative
from small_controls import (
    CONTROLS,
    T2I_SHAPE,
    control_lora,
    control_net,
    model_for,
    numbered_hints,
    record_hints,
    t2i_adapter,
)

CLOSE = 1e-4
Text = dict[str, list]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    return record_hints(monkeypatch)


@pytest.fixture(params=CONTROLS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def applied(
    control: ControlBase, hints: torch.Tensor, to: Text | None = None, strength: float = 1.0, **when: float
) -> Text:
    """Text with a control applied by the stock advanced node."""
    to = to or {"positive": conditioning(1), "negative": conditioning(2)}
    range_ = {"start_percent": 0.0, "end_percent": 1.0} | when
    node = nodes.ControlNetApplyAdvanced()
    positive, negative = node.apply_controlnet(to["positive"], to["negative"], control, hints, strength, **range_)
    return {"positive": positive, "negative": negative}


def moving(model: ModelPatcher, **settings: int) -> ModelPatcher:
    return bind(model, far_looking(model), **settings)


def frames_seen(seen: list[list[int]], frames: int) -> list[list[int]]:
    """One entry a call, without the copy for the other part of the guidance."""
    assert all(call == call[: len(call) // 2] * 2 for call in seen), "conditional and unconditional part alike"
    calls = [call[: len(call) // 2] for call in seen]
    assert sum(map(len, calls)) == frames
    return calls


def numbers(start: int, end: int) -> list[int]:
    return list(range(start, end))


def test_each_chunk_gets_the_hints_of_its_frames(kind: str, sample: Sampler, seen: list[list[int]]) -> None:
    model = moving(model_for(kind))
    sample(with_causal_windows(model, 4), 10, steps=1, **applied(CONTROLS[kind](), numbered_hints(10)))
    assert frames_seen(seen, 10) == [numbers(0, 4), numbers(4, 8), numbers(8, 10)]


def test_a_controlled_clip_in_chunks_equals_the_whole(kind: str, sample: Sampler) -> None:
    model = moving(model_for(kind))
    pictures = torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    text = applied(CONTROLS[kind](), pictures, strength=3.0)
    whole = sample(model, 8, **text)
    chunked = sample(with_causal_windows(model, 3), 8, **text)
    assert relative(chunked, whole) <= CLOSE
    assert relative(whole, sample(model, 8)) > 10 * CLOSE, "the control should show"
    first_again = applied(CONTROLS[kind](), pictures[[*range(3), *range(3), 0, 1]], strength=3.0)
    assert relative(whole, sample(model, 8, **first_again)) > 3 * CLOSE, "which hint it is should show"


@pytest.mark.take_turns
@pytest.mark.parametrize("order", ["windows last", "windows first"])
@pytest.mark.parametrize("overlap", [0, 1])
def test_the_stock_windows_get_the_hints_of_their_frames(
    kind: str, sample: Sampler, seen: list[list[int]], order: str, overlap: int
) -> None:
    model = model_for(kind)
    if order == "windows last":
        model = stock_windows(moving(model), 4, overlap)
    else:
        model = moving(stock_windows(model, 4, overlap))
    sample(model, 10, steps=1, **applied(CONTROLS[kind](), numbered_hints(10)))
    starts = {0: [0, 4, 8], 1: [0, 3, 6]}[overlap]
    expected = [numbers(start, min(start + 4, 10)) for start in starts]
    assert [call[: len(call) // 2] for call in seen] == expected


class StockWindows(comfy.context_windows.IndexListContextHandler):
    """The host's own; 0.3.75's cannot compare the noise level of more than one row by itself."""

    def set_step(self, timestep: torch.Tensor, model_options: dict) -> None:
        super().set_step(timestep[:1], model_options)


def stock_windows(model: ModelPatcher, length: int, overlap: int, **more: bool) -> ModelPatcher:
    windowed = model.clone()
    if hasattr(comfy.context_windows, "create_sampler_sample_wrapper"):
        more = {"causal_window_fix": False} | more
    windowed.model_options["context_handler"] = StockWindows(
        comfy.context_windows.get_matching_context_schedule("standard_static" if overlap else "batched"),
        comfy.context_windows.get_matching_fuse_method("flat"),
        context_length=length,
        context_overlap=overlap,
        **more,
    )
    comfy.context_windows.create_prepare_sampling_wrapper(windowed)
    return windowed


def test_the_frame_in_front_of_a_stock_window_has_its_own_hint(sample: Sampler, seen: list[list[int]]) -> None:
    if not hasattr(comfy.context_windows, "create_sampler_sample_wrapper"):
        pytest.skip("this host's windows have no frame in front")
    model = stock_windows(moving(build_model()), 4, 0, causal_window_fix=True)
    sample(model, 8, steps=1, **applied(control_net(), numbered_hints(8)))
    assert [call[: len(call) // 2] for call in seen] == [numbers(0, 4), numbers(3, 8)]


def test_without_this_pack_the_stock_windows_all_get_the_first_hints(sample: Sampler, seen: list[list[int]]) -> None:
    """What the pack mends; once the host does so itself, the code for it can go."""
    sample(stock_windows(build_model(), 4, 0), 12, steps=1, **applied(control_net(), numbered_hints(12)))
    assert frames_seen(seen, 12) == [numbers(0, 4)] * 3


@pytest.mark.take_turns
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (8, numbers(0, 8)),
        (10, numbers(0, 8)),
        (5, [*range(5), *[4] * 3]),
        (3, [*range(3), *[2] * 5]),
        (1, None),
    ],
)
def test_the_last_hint_is_held_and_a_single_one_is_for_all(
    sample: Sampler, seen: list[list[int]], hints: int, expected: list[int] | None, windowed: bool
) -> None:
    model = moving(build_model())
    model = with_causal_windows(model, 3) if windowed else model
    sample(model, 8, steps=1, cfg=1.0, **applied(control_net(), numbered_hints(hints)))
    if expected is None:
        assert all(call == [0] for call in seen) and seen
    else:
        assert [number for call in seen for number in call] == expected


def test_twice_as_many_hints_as_frames_are_not_shared_out_to_both_parts(sample: Sampler, seen: list[list[int]]) -> None:
    """The host takes 8 hints for the 8 rows of both parts of 4 frames."""
    sample(moving(build_model()), 4, steps=1, **applied(control_net(), numbered_hints(8)))
    assert frames_seen(seen, 4) == [numbers(0, 4)]


@pytest.mark.take_turns
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize(("hints", "second_clip"), [(6, numbers(0, 6)), (4, [0, 1, 2, 3, 3, 3]), (12, numbers(6, 12))])
def test_hints_for_one_clip_are_for_every_clip(
    sample: Sampler, seen: list[list[int]], hints: int, second_clip: list[int], windowed: bool
) -> None:
    model = moving(build_model(), frames_per_clip=6)
    model = with_causal_windows(model, 4) if windowed else model
    sample(model, 12, steps=1, cfg=1.0, **applied(control_net(), numbered_hints(hints)))
    assert [number for call in seen for number in call][6:] == second_clip


def test_hints_of_a_chained_control_and_its_percents_are_its_own(sample: Sampler, seen: list[list[int]]) -> None:
    first = applied(control_net(), numbered_hints(10), end_percent=0.4)
    both = applied(control_net(), numbered_hints(7, first=100), to=first, start_percent=0.3)
    model = moving(build_model())
    whole = sample(model, 10, steps=6, **both)
    seen.clear()
    chunked = sample(with_causal_windows(model, 4), 10, steps=6, **both)
    assert relative(chunked, whole) <= CLOSE
    calls = {tuple(call[: len(call) // 2]) for call in seen}
    assert calls == {
        *[tuple(range(0, 4)), tuple(range(4, 8)), (8, 9)],
        *[tuple(range(100, 104)), (104, 105, 106, 106), (106, 106)],
    }
    first_alone = [call for call in seen if call[0] < 100]
    assert 0 < len(first_alone) < len(seen), "each acts in a part of the steps"


def test_a_chain_of_different_classes_gives_each_its_hints(sample: Sampler, seen: list[list[int]]) -> None:
    text = applied(t2i_adapter(), numbered_hints(10))
    for first, control in ((64, control_lora(**T2I_SHAPE)), (128, t2i_adapter())):
        text = applied(control, numbered_hints(10, first=first), to=text)
    sample(with_causal_windows(moving(model_for("T2IAdapter")), 4), 10, steps=1, cfg=1.0, **text)
    starts = {0: [], 64: [], 128: []}
    for call in seen:
        starts[max(start for start in starts if start <= call[0])] += [number for number in call]
    assert all(found == numbers(start, start + 10) for start, found in starts.items())


def test_the_plain_node_and_one_control_for_both_parts_work_too(sample: Sampler, seen: list[list[int]]) -> None:
    (positive,) = nodes.ControlNetApply().apply_controlnet(conditioning(1), control_net(), numbered_hints(10), 1.0)
    sample(with_causal_windows(moving(build_model()), 4), 10, steps=1, positive=positive)
    assert frames_seen(seen, 10) == [numbers(0, 4), numbers(4, 8), numbers(8, 10)], "still in one call for both parts"


def test_strength_0_leaves_no_control(sample: Sampler, seen: list[list[int]]) -> None:
    model = with_causal_windows(moving(build_model()), 4)
    off = sample(model, 10, steps=1, **applied(control_net(), numbered_hints(10), strength=0.0))
    assert torch.equal(off, sample(model, 10, steps=1)) and seen == []


def test_areas_with_a_control_get_the_hints_of_their_frames(sample: Sampler, seen: list[list[int]]) -> None:
    model = moving(build_model())
    text = applied(
        control_net(),
        numbered_hints(10),
        to={"positive": conditioning(1, area=(8, 4, 0, 0)), "negative": conditioning(2)},
    )
    text["positive"] += conditioning(4)
    whole = sample(model, 10, size=8, **text)
    seen.clear()
    assert relative(sample(with_causal_windows(model, 4), 10, size=8, **text), whole) <= CLOSE
    assert {number for call in seen for number in call} == set(range(10))


def control_objects(text: Text) -> list[ControlBase]:
    return [entry["control"] for part in text.values() for _, entry in part]


def test_the_users_control_objects_stay_as_they_were(kind: str, sample: Sampler) -> None:
    hints = numbered_hints(10)
    text = applied(CONTROLS[kind](), hints)
    text = applied(CONTROLS[kind](), numbered_hints(3), to=text)
    before = [{**vars(link)} for control in control_objects(text) for link in (control, control.previous_controlnet)]
    sample(with_causal_windows(moving(model_for(kind)), 4), 10, steps=1, **text)
    after = [{**vars(link)} for control in control_objects(text) for link in (control, control.previous_controlnet)]
    for old, new in zip(before, after, strict=True):
        assert old.keys() - {"control_model"} <= new.keys()
        assert all(new[name] is old[name] for name in ("cond_hint_original", "previous_controlnet", "cond_hint"))
        assert new.get("control_input") is None and new["extra_args"] == old["extra_args"] == {}


def test_every_copy_of_a_control_is_cleaned_up(sample: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    used, cleaned = [], []
    run, clean = ControlNet.get_control, ControlNet.cleanup
    monkeypatch.setattr(ControlNet, "get_control", lambda one, *rest: (used.append(one), run(one, *rest))[1])
    monkeypatch.setattr(ControlNet, "cleanup", lambda one: (cleaned.append(one), clean(one))[1])
    text = applied(control_net(), numbered_hints(10), to=applied(control_net(), numbered_hints(10)))
    sample(with_causal_windows(moving(build_model()), 4), 10, steps=1, **text)
    assert len(used) == 6 and {id(one) for one in used} <= {id(one) for one in cleaned}
    assert not {id(one) for one in used} & {id(one) for one in control_objects(text)}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many hints the host has prepared, each time that it did, in a list that grows."""
    counts, plain = [], comfy.utils.common_upscale
    monkeypatch.setattr(comfy.utils, "common_upscale", lambda x, *rest: (counts.append(len(x)), plain(x, *rest))[1])
    return counts


@pytest.mark.parametrize(
    ("kind", "hints", "chunk", "expected"),
    [("ControlNet", 4, 2, [2, 2]), ("T2IAdapter", 4, 2, [2, 2]), ("T2IAdapter", 3, 4, [4])],
)
def test_hints_are_prepared_once_a_sampling(
    sample: Sampler, prepared: list[int], seen: list, kind: str, hints: int, chunk: int, expected: list[int]
) -> None:
    model = with_causal_windows(moving(model_for(kind)), chunk)
    sample(model, 4, cfg=1.0, **applied(CONTROLS[kind](), numbered_hints(hints)))
    assert prepared == expected
    assert len(seen) == len(expected) * (1 if kind == "T2IAdapter" else 2), "calls of the network, in two steps"


def test_frame_by_frame_too(sample: Sampler, prepared: list[int]) -> None:
    model = moving(model_for("T2IAdapter"), order="frame by frame")
    sample(model, 3, cfg=1.0, **applied(t2i_adapter(), numbered_hints(3)))
    assert prepared == [1, 1, 1]


def test_of_a_long_clip_no_more_is_kept_than_so_much(
    sample: Sampler, prepared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the three chunks; of those, one at least is among the next two that come."""
    model, text = with_causal_windows(moving(build_model()), 1), applied(control_net(), numbered_hints(3))
    expected = sample(model, 3, steps=3, cfg=1.0, **text)
    prepared.clear()
    monkeypatch.setattr(hints, "MOST_BYTES", 2 * 3 * 64 * 64 * 4)
    assert torch.equal(sample(model, 3, steps=3, cfg=1.0, **text), expected)
    assert len(prepared) == 3 + 1 + 2


def test_an_adapter_computes_anew_when_the_host_parts_the_two_sides(
    sample: Sampler, prepared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the host does where memory is short, here from the second step on."""
    model = model_for("T2IAdapter")
    bound, text = moving(model), applied(t2i_adapter(), numbered_hints(3), strength=3.0)
    expected = sample(bound, 4, steps=3, **text)
    prepared.clear()
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30 if prepared else 1.0)
    assert relative(sample(bound, 4, steps=3, **text), expected) <= CLOSE
    assert prepared == [4, 4]


def test_an_error_in_the_second_chunk_leaves_the_controls_usable(sample: Sampler, seen: list[list[int]]) -> None:
    model, text = with_causal_windows(moving(build_model()), 4), applied(control_net(), numbered_hints(10))
    expected = sample(model, 10, **text)
    seen.clear()

    def fail(*_: object) -> None:
        if len(seen) == 2:
            raise RuntimeError("out of memory, say")

    handle = model.model.diffusion_model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(model, 10, **text)
    handle.remove()
    assert torch.equal(sample(model, 10, **text), expected)


def test_at_strength_0_and_without_windows_hints_are_the_hosts_bit_for_bit(
    sample: Sampler, seen: list[list[int]]
) -> None:
    model = build_model()
    still = bind(model, trained(fresh_adaptor(model)), strength=0.0)
    text = applied(control_net(), numbered_hints(3))
    assert torch.equal(sample(still, 8, steps=1, cfg=1.0, **text), sample(model, 8, steps=1, cfg=1.0, **text))
    assert seen == [[0, 1, 2, 0, 1, 2, 0, 1]] * 2


def test_a_control_that_reads_the_frames_itself_keeps_its_hints(sample: Sampler, seen: list[list[int]]) -> None:
    text = applied(control_net(), numbered_hints(10))
    for control in control_objects(text):
        control.sub_idxs = None
    sample(with_causal_windows(moving(build_model()), 5), 10, steps=1, cfg=1.0, **text)
    assert seen == [numbers(0, 5), numbers(0, 5)], "what the host does, since this one does nothing itself"


def test_a_debug_line_lists_the_hints_of_every_chunk(sample: Sampler, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="magicvideo.adaptor_unet.host.hints"):
        model = with_causal_windows(moving(build_model()), 2)
        sample(model, 5, steps=1, **applied(control_net(), numbered_hints(4)))
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("hints")]
    assert lines == [
        "frames [0, 1]: hints [0, 1] of ControlNet",
        "frames [2, 3]: hints [2, 3] of ControlNet",
        "frames [4]: hints [3] of ControlNet",
    ]


@pytest.mark.parametrize(
    ("hints", "clips", "expected"),
    [
        (6, (), [4, 5, 5, 5]),
        (9, (), [4, 5, 6, 7]),
        (3, (3,), [1, 2, 0, 1]),
        (2, (3,), [1, 1, 0, 1]),
        (3, (2, 6), [2, 2, 0, 1]),
        (5, (3,), [4, 4, 4, 4]),
    ],
)
def test_hints_are_chosen_by_hand(hints: int, clips: tuple[int, ...], expected: list[int]) -> None:
    assert hint_rows([4, 5, 6, 7], hints, clips) == expected

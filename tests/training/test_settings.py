"""Settings of a run: what is refused, and with which words; the command line and the TOML file that set them."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from pack import ROOT

from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.setting_fields import settings_of
from magicvideo.adaptor_unet.training.settings import (
    ALL_SETTINGS,
    SETTING_GROUPS,
    NewAdaptorSettings,
    RunSettings,
    TrainingSettings,
)
from magicvideo.adaptor_unet.training.settings_text import add_settings, parse_toml, read_toml, settings_table
from magicvideo.tools.settings_page import write_table

BAD = [
    ("steps", 0, "steps must be a whole number from 1 to 10000000"),
    ("steps", 10.5, "steps must be a whole number"),
    ("steps", True, "steps must be a whole number"),
    ("learning_rate", float("nan"), "learning_rate must be a finite number"),
    ("learning_rate", -1.0, "learning_rate must be a finite number, 0 or more"),
    ("learning_rate", "fast", "learning_rate must be a finite number"),
    ("caption_dropout", 1.5, "caption_dropout is a share"),
    ("high_noise_share", 1.01, "high_noise_share is a share"),
    ("weighting", "p2", "weighting must be one of none, min_snr, high_noise"),
    ("frame_noise_levels", "two", "frame_noise_levels must be one of one_a_clip, one_a_frame, clean_context"),
    ("clean_context_share", 1.5, "clean_context_share is a share"),
    ("context_timesteps", 0, "context_timesteps must be a whole number from 1 to 1000"),
    ("context_timesteps", 20, "choose more than 20"),
    ("base_tuning", "half", "base_tuning must be one of frozen, lora, full"),
    ("precision", "fp16", "precision must be one of auto, fp32, bf16"),
    ("checkpointing", 1, "checkpointing must be true or false"),
    ("base_still_share", 0.5, "base_tuning is frozen"),
    ("seed", -1, "seed must be a whole number from 0 to 18446744073709551615"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_a_setting_that_cannot_work_is_refused_by_name(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainingSettings(**{name: value})


# Just outside of ranges that do not begin at 0, and what table and help pages call the range.
OUTSIDE = [
    ("adaptor_rate_factor", 0.0, "above 0"),
    ("clip_norm", 0.0, "above 0"),
    ("ema", 1.0, "0 or more, below 1"),
    ("weighting_cap", 0.99, "1 or more"),
    ("teacher_fps", 0.0, "0.001 to 1000"),
    ("image_fps", 0.0, "0.001 to 1000"),
]


@pytest.mark.parametrize(("name", "value", "words"), OUTSIDE)
def test_the_end_of_a_range_is_refused_and_told(name: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} .*a finite number, {words}"):
        RunSettings.from_values({name: value})
    one = ALL_SETTINGS[name]
    assert f"| `{name}` | `{one.default}` | {words} |" in settings_table()
    assert f"({words}; default: {one.default})" in " ".join(parser().format_help().split())


def test_guidance_that_nothing_would_be_learnt_of_is_refused() -> None:
    with pytest.raises(ValueError, match="but caption_dropout is 0: choose a share"):
        TrainingSettings(fps_guidance=True, caption_dropout=0.0)
    TrainingSettings(frame_noise_levels="one_a_clip", context_timesteps=20)


def test_two_shares_may_not_exceed_the_whole() -> None:
    with pytest.raises(ValueError, match="together must not exceed 1"):
        TrainingSettings(still_share=0.6, base_still_share=0.6, base_tuning="lora")


def test_few_clips_get_a_lower_rate_unless_one_is_given() -> None:
    assert TrainingSettings().rate(clips=1) == 3e-5
    assert TrainingSettings().rate(clips=4) == 1e-4
    assert TrainingSettings(learning_rate=5e-4).rate(clips=1) == 5e-4


def test_an_adaptor_to_start_from_brings_its_own_settings() -> None:
    with pytest.raises(ValueError, match="start brings its own rank"):
        NewAdaptorSettings(start="a.safetensors", rank=8)
    with pytest.raises(ValueError, match="init must be spatial or random"):
        NewAdaptorSettings(init="zero")


def test_shared_noise_belongs_to_the_adaptor() -> None:
    assert RunSettings.from_values({"shared_noise": 0.2}).adaptor_settings["shared_noise"] == 0.2
    with pytest.raises(ValueError, match="start brings its own .*shared_noise"):
        NewAdaptorSettings(start="a.safetensors", shared_noise=0.2)
    with pytest.raises(ValueError, match="shared_noise is a share and must lie in 0 to 1, found 1.5"):
        NewAdaptorSettings(shared_noise=1.5)
    for bad in ("much", True, float("nan")):
        with pytest.raises(ValueError, match="shared_noise is a share and must lie in 0 to 1"):
            NewAdaptorSettings(shared_noise=bad)


def test_a_misspelt_setting_is_told_the_right_name() -> None:
    with pytest.raises(ValueError, match="no setting 'learning_rat'. Did you mean learning_rate?"):
        RunSettings.from_values({"learning_rat": 1.0})
    with pytest.raises(ValueError, match="no setting 'rnk'. Did you mean rank?"):
        RunSettings.from_values({"rnk": 4})
    with pytest.raises(ValueError, match="no setting 'zzz'. There are .*, steps,"):
        RunSettings.from_values({"zzz": 4})


def test_shared_settings_reach_all_that_have_them() -> None:
    settings = RunSettings.from_values({"seed": 7, "frames": 8})
    assert (settings.clips.seed, settings.training.seed, settings.clips.frames) == (7, 7, 8)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_settings(made)
    return made


def parsed(*arguments: str) -> dict[str, object]:
    return vars(parser().parse_args(arguments))


def test_options_left_out_say_nothing() -> None:
    assert parsed() == {}


def test_every_setting_has_an_option_of_its_name_with_a_help_text() -> None:
    names = {field.name for kind in SETTING_GROUPS.values() for field in fields(kind)}
    assert set(ALL_SETTINGS) == names
    text = "".join(parser().format_help().split())
    for one in ALL_SETTINGS.values():
        assert f"--{one.name.replace('_', '-')}" in text
        assert one.help.endswith(".") and "".join(one.help.rstrip(".").split()) in text
    found = parsed("--learning-rate", "1e-3", "--no-checkpointing", "--parts", "frame", "fps", "--steps", "7", "--flip")
    expected = {"learning_rate": 1e-3, "checkpointing": False, "parts": ["frame", "fps"], "steps": 7, "flip": True}
    assert found == expected
    settings = RunSettings.from_values(found)
    assert settings.adaptor.parts == ("frame", "fps")
    assert settings.clips.flip


def test_a_toml_file_may_have_tables_or_none(tmp_path: Path) -> None:
    path = tmp_path / "설정 run.toml"
    path.write_text('steps = 3\n[clips]\nframes = 8\ncaption_prefix = "파도"\n', encoding="utf-8")
    assert read_toml(path) == {"steps": 3, "frames": 8, "caption_prefix": "파도"}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors save it
    assert read_toml(path)["steps"] == 3


def test_no_settings_are_none_also_on_a_python_without_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    assert parse_toml("") == parse_toml(" \n") == {}
    with pytest.raises(ValueError, match="Python 3.11"):
        parse_toml("steps = 3")


@pytest.mark.parametrize("content", [b"steps =", b"\xff\xfe"])
def test_a_broken_toml_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="run.toml cannot be read as a TOML file"):
        read_toml(path)


def test_help_may_show_a_few_settings_and_take_all() -> None:
    made = argparse.ArgumentParser()
    add_settings(made, ("steps", "width"))
    assert "--steps N" in made.format_help() and "--width" in made.format_help()
    assert "--height" not in made.format_help() and "adaptor" not in made.format_help()
    assert vars(made.parse_args(["--rank", "8"])) == {"rank": 8}


def test_every_default_may_be_said_again() -> None:
    for kind in SETTING_GROUPS.values():
        assert kind(**{field.name: field.default for field in fields(kind)}) == kind()


def test_a_setting_that_two_groups_have_is_declared_alike() -> None:
    assert settings_of(DataSettings)["seed"] == settings_of(TrainingSettings)["seed"]


def test_the_table_is_written_below_the_words_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "settings.md"
    page.write_text("# Settings\n\nWords.\n\n| an | old |\n|---|---|\n", encoding="utf-8")
    write_table(page)
    assert page.read_text(encoding="utf-8") == f"# Settings\n\nWords.\n\n{settings_table()}"
    page.write_text("# Settings\n", encoding="utf-8")
    with pytest.raises(ValueError, match="settings.md has no table"):
        write_table(page)


def test_the_guide_has_the_table_of_all_settings() -> None:
    guide = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert guide.endswith(f"\n\n{settings_table()}"), "bash bin/run tools/settings_page.py writes the table anew"

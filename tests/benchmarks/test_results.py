"""Results are kept line by line, and a table tells of each arm its mean and how far its seeds lie apart."""

from pathlib import Path

from magicvideo.benchmarks.results import arms_table, keep_result, measure_missing, read_results, spread


def test_what_was_kept_is_read_again_and_nothing_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.jsonl"
    assert read_results(path) == []
    for seed in (0, 1):
        keep_result(path, {"arm": "a", "seed": seed})
    assert read_results(path) == [{"arm": "a", "seed": 0}, {"arm": "a", "seed": 1}]


def test_what_is_there_is_not_measured_again_and_what_is_new_is_kept_at_once(tmp_path: Path) -> None:
    path, measured = tmp_path / "results.jsonl", []
    keep_result(path, {"arm": "a", "seed": 0, "right": 1.0})

    def measure(arm: str, seed: int) -> dict[str, object]:
        assert len(read_results(path)) == 1 + len(measured)
        measured.append((arm, seed))
        return {"arm": arm, "seed": seed, "right": 0.5}

    wanted = [{"arm": arm, "seed": seed} for seed in (0, 1) for arm in ("a", "b")]
    results = measure_missing(path, wanted, measure)
    assert measured == [("b", 0), ("a", 1), ("b", 1)]
    assert results == read_results(path) and [result["right"] for result in results] == [1.0, 0.5, 0.5, 0.5]
    assert measure_missing(path, wanted, measure) == results and len(measured) == 3


def test_seeds_that_are_written_alike_have_no_spread() -> None:
    assert spread([], "{:.1f}") == "-"
    assert spread([1.0, 1.01], "{:.1f}") == "1.0"
    assert spread([1.0, 2.0, 6.0], "{:.1f}") == "3.0 (1.0 to 6.0)"


def test_a_table_has_a_row_for_each_arm_that_was_measured() -> None:
    results = [
        {"arm": "one", "right": 0.5, "loss": 0.25},
        {"arm": "one", "right": 1.0, "loss": 0.25},
        {"arm": "two", "right": 0.0},
    ]
    columns = [("as asked", "right", "{:.0f} %"), ("loss", "loss", "{:.2f}")]
    assert arms_table(("one", "none", "two"), columns, results) == (
        "| | as asked | loss |\n|---|---|---|\n| one (2) | 75 % (50 % to 100 %) | 0.25 |\n| two (1) | 0 % | - |"
    )

"""Lines of metrics.jsonl, and spikes.

    pytest tests/test_progress.py
"""

import json

import pytest
import torch

from luke_mini import progress, report, trainer
from luke_mini.distributed import Rank


def logged(tmp_path, norms: list[float], every: int = 10, state: dict | None = None, start: int = 0, total: int = 999):
    """The lines of a log, and its progress, after steps whose gradients have these norms."""
    rank, path = Rank(0, 1, torch.device("cpu")), tmp_path / "metrics.jsonl"
    loader = trainer.Ahead([])
    log = progress.Progress(rank, total, start, every, path, "test", state or {}, loader, 1e9)
    for step, norm in enumerate(norms, start=start + 1):
        terms = torch.tensor([6.0 * step, 2.0, 4.0], dtype=torch.float64)
        sums = {"work": torch.tensor([30.0, 3.0, 5e6], dtype=torch.float64), "word": terms,
                "norm": torch.tensor([norm, 1.0], dtype=torch.float64)}  # fmt: skip
        log.update(step, sums, 0.5, {"held_out_word_loss": float("nan")} if step == 15 else {})
    return [json.loads(line) for line in (path.read_text().splitlines() if path.exists() else ())], log


def test_lines_of_the_log(tmp_path):
    found, _ = logged(tmp_path, [1.0] * 9 + [3.0] + [1.0] * 10)
    assert [line["step"] for line in found] == [10, 15, 20]
    assert found[0]["gradient_norm"] == pytest.approx(1.2) and found[0]["word_accuracy"] == 0.5
    assert found[0]["word_loss"] == pytest.approx(sum(6 * step for step in range(1, 11)) / 40)
    assert found[1]["held_out_word_loss"] is None and "held_out_word_loss" not in found[0]
    assert set(progress.CLOCK) <= set(found[0]) and "spikes" not in found[0]
    for line in found:
        per_token = line["flop_per_second"] / line["tokens_per_second"]
        assert per_token == pytest.approx(5e6 / 30, rel=1e-2)
        assert line["tokens_per_second"] == pytest.approx(10 * line["entities_per_second"], rel=1e-2)
        assert line["share_of_peak"] == pytest.approx(line["flop_per_second"] / 1e9, rel=1e-3)


def test_spikes_of_the_gradient_are_logged_and_a_resumed_log_is_the_same(tmp_path, capsys):
    norms = [9.0] * 3 + [2.0] * 22 + [11.0, 2.0, 30.0, 2.0, 2.0] + [3.0] * 10
    whole, log = logged(tmp_path, norms)
    usual = [2.0 + 7 * 3 / 25]  # the mean of the first 25
    assert [line.get("spikes") for line in whole] == [None, None, None, [[28, 30.0]], None]
    assert "step 28: the gradient's norm is 30, usually" in capsys.readouterr().out
    assert usual[0] * progress.SPIKE > 11 and log.usual < 5
    for cut in (7, 26, 28, 33):
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        _, before = logged(tmp_path, norms[:cut])
        state = json.loads(json.dumps(before.state()))
        again, _ = logged(tmp_path, norms[cut:], state=state, start=cut)
        kept, expected = ([{k: v for k, v in line.items() if k not in progress.CLOCK} for line in log]
                          for log in (again, whole))  # fmt: skip
        assert kept == expected


def test_no_spikes_before_a_norm_is_usual(tmp_path):
    found, _ = logged(tmp_path, [1.0] * 5 + [100.0] + [1.0] * 4)
    assert "spikes" not in found[0]


def test_numbers():
    found = [report.number(value) for value in (0.00012, 7, 999.4, 22_713_216, 999_999, 1.5e9, 9.8e14)]
    assert found == ["0.00012", "7", "999", "22.7M", "1M", "1.5B", "980T"]

"""What commands print of names that users chose: letter by letter."""

from android_bench.harness import DeviceOutcome
from flint.bench_screen import BenchScreen
from flint.cli.output import print_table


def test_a_name_that_looks_like_markup_or_an_emoji_is_printed_as_it_is(capsys):
    print_table(("device",), [("device-farm:b: [/x] [red]",)], empty="")
    assert "device-farm:b: [/x] [red]" in capsys.readouterr().out
    with BenchScreen(1) as screen:
        screen.finished(DeviceOutcome("device-farm:b", None, "it gave no answer"))
    assert "device-farm:b: no figures: it gave no answer" in capsys.readouterr().err

"""What was measured is on disk after every step, and is gone on with or refused."""

import json

import pytest

from tritonkit.bench.progress import Progress, SoakEnd, SoakLevel, SoakOf, Step
from tritonkit.bench.result import Ceiling, CeilingPoint, TuningRun
from tritonkit.errors import InputError
from tritonkit.stats.scrape import ServerCounters

QUESTION = {"model": "m", "slo_p99_ms": 50.0, "cpus": (0, 1)}


@pytest.fixture
def file(tmp_path):
    """Where progress is kept."""
    return tmp_path / "progress.jsonl"


@pytest.fixture
def step(level):
    """A step of one arm in a round."""

    def make(arm="ort_baseline", round=1, first_in_line=True, **more):
        counters = ServerCounters(requests=3, inferences=6, executions=2, batches={2: 1, 4: 1})
        record = level("open", 100.5, round=round, p50_interval_ms=[1.0, 2.0], **more)
        return Step(arm, record, counters, 2.5, first_in_line)

    return make


def test_all_comes_back(file, step):
    """The ceiling, the tuning, and every step are as they were."""
    first = Progress(file, QUESTION)
    ceiling = Ceiling(1.0, 2.0, 8, 1, 2, (CeilingPoint(1, 2, 8, 2.0),))
    runs = (TuningRun(1, 2, 30.0, None, True),)
    first.keep_ceiling(ceiling)
    first.keep_tuning("ort_baseline", runs)
    steps = [step(), step("triton_batched"), step(round=2)]
    for each in steps:
        first.keep_step(each)
    again = Progress(file, QUESTION)
    assert (again.ceiling, again.tuning, again.steps) == (ceiling, {"ort_baseline": runs}, steps)
    assert again.levels("ort_baseline") == [steps[0].level, steps[2].level]
    assert again.spent_s == 7.5


def test_a_run_of_an_older_version(file, step):
    """Levels that say nothing of other processes come back, and it is not known of them."""
    Progress(file, QUESTION).keep_step(step(others_cpu=0.25, stolen_cpu=0.125))
    text = file.read_text()
    assert '"others_cpu": 0.25, "stolen_cpu": 0.125' in text
    file.write_text(text.replace(', "others_cpu": 0.25, "stolen_cpu": 0.125', ""))
    (level,) = Progress(file, QUESTION).levels("ort_baseline")
    assert (level.offered, level.others_cpu, level.stolen_cpu) == (100.5, None, None)


def test_soak_comes_back(file):
    """The levels of a soak, and how it ended, are as they were."""
    first = Progress(file, QUESTION)
    of = SoakOf("ort_baseline", 70.0, 60.0)
    levels = [SoakLevel(of, 30.0 + i, 70.0, None, 2**30, 0, i, 0) for i in range(3)]
    for level in levels:
        first.keep_soak_level(level)
    end = SoakEnd(of, 90.0, "the server died")
    first.keep_soak_end(end)
    again = Progress(file, QUESTION)
    assert (again.soak_levels, again.soak_ends) == (levels, [end])


def test_next_round(file, step):
    """A new round is one that no arm has a level of yet, also after an interruption within one."""
    progress = Progress(file, QUESTION)
    assert progress.next_round == 1
    progress.keep_step(step("ort_baseline", round=1))
    assert progress.next_round == 2
    assert Progress(file, QUESTION).next_round == 2


def test_counters_add_up(file, step):
    """What an arm's servers counted is the sum over its levels, across a resumption too."""
    Progress(file, QUESTION).keep_step(step())
    again = Progress(file, QUESTION)
    again.keep_step(step(round=2))
    found = again.counters("ort_baseline")
    assert (found.requests, found.inferences, found.executions) == (6, 12, 4)
    assert found.batches == {2: 2, 4: 2}


def test_a_generator_that_once_was_not_first_in_line(file, step):
    """One level is enough, and a resumption does not forget it."""
    first = Progress(file, QUESTION)
    first.keep_step(step())
    assert first.first_in_line
    first.keep_step(step(first_in_line=False))
    again = Progress(file, QUESTION)
    again.keep_step(step(round=2))
    assert not again.first_in_line


def test_resumptions_are_counted(file):
    """Each time that it is gone on with counts."""
    assert [Progress(file, QUESTION).resumed for _ in range(3)] == [0, 1, 2]


def test_a_line_that_was_cut_off(file, step):
    """A crash in the middle of a line costs that line, and nothing else, now or later."""
    first = Progress(file, QUESTION)
    first.keep_step(step())
    first.keep_step(step(round=2))
    file.write_bytes(file.read_bytes()[:-40])
    again = Progress(file, QUESTION)
    assert again.steps == [step()]
    again.keep_step(step(round=3))
    assert Progress(file, QUESTION).steps == [step(), step(round=3)]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({**QUESTION, "slo_p99_ms": 20.0}, "slo_p99_ms 50.0, this one has 20.0"),
        ({k: v for k, v in QUESTION.items() if k != "cpus"}, "cpus [0, 1], this one has None"),
        ({**QUESTION, "config": {"name": "other"}}, "the interrupted run had another config;"),
    ],
)
def test_another_question(file, other, words):
    """Measurements of another question are refused, with what is different."""
    Progress(file, QUESTION)
    with pytest.raises(InputError, match="choose another --out") as refused:
        Progress(file, other)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "nonsense\n", "[1]\n", '{"what": "question"}\n', '{"what": "step", "value": 1}\n'],
)
def test_a_file_that_is_no_progress(file, text):
    """A damaged file is refused in one line."""
    file.write_text(text)
    with pytest.raises(InputError) as refused:
        Progress(file, QUESTION)
    assert "\n" not in str(refused.value)


def test_one_line_a_step(file, step):
    """Each step is one line of plain JSON."""
    progress = Progress(file, QUESTION)
    progress.keep_step(step())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["question", "step"]
    assert lines[1]["value"]["level"]["offered"] == 100.5

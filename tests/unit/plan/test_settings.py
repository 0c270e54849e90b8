"""Settings in words."""

import pytest

from tritonkit.plan.settings import Settings
from tritonkit.repository.scheduling import DynamicBatching


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(8, None, 2, 1), "no batching, 1 thread × 2 instances"),
        (Settings(8, DynamicBatching(), 1, 4), "batch 8, 4 threads × 1 instance"),
        (Settings(8, DynamicBatching(500)), "batch 8, delay 0.5 ms, 1 thread × 1 instance"),
    ],
)
def test_settings_in_words(settings, words):
    """Short, and without a delay of 0."""
    assert str(settings) == words

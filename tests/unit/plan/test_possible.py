"""What cannot be done is said with the nearest that can."""

import pytest

from tritonkit.errors import InputError
from tritonkit.plan.possible import require_budget, require_rate
from tritonkit.plan.search import Option, grid
from tritonkit.plan.settings import Settings, Way
from tritonkit.plan.simulate import Service
from tritonkit.plan.stream import Poisson

SERVICE = Service(run_s=(0.010, 0.012, 0.014, 0.016), before_s=0.001, after_s=0.001)
LANES = {Way(1, 1, batching): SERVICE for batching in (False, True)}


def test_a_budget_below_one_request_is_refused():
    """With what one request takes."""
    options = list(grid(LANES, 4, 8.0))
    with pytest.raises(InputError, match=r"a p99 of 8 ms: .* take a p99 of 12 ms"):
        require_budget(options, LANES, Poisson(), 8.0)


def test_a_budget_above_it_is_fine():
    """One request alone keeps it."""
    require_budget(list(grid(LANES, 4, 13.0)), LANES, Poisson(), 13.0)


def test_a_rate_beyond_all_settings_is_refused():
    """With the most that is served, and how many replicas would serve the rate."""
    best = Option(Settings(4, None), capacity_rps=200.0)
    with pytest.raises(InputError, match=r"1,000 requests/s: .* about 200 .* 5 replicas"):
        require_rate(best, 50.0, 1_000.0)


def test_a_rate_near_the_most_is_tried():
    """A prediction is not so sure that it would be refused."""
    require_rate(Option(Settings(4, None), capacity_rps=200.0), 50.0, 230.0)


def test_a_rate_where_nothing_is_served_is_refused():
    """Without a division by zero."""
    with pytest.raises(InputError, match="no settings"):
        require_rate(Option(Settings(4, None), capacity_rps=0.0), 50.0, 1.0)

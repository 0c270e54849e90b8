"""What the client promises its users, as seen through a FakeTransport."""

import asyncio
import pickle

import numpy as np
import pytest
from tests.ids import by_repr

from tritonkit import NO_RETRIES, AsyncClient, Client
from tritonkit.client.events import RequestEnded
from tritonkit.client.fake import FakeModel, FakeTransport
from tritonkit.client.operations import Operation
from tritonkit.errors import InputError, RequestError, TensorError, UnavailableError

MODELS = {
    "ranker": FakeModel(
        ["x:FP32[-1,2]"], ["score:FP32[-1,1]"], 8, lambda x: {"score": x.sum(1, keepdims=True)}
    ),
}


@pytest.fixture
def client():
    with Client(transport=FakeTransport(MODELS)) as client:
        yield client


def test_map_takes_each_item_as_it_is_then(client):
    """A generator may use one buffer for all of its items."""
    row = np.zeros(2, np.float32)

    def rows():
        for i in range(50):
            row[:] = i
            yield row

    assert [r["score"].item() for r in client.map("ranker", rows())] == [2 * i for i in range(50)]


def test_map_of_the_asynchronous_client_does_too():
    """The same with tasks."""
    row = np.zeros(2, np.float32)

    def rows():
        for i in range(50):
            row[:] = i
            yield row

    async def main():
        async with AsyncClient(transport=FakeTransport(MODELS).aio()) as client:
            return [r["score"].item() async for r in client.map("ranker", rows())]

    assert asyncio.run(main()) == [2 * i for i in range(50)]


def test_submit_takes_its_input_as_it_is_then():
    """What the caller does with the array afterwards is the caller's business."""
    fake = FakeTransport(MODELS)
    fake.delay_s = 0.05
    with Client(transport=fake) as client:
        row = np.ones(2, np.float32)
        pending = client.submit("ranker", row)
        row[:] = 9
        assert pending.result()["score"].item() == 2


def test_map_says_which_item_failed(client):
    """Counted from 0."""
    rows = [[1.0, 2.0]] * 5 + [[1.0]]
    with pytest.raises(TensorError, match=r"^item 5: ranker: input 'x'"):
        list(client.map("ranker", rows))


@pytest.mark.parametrize("error", RequestError.__subclasses__())
def test_errors_come_back_from_another_process(error):
    """Pickled and read again they are the same."""
    again = pickle.loads(pickle.dumps(error(error.kinds[0], "why")))
    assert (type(again), again.kind, str(again)) == (error, error.kinds[0], "why")


@pytest.mark.parametrize(
    "options",
    [
        {"nan": "raise"},
        {"shared_memory": "yes"},
        {"compression": "zstd"},
        {"retries": 3},
        {"hooks": print},
        {"hooks": [3]},
        {"timeout_s": "3"},
        {"timeout_s": 0},
        {"transport": []},
        {"transport": FakeTransport(MODELS).aio()},
    ],
    ids=by_repr,
)
def test_options_that_cannot_be_meant_are_refused(options):
    """At once, not by doing something else."""
    with pytest.raises(InputError):
        Client("localhost:1", **options)


@pytest.mark.parametrize("address", [None, 8001, b"localhost:1", ("localhost", 8001), []])
def test_addresses_are_texts(address):
    """Anything else is refused in one line."""
    with pytest.raises(InputError):
        Client(address)


def test_a_request_that_could_not_be_sent_is_told_too():
    """The first request of an outage fails at the model's metadata, and is a failed request."""
    fake, events = FakeTransport(MODELS), []
    fake.fail_next("unavailable", times=99, operation=Operation.METADATA)
    with (
        Client(transport=fake, hooks=[events.append], retries=NO_RETRIES) as client,
        pytest.raises(UnavailableError),
    ):
        client.infer("ranker", [1.0, 2.0])
    ended = [e for e in events if isinstance(e, RequestEnded)]
    assert [(e.model, e.error, e.tries) for e in ended] == [("ranker", "unavailable", 0)]

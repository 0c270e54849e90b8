"""What PyTorch's two exporters bake a batch into becomes dynamic."""

import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.errors import ModelError
from tritonkit.export.batch_axis import make_batch_dynamic
from tritonkit.signature import read_signature


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        """The function of x."""
        return self.function(x)


class Classifier(nn.Module):
    """Convolutions, and a view that has the batch in it."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Linear(4 * 7 * 7, 5)

    def forward(self, x):
        """Classes of images."""
        return self.last(self.convolutions(x).view(x.shape[0], -1))


class Vision(nn.Module):
    """Patches, a class token, positions, a transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        """What the class token becomes."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1)
        return self.encoder(tokens + self.position)[:, 0]


class Attention(nn.Module):
    """Attention with the batch on axis 1 inside."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 6)

    def forward(self, x):
        """x attends to itself."""
        x = x.transpose(0, 1)
        return self.attention(x, x, x)[0].transpose(0, 1)


class Recurrent(nn.Module):
    """A recurrent net whose first state is made by the exporter."""

    def __init__(self, kind):
        super().__init__()
        self.net = kind(4, 6, 2, batch_first=True, bidirectional=True)

    def forward(self, x):
        """The last state."""
        return self.net(x)[0][:, -1]


class Pooled(nn.Module):
    """Text embedded at the place of its largest token, as CLIP does."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)

    def forward(self, x):
        """One vector for each text."""
        return self.embedding(x)[torch.arange(x.shape[0]), x.argmax(-1)]


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), (8,)),
    "cnn": (Classifier, (3, 16, 16)),
    "vision transformer": (Vision, (3, 32, 32)),
    "attention": (Attention, (5, 24)),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 4)),
    "gru": (lambda: Recurrent(nn.GRU), (3, 4)),
    "view": (lambda: Function(lambda x: x.view(x.shape[0], -1) * 2), (3, 4)),
    "interpolate": (lambda: Function(lambda x: functional.interpolate(x, (7, 7))), (2, 4, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
}
ROW_OF_ONE = {
    "reshape": (lambda: Function(lambda x: x.reshape(1, 12, 4).softmax(-1)), (48,)),
    "pooled": (Pooled, ()),
    "last": (lambda: Function(lambda x: x[torch.arange(x.shape[0]), -1]), (4, 5)),
}


def exported(path, model, batch, shape, dynamo):
    """The file of a model, and example inputs."""

    def inputs():
        if isinstance(model, Pooled):
            return torch.randint(50, (batch, 6))
        return torch.randn(batch, *shape)

    torch.manual_seed(1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (inputs(),), path, dynamo=dynamo, input_names=["x"], verbose=False
        )
    return [{"x": inputs().numpy()} for _ in range(3)]


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("name", "batch"), [(n, b) for n in MODELS for b in (1, 4)] + [(n, 1) for n in ROW_OF_ONE]
)
def test_exported(name, batch, dynamo, tmp_path):
    """The new file gives five rows what the module does."""
    make, shape = {**MODELS, **ROW_OF_ONE}[name]
    torch.manual_seed(0)
    model = make()
    path, target = tmp_path / "model.onnx", tmp_path / "dynamic.onnx"
    examples = exported(path, model, batch, shape, dynamo)
    make_batch_dynamic(path, target, examples)
    rows = np.concatenate([example["x"][:1] for example in examples])[[2, 0, 1, 1, 0]]
    (got,) = OnnxModel(target).run({"x": rows}).values()
    if name == "reshape":
        expected = torch.cat([model(torch.tensor(row[None])) for row in rows])
    else:
        expected = model(torch.tensor(rows))
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-3, atol=1e-5)
    for tensor in (*read_signature(target).inputs, *read_signature(target).outputs):
        assert tensor.shape[0] == "batch"


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("function", "node"),
    [
        (lambda x: x[0] * 2, "Gather"),
        (lambda x: x.squeeze(0) * 2, "Squeeze"),
        (lambda x: x * x.mean(0, keepdim=True), "ReduceMean"),
        (lambda x: x.transpose(0, 1) * 2, "Transpose"),
        (lambda x: x.reshape(-1) * 2, "Reshape"),
    ],
    ids=["row", "squeeze", "mean", "transpose", "flat"],
)
def test_refused(function, node, dynamo, tmp_path):
    """A module that holds its batch is refused with the node that does, as the file calls it."""
    path, target = tmp_path / "model.onnx", tmp_path / "dynamic.onnx"
    examples = exported(path, Function(function), 1, (4,), dynamo)
    (name,) = [n.name for n in onnx.load(path).graph.node if n.op_type == node]
    with pytest.raises(ModelError) as error:
        make_batch_dynamic(path, target, examples)
    assert f"its batch is fixed at 1 by {node} '{name}': it " in str(error.value)
    assert not target.exists()

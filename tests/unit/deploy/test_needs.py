"""What a model takes of a pod: threads, instances, versions, files; and what cannot be sized."""

import pytest

from tritonkit.deploy.needs import read_needs
from tritonkit.errors import RepositoryError
from tritonkit.repository.ensemble import package_ensemble
from tritonkit.repository.execution import Execution, InstanceKind
from tritonkit.repository.package import Settings, package_model


def edit(repository, model, old, new):
    path = repository / model / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_cpus(repository):
    """A model takes as many CPUs as it has threads in all instances."""
    (need,) = read_needs(repository("m", threads=3, instances=2), ["m"])
    assert need.cpus == 6


def test_parallel(repository):
    """Branches that run beside each other have threads of their own."""
    execution = Execution(parallel=True)
    put = repository("m", threads=3, inter_op_threads=2, instances=2, execution=execution)
    assert read_needs(put, ["m"])[0].cpus == 8


def test_versions(repository):
    """Versions that are served beside each other each take CPUs and have files."""
    folder = repository("m", threads=2, version_policy="all")
    (one,) = read_needs(folder, ["m"])
    repository("m", threads=2, version_policy="all")
    (two,) = read_needs(folder, ["m"])
    assert (one.cpus, two.cpus) == (2, 4)
    assert two.file_bytes == 2 * one.file_bytes > 0


def test_old_versions(repository):
    """Versions that are not served take nothing."""
    folder = repository("m", threads=2)
    before = read_needs(folder, ["m"])
    repository("m", threads=2)
    assert read_needs(folder, ["m"]) == before


def test_external_data(repository):
    """Weights beside model.onnx count."""
    folder = repository("m")
    (before,) = read_needs(folder, ["m"])
    (folder / "m" / "1" / "model.onnx.data").write_bytes(bytes(1000))
    assert read_needs(folder, ["m"])[0].file_bytes == before.file_bytes + 1000


def test_ensemble(repository, tmp_path, onnx_file):
    """An ensemble takes what its steps take, each of which counts once."""
    folder = repository("first", threads=2)
    model = onnx_file("(float[batch,4] y) => (float[batch,4] z) { z = Relu(y) }", "second.onnx")
    package_model(model, "second", folder, Settings(8, threads=3))
    package_ensemble(folder, "both", ["first", "second"], (), None)
    needs = read_needs(folder, ["both", "first"])
    assert [(need.model, need.cpus) for need in needs] == [("first", 2), ("second", 3)]


def test_gpu(repository):
    """Instances on a GPU need one in the pod, those on the CPU none."""
    folder = repository("on_gpu", execution=Execution(kind=InstanceKind.GPU))
    repository("on_cpu")
    assert [need.gpus for need in read_needs(folder, ["on_gpu", "on_cpu"])] == [1, 0]


def test_gpu_ids(repository):
    """A model on GPU 2 needs a pod with three."""
    execution = Execution(kind=InstanceKind.GPU, gpus=(2,))
    assert read_needs(repository("m", execution=execution), ["m"])[0].gpus == 3


def test_unknown(repository):
    """A model that is not there is refused, with those that are."""
    with pytest.raises(RepositoryError, match=r"no model 'other' in .*\(it has m\)"):
        read_needs(repository("m"), ["other"])


def test_no_threads(repository):
    """A config without threads is refused: it would start as many as its node has cores."""
    folder = repository("m", threads=2)
    edit(folder, "m", "intra_op_thread_count", "another_thread_count")
    with pytest.raises(RepositoryError, match="intra_op_thread_count is not written"):
        read_needs(folder, ["m"])


def test_no_weights(repository):
    """A config without its weights is refused."""
    folder = repository("m")
    (folder / "m" / "1" / "model.onnx").unlink()
    with pytest.raises(RepositoryError, match=r"no model\.onnx"):
        read_needs(folder, ["m"])


@pytest.mark.parametrize("name", ["a+b", "_m", "m" * 64])
def test_label(repository, name):
    """A name that Kubernetes takes in no label is refused."""
    folder = repository(name)
    with pytest.raises(RepositoryError, match="takes no such name in a label"):
        read_needs(folder, [name])


def test_label_twin(repository):
    """A name with underscores, dots and 63 characters is one for a label."""
    name = "a_b.c-" + "m" * 57
    assert read_needs(repository(name), [name])[0].model == name

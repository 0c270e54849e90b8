"""Whether requests of different length may share a batch once padded, and how."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tritonkit.check.onnx_model import OnnxModel
from tritonkit.check.pad_values import LAST
from tritonkit.check.padding import check_padding

FULL = 16


def weight(name, *shape):
    """A float initializer in ONNX's text form, the same at each call."""
    values = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)
    sizes = ",".join(map(str, shape))
    return f"float[{sizes}] {name} = {{{','.join(f'{v:.4f}' for v in values.ravel())}}}"


def floats(*shape, count=3):
    """Rows with an input `x` of random floats."""
    random = np.random.default_rng(7)
    return [{"x": random.standard_normal((1, *shape)).astype(np.float32)} for _ in range(count)]


def tokens(*masks, length=FULL):
    """Rows as `check` draws them: 0/1 for all integers, and one with ids from the whole range.

    masks: the names of 0/1 inputs.
    """
    random = np.random.default_rng(11)
    return [
        {name: random.integers(top if name == "ids" else 2, size=(1, length)) for name in named}
        for top in (2, 2, 50)
        for named in [("ids", *masks)]
    ]


def judge(path, rows, dim="seq", axes=None, **options):
    """The one finding for `dim`, which is axis 1 of all inputs unless said otherwise."""
    axes = axes or {name: 1 for name, array in rows[0].items() if array.ndim > 1}
    (effect,) = check_padding(OnnxModel(path), rows, {dim: axes}, **options)
    return effect


FLOATS = "(float[batch,seq,4] x) => (float[batch,4] y)"
ONE = "<int64[1] one = {1}>"
MASKED = "(int64[batch,seq] ids, int64[batch,seq] mask) => (float[batch,4] y)"


def mean_of_tokens(kept):
    """Embed, and take the mean over what `kept`, a float[batch,seq], keeps."""
    return f"""
        e = Gather(table, ids)
        {kept}
        wide = Unsqueeze(kept, two)
        product = Mul(e, wide)
        sum = ReduceSum<keepdims=0>(product, one)
        count = ReduceSum<keepdims=0>(wide, one)
        y = Div(sum, count)
    """


CONSTANTS = f"<int64[1] one = {{1}}, int64[1] two = {{2}}, {weight('table', 50, 4)}>"


def test_masked_mean(onnx_file):
    """A mean over what the mask keeps is safe with a mask of 0, whatever the ids are."""
    graph = f"{MASKED} {CONSTANTS} {{ {mean_of_tokens('kept = Cast<to=1>(mask)')} }}"
    effect = judge(onnx_file(graph), tokens("mask"))
    assert effect.safe and effect.dim == "seq" and effect.inputs == ("ids", "mask")
    assert effect.pad_values["mask"] == 0 and effect.tensor == "y"
    assert effect.why.startswith(
        "whatever 'ids' is padded with at the end, as long as 'mask' is padded with 0"
    )
    assert "up to length 17" in effect.why


def test_unused_mask(onnx_file):
    """A mean that has a mask but does not use it is not safe."""
    kept = "m = Cast<to=1>(mask) none = Sub(m, m) kept = Exp(none)"
    effect = judge(onnx_file(f"{MASKED} {CONSTANTS} {{ {mean_of_tokens(kept)} }}"), tokens("mask"))
    assert not effect.safe and effect.tensor == "y" and effect.max_abs_diff > 0.01
    assert "requests of different 'seq' must not share a batch" in effect.why


def test_mask_divided_by_length(onnx_file):
    """A masked sum divided by the padded length, not by the mask's sum, is not safe."""
    graph = f"""{MASKED} {CONSTANTS} {{
        e = Gather(table, ids)
        m = Cast<to=1>(mask)
        wide = Unsqueeze(m, two)
        product = Mul(e, wide)
        y = ReduceMean<axes=[1], keepdims=0>(product)
    }}"""
    assert not judge(onnx_file(graph), tokens("mask")).safe


@pytest.mark.parametrize("mask", ["bool", "float"])
def test_other_masks(onnx_file, mask):
    """A mask may be of truth values or of floats."""
    inputs = MASKED.replace("int64[batch,seq] mask", f"{mask}[batch,seq] mask")
    graph = f"{inputs} {CONSTANTS} {{ {mean_of_tokens('kept = Cast<to=1>(mask)')} }}"
    rows = tokens("mask")
    for row in rows:
        row["mask"] = row["mask"].astype(bool if mask == "bool" else np.float32)
    effect = judge(onnx_file(graph), rows)
    assert effect.safe and effect.pad_values["mask"] == 0 and "whatever 'ids'" in effect.why


def test_inverted_mask(onnx_file):
    """A mask that is 1 on padding is found: pad it with 1."""
    kept = "b = Cast<to=9>(mask) n = Not(b) kept = Cast<to=1>(n)"
    effect = judge(onnx_file(f"{MASKED} {CONSTANTS} {{ {mean_of_tokens(kept)} }}"), tokens("mask"))
    assert effect.safe and effect.pad_values["mask"] == 1
    assert "as long as 'mask' is 0 for what is real and 1 for the padding, nothing" in effect.why


ATTENTION = """
    e = Gather(table, ids)
    et = Transpose<perm=[0,2,1]>(e)
    s = MatMul(e, et)
    m = Cast<to=1>(mask)
    lost = Sub(unit, m)
    bias = Mul(lost, low)
    row = Unsqueeze(bias, one)
    biased = Add(s, row)
    w = Softmax<axis=-1>(biased)
    tokens = MatMul(w, e)
"""
ATTENTION_CONSTANTS = (
    f"<int64[1] one = {{1}}, float unit = {{1}}, float low = {{-3.4e38}}, {weight('table', 50, 4)}>"
)


def test_attention(onnx_file):
    """Attention with a mask is safe although a row that is masked as a whole attends to all; the
    answers for the padding are to be cut off."""
    outputs = "=> (float[batch,seq,4] tokens)"
    graph = f"{MASKED.split('=>')[0]} {outputs} {ATTENTION_CONSTANTS} {{ {ATTENTION} }}"
    rows = tokens("mask")
    rows[0]["mask"][0, 0] = 0  # alone at length 1 it is masked as a whole
    effect = judge(onnx_file(graph), rows)
    assert effect.safe and effect.pad_values["mask"] == 0
    assert "whatever 'ids' is padded with" in effect.why
    assert "as long as 'mask' is 1 for what is real and 0 for the padding, nothing" in effect.why
    assert effect.why.endswith("; cut 'tokens' back to the request's own length")


def test_mask_that_leaks(onnx_file):
    """Attention with a mask, and a mean over all tokens without one, is not safe."""
    graph = f"""{MASKED} {ATTENTION_CONSTANTS} {{
        {ATTENTION} y = ReduceMean<axes=[1], keepdims=0>(tokens)
    }}"""
    assert not judge(onnx_file(graph), tokens("mask")).safe


def test_mask_of_two_axes(onnx_file):
    """A mask that has the dimension twice is cut and padded on both its axes."""
    graph = """(float[batch,seq,4] x, float[batch,seq,seq] mask) => (float[batch,seq,4] y)
        { w = Softmax<axis=-1>(mask) y = MatMul(w, x) }"""
    random = np.random.default_rng(3)
    rows = floats(FULL, 4)
    for row in rows:
        row["mask"] = random.standard_normal((1, FULL, FULL)).astype(np.float32)
    effect = judge(onnx_file(graph), rows, axes={"x": 1, "mask": (1, 2)})
    assert effect.safe and effect.pad_values["mask"] == -1e9


def test_mean(onnx_file):
    """A mean over a dimension is not safe, and the least harm is told."""
    graph = f"{FLOATS} {{ y = ReduceMean<axes=[1], keepdims=0>(x) }}"
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert not effect.safe and effect.tensor == "y" and 0.01 < effect.max_abs_diff < 10
    assert effect.why.startswith("every pad value tried (0, the last value, -1e+09, 1) changes")


def test_mean_of_flags(onnx_file):
    """A mean of 0/1 values is not safe with 1s, although 1s do not change the mean of 1s."""
    graph = "(int64[batch,seq] x) => (float[batch] y) {" + (
        "f = Cast<to=1>(x) y = ReduceMean<axes=[1], keepdims=0>(f) }"
    )
    rows = [{"x": np.random.default_rng(i).integers(2, size=(1, FULL))} for i in range(3)]
    assert not judge(onnx_file(graph), rows).safe


def test_sum(onnx_file):
    """A sum is safe with zeros, and only with these."""
    graph = f"{FLOATS} {ONE} {{ y = ReduceSum<keepdims=0>(x, one) }}"
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert effect.safe and effect.pad_values == {"x": 0.0}
    assert effect.why.startswith("padding 'x' with 0 at the end changes nothing")


def test_sum_of_products(onnx_file):
    """Where one 0 is enough to hide the other input, neither is said to be free."""
    graph = f"""(float[batch,seq,4] x, float[batch,seq,4] w) => (float[batch,4] y) {ONE}
        {{ p = Mul(x, w) y = ReduceSum<keepdims=0>(p, one) }}"""
    rows = [{"x": row["x"], "w": row["x"][:, ::-1] + 1} for row in floats(FULL, 4)]
    effect = judge(onnx_file(graph), rows)
    assert effect.safe
    assert effect.why.startswith("padding 'x' with 0 and 'w' with 0 at the end changes nothing")


def test_least_harm(onnx_file):
    """Where nothing is safe, the values that move the answer least are told."""
    graph = f"{FLOATS} {{ y = ReduceMean<axes=[1], keepdims=0>(x) }}"
    effect = judge(onnx_file(graph), [{"x": row["x"] + 100} for row in floats(FULL, 4)])
    assert effect.pad_values == {"x": LAST} and effect.max_abs_diff < 5


def test_ids_from_the_whole_range(onnx_file):
    """Of the rows one with many ids is tried, as ids of 0 and 1 may show nothing."""
    graph = """(int64[batch,seq] ids) => (float[batch] y) <int64 least = {10}> {
        high = Less(least, ids) f = Cast<to=1>(high) y = ReduceMean<axes=[1], keepdims=0>(f)
    }"""
    effect = judge(onnx_file(graph), tokens())
    assert not effect.safe and effect.tensor == "y"


def test_scalar_input(onnx_file):
    """An input without any axis is passed on as it is."""
    graph = "(float[batch,seq] x, float rate) => (float[batch,seq] y) { y = Mul(x, rate) }"
    rows = [{**row, "rate": np.array(2, np.float32)} for row in floats(FULL)]
    assert judge(onnx_file(graph), rows).safe


def test_maximum(onnx_file):
    """A maximum is safe with the last value, which is never larger than the maximum."""
    graph = f"{FLOATS} {{ y = ReduceMax<axes=[1], keepdims=0>(x) }}"
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert effect.safe and effect.pad_values == {"x": LAST}
    assert "padding 'x' with the last value" in effect.why and effect.max_abs_diff == 0


def test_tokenwise(onnx_file):
    """A model that treats each element by itself is safe whatever the padding."""
    graph = "(float[batch,seq,4] x) => (float[batch,seq,4] y) { y = Relu(x) }"
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert effect.safe and effect.tensor == "y"
    assert effect.why == (
        "whatever 'x' is padded with at the end, nothing changes up to length 17; cut 'y' back to "
        "the request's own length"
    )


def test_reversed(onnx_file):
    """A model that turns a sequence round is not safe: the padding comes first."""
    graph = """(float[batch,seq,4] x) => (float[batch,seq,4] y)
        <int64[1] one = {1}, int64[1] end = {-1}, int64[1] low = {-99999}>
        { y = Slice(x, end, low, one, end) }"""
    assert not judge(onnx_file(graph), floats(FULL, 4)).safe


def gru(tmp_path, output, direction="forward"):
    """A GRU over [batch, seq, 2]; output: `y` (each step) or `h` (the last state)."""
    both = 2 if direction == "bidirectional" else 1
    random = np.random.default_rng(5)
    named = {"w": (both, 24, 2), "r": (both, 24, 8), "b": (both, 48)}
    weights = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in named.items()
    ]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(
            "GRU", ["t", "w", "r", "b"], ["steps", "state"], hidden_size=8, direction=direction
        ),
        helper.make_node("Transpose", ["steps"], ["y"], perm=[2, 0, 1, 3]),
        helper.make_node("Transpose", ["state"], ["h"], perm=[1, 0, 2]),
    ]
    shape = {"y": ["batch", "seq", both, 8], "h": ["batch", both, 8]}[output]
    graph = helper.make_graph(
        nodes,
        "gru",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "seq", 2])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "gru.onnx"
    onnx.save(model, path)
    return path


def test_last_state(tmp_path):
    """A recurrent network's last state is not safe."""
    assert not judge(gru(tmp_path, "h"), floats(FULL, 2)).safe


def test_steps(tmp_path):
    """The steps of a recurrent network are safe if it runs forwards, and not if also backwards."""
    effect = judge(gru(tmp_path, "y"), floats(FULL, 2))
    assert effect.safe and "whatever 'x' is padded with" in effect.why
    assert not judge(gru(tmp_path, "y", "bidirectional"), floats(FULL, 2)).safe


def test_convolution(onnx_file):
    """A convolution that pads with zeros itself is safe with zeros, also at the edge."""
    graph = f"""(float[batch,2,seq] x) => (float[batch,3,seq] y) <{weight("w", 3, 2, 5)}>
        {{ y = Conv<pads=[2,2]>(x, w) }}"""
    effect = judge(onnx_file(graph), floats(2, FULL), axes={"x": 2})
    assert effect.safe and effect.pad_values == {"x": 0.0} and "whatever" not in effect.why


def test_convolution_without_padding(onnx_file):
    """A convolution that is shorter than its input is compared where both have values."""
    graph = f"""(float[batch,2,seq] x) => (float[batch,3,out] y) <{weight("w", 3, 2, 5)}>
        {{ y = Conv<strides=[2]>(x, w) }}"""
    effect = judge(onnx_file(graph), floats(2, FULL), axes={"x": 2})
    assert effect.safe and "whatever 'x' is padded with" in effect.why


def test_normalised(onnx_file):
    """A normalisation over the dimension is not safe."""
    graph = "(float[batch,seq] x) => (float[batch,seq] y) { y = Softmax<axis=1>(x) }"
    effect = judge(onnx_file(graph), floats(FULL))
    assert effect.safe and effect.pad_values == {"x": -1e9}
    graph = """(float[batch,4,seq] x) => (float[batch,4,seq] y)
        <float[4] s = {1,2,3,4}, float[4] b = {0,0,0,0}>
        { y = InstanceNormalization(x, s, b) }"""
    assert not judge(onnx_file(graph), floats(4, FULL), axes={"x": 2}).safe


def test_lengths_input(onnx_file):
    """An input that holds the row's own length makes padding safe."""
    graph = """(float[batch,seq,4] x, int64[batch] n) => (float[batch,4] y)
        <int64 zero = {0}, int64 step = {1}, int64[1] one = {1}, int64[1] two = {2}> {
        shape = Shape(x)
        size = Gather(shape, step)
        steps = Range(zero, size, step)
        column = Unsqueeze(n, one)
        kept = Less(steps, column)
        kept_f = Cast<to=1>(kept)
        wide = Unsqueeze(kept_f, two)
        product = Mul(x, wide)
        sum = ReduceSum<keepdims=0>(product, one)
        count = ReduceSum<keepdims=0>(wide, one)
        y = Div(sum, count)
    }"""
    rows = [{**row, "n": np.array([FULL])} for row in floats(FULL, 4)]
    effect = judge(onnx_file(graph), rows, axes={"x": 1})
    assert effect.safe
    assert effect.why.startswith(
        "whatever 'x' is padded with at the end, as long as 'n' is the row's own length"
    )


def test_strings(onnx_file):
    """Strings are padded with empty ones."""
    graph = """(string[batch,seq] s) => (int64[batch] y)
        <string[1] empty = {""}, int64[1] one = {1}> {
        same = Equal(s, empty) other = Not(same) n = Cast<to=7>(other)
        y = ReduceSum<keepdims=0>(n, one)
    }"""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 19]> g {graph}')
    path = onnx_file("(float[n] x) => (float[n] y) { y = Relu(x) }").with_name("s.onnx")
    onnx.save(model, path)
    rows = [{"s": np.array([list("abcdefgh")], dtype=object)}]
    effect = judge(path, rows)
    assert effect.safe and effect.pad_values == {"s": ""} and "'s' with ''" in effect.why


def test_two_dimensions(onnx_file):
    """Each dimension is judged by itself."""
    graph = """(float[batch,3,h,w] x) => (float[batch,3,h] y)
        { y = ReduceMean<axes=[3], keepdims=0>(x) }"""
    dims = {"h": {"x": 2}, "w": {"x": 3}}
    high, wide = check_padding(OnnxModel(onnx_file(graph)), floats(3, 8, 8), dims)
    assert high.dim == "h" and high.safe
    assert wide.dim == "w" and not wide.safe


def test_two_outputs(onnx_file):
    """One output that moves is enough, and is named."""
    graph = """(float[batch,seq,4] x) => (float[batch,seq,4] each, float[batch,4] mean)
        { each = Relu(x) mean = ReduceMean<axes=[1], keepdims=0>(x) }"""
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert not effect.safe and effect.tensor == "mean" and "'mean' moves by" in effect.why


def test_multiples_only(onnx_file):
    """A model that takes only multiples of 8 is asked at these."""
    graph = """(float[batch,seq] x) => (float[batch,4] y)
        <int64[3] shape = {0,-1,8}> {
        blocks = Reshape(x, shape)
        sum = ReduceMax<axes=[1], keepdims=0>(blocks)
        y = Relu(sum)
    }"""
    effect = judge(onnx_file(graph.replace("[batch,4] y", "[batch,8] y")), floats(32))
    assert effect.safe and "up to length 64" in effect.why


def test_few_lengths(onnx_file):
    """A model that takes only multiples of 32 up to 160 is asked at these."""
    graph = f"""(float[batch,seq] x) => (float[batch,32] y)
        <int64[3] shape = {{0,-1,32}}, int64[1] zero = {{0}}, int64[1] one = {{1}},
         int64[1] two = {{2}}, {weight("places", 160)}> {{
        s = Shape(x)
        size = Slice(s, one, two)
        p = Slice(places, zero, size)
        placed = Add(x, p)
        blocks = Reshape(placed, shape)
        y = ReduceMax<axes=[1], keepdims=0>(blocks)
    }}"""
    effect = judge(onnx_file(graph), floats(160))
    assert effect.safe and effect.pad_values == {"x": -1e9} and "up to length 160" in effect.why


def test_one_length_only(onnx_file):
    """A model that runs at one length only is no finding against sharing, but nothing is known."""
    graph = (
        f"(float[batch,seq] x) => (float[batch,2] y) <{weight('w', 16, 2)}> {{ y = MatMul(x, w) }}"
    )
    effect = judge(onnx_file(graph), floats(FULL))
    assert not effect.safe and effect.tensor == "" and effect.max_abs_diff == 0
    assert effect.why.endswith("is not known: the model runs at no other length than 16")


def test_longest_length(onnx_file):
    """A model that takes nothing longer than the rows is asked up to their length."""
    graph = f"""(int64[batch,seq] ids, int64[batch,seq] place) => (float[batch,seq,4] y)
        <{weight("table", 50, 4)}, {weight("places", 16, 4)}> {{
        e = Gather(table, ids)
        shape = Shape(ids)
        size = Slice(shape, one, two)
        p = Slice(places, zero, size)
        y = Add(e, p)
    }}""".replace(
        "<float", "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, float", 1
    )
    graph = graph.replace(", int64[batch,seq] place", "")
    effect = judge(onnx_file(graph), tokens())
    assert effect.safe and "up to length 16" in effect.why


def test_no_numbers(onnx_file):
    """Answers that are NaN prove nothing."""
    graph = f"{FLOATS} {ONE} {{ s = ReduceSum<keepdims=0>(x, one) n = Sub(s, s) y = Div(n, n) }}"
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert not effect.safe and effect.tensor == ""
    assert effect.why.endswith("output 'y' is never a finite number on the rows tried")


def test_nan_alone(onnx_file):
    """An answer that is NaN alone, here at length 1, is not held against the padding."""
    graph = """(float[batch,seq,4] x) => (float[batch,seq,4] y)
        <int64[1] one = {1}, int64[1] two = {2}, float[1] unit = {1}> {
        shape = Shape(x)
        size = Slice(shape, one, two)
        f = Cast<to=1>(size)
        rest = Sub(f, unit)
        scale = Div(rest, rest)
        y = Mul(x, scale)
    }"""
    assert judge(onnx_file(graph), floats(FULL, 4)).safe


def test_answer_without_end(onnx_file):
    """Values that make an answer infinite or NaN, such as zeros under a logarithm, are passed
    over for one that does not."""
    graph = f"{FLOATS} {ONE} {{ l = Log(x) s = ReduceSum<keepdims=0>(l, one) y = Mul(s, s) }}"
    rows = [{"x": np.abs(row["x"]) + 1} for row in floats(FULL, 4)]
    effect = judge(onnx_file(graph), rows)
    assert effect.safe and effect.pad_values == {"x": 1.0}


def test_becomes_nan(onnx_file):
    """An answer that padding turns into NaN is an infinite difference."""
    graph = """(float[batch,seq,4] x) => (float[batch,4] y)
        <int64[1] one = {1}, int64[1] two = {2}, float[1] most = {16.5}> {
        shape = Shape(x)
        size = Slice(shape, one, two)
        f = Cast<to=1>(size)
        rest = Sub(most, f)
        root = Sqrt(rest)
        first = ReduceMax<axes=[1], keepdims=0>(x)
        y = Mul(first, root)
    }"""
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert not effect.safe and effect.max_abs_diff == np.inf
    assert "'y' becomes infinite or NaN: requests" in effect.why


def test_mask_of_zeros_hides_nothing(onnx_file):
    """A first element that counts, beside a masked sum over the padded length, is not safe: a
    mask that is 0 all along would only hide that."""
    graph = f"""{MASKED} {CONSTANTS} {{
        e = Gather(table, ids)
        m = Cast<to=1>(mask)
        wide = Unsqueeze(m, two)
        product = Mul(e, wide)
        mean = ReduceMean<axes=[1], keepdims=0>(product)
        zero = Sub(one, one)
        start = Slice(e, zero, one, one)
        first = ReduceSum<keepdims=0>(start, one)
        y = Add(first, mean)
    }}"""
    assert not judge(onnx_file(graph), tokens("mask")).safe


def test_constant_answers(onnx_file):
    """Answers that are the same for all rows prove nothing."""
    graph = f"{FLOATS} {{ m = ReduceMean<axes=[1], keepdims=0>(x) y = Sub(m, m) }}"
    effect = judge(onnx_file(graph), floats(FULL, 4))
    assert not effect.safe and effect.why.endswith("the answers are the same for all rows tried")


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (floats(1, 4), "the rows to try have length 1, at least 2 is needed"),
        ([{"x": np.ones((1, FULL, 4), np.float32)}], "varied ones are needed"),
        ([{"x": np.ones((1, 0, 4), np.float32)}], "have length 0"),
    ],
)
def test_plain_rows(onnx_file, rows, why):
    """Rows that are too short, or constant, would hide a mean's change."""
    graph = f"{FLOATS} {{ y = ReduceMean<axes=[1], keepdims=0>(x) }}"
    effect = judge(onnx_file(graph), rows)
    assert not effect.safe and why in effect.why


def test_rows_that_fail(onnx_file):
    """A model that fails on the rows gives a finding with ONNX Runtime's words."""
    graph = f"{FLOATS} {{ y = ReduceMean<axes=[1], keepdims=0>(x) }}"
    effect = judge(onnx_file(graph), floats(FULL, 5))
    assert not effect.safe and "ONNX Runtime fails on x[1, 16, 5]" in effect.why


def test_output_that_shrinks(onnx_file):
    """An output that gets smaller when the row gets longer cannot be compared."""
    graph = """(float[batch,seq] x) => (float[batch,rest] y)
        <int64[1] one = {1}, int64[1] two = {2}, int64[1] most = {40}> {
        shape = Shape(x)
        size = Slice(shape, one, two)
        rest = Sub(most, size)
        zero = Sub(one, one)
        twice = Concat<axis=1>(x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x)
        y = Slice(twice, zero, rest, one)
    }"""
    effect = judge(onnx_file(graph), floats(FULL))
    assert not effect.safe and effect.max_abs_diff == np.inf
    assert "output 'y' has shape" in effect.why and "cannot be compared" in effect.why


def test_no_time(onnx_file):
    """Without time nothing is claimed."""
    graph = "(float[batch,seq,4] x) => (float[batch,seq,4] y) { y = Relu(x) }"
    effect = judge(onnx_file(graph), floats(FULL, 4), budget_s=0)
    assert not effect.safe and "0 s are too short to find out" in effect.why


def test_no_dimension(onnx_file):
    """A model without a further dynamic dimension has no finding."""
    graph = "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }"
    assert check_padding(OnnxModel(onnx_file(graph)), floats(4), {}) == []

"""Numpy arrays on the wire."""

from __future__ import annotations

import numpy
import numpy.typing
import pytest

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import TypeMismatch


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6, dtype="i2").reshape(2, 3),
        numpy.zeros((0, 3)),
        numpy.array(5.0),
        numpy.array([True, False]),
        numpy.array(["a", "bcd"]),
        numpy.array(["2026-01-02"], dtype="datetime64[D]"),
        numpy.arange(6).reshape(2, 3).T,
    ],
)
def test_array_keeps_its_dtype_and_shape(array):
    codec = Codec(numpy.ndarray)
    data = codec.encode(array)
    back = codec.decode(data)
    assert (back.dtype, back.shape, back.tolist()) == (array.dtype, array.shape, array.tolist())
    Validator(codec.schema).check(data, "frames")
    Validator(None).check(data, "frames")


def test_array_of_another_dtype_is_refused():
    codec = Codec(numpy.typing.NDArray[numpy.float32])
    with pytest.raises(TypeMismatch, match="array of <f4"):
        codec.encode(numpy.zeros(3))

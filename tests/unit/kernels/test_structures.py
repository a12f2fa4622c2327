"""Structures that C++ and Python share lie in memory alike, and a difference is an error."""

import ctypes

import pytest

from special_steps.kernels import build
from special_steps.kernels.conv import ConvArguments
from special_steps.kernels.jbu import DoublingArguments
from special_steps.kernels.matmul import ProductArguments
from special_steps.kernels.scan import ScanArguments
from special_steps.kernels.structures import Rows, check_layout

pytestmark = pytest.mark.skipif(not build.available(*build.SLOWER), reason="needs a C++ compiler")

SHARED = {
    "scan": (Rows, ScanArguments),
    "conv": (Rows, ConvArguments),
    "matmul": (ProductArguments,),
    "jbu": (DoublingArguments,),
}
kernels = pytest.mark.parametrize("name", build.SLOWER)


@kernels
def test_the_layouts_are_the_same(name):
    check_layout(build.library(name), *SHARED[name])


def changed(structure, fields):
    return type(structure.__name__, (ctypes.Structure,), {"_fields_": fields})


@pytest.mark.parametrize("structure", [ScanArguments, ProductArguments, DoublingArguments, Rows])
def test_a_difference_is_an_error_that_names_the_field(structure):
    kernel = next(kernel for kernel, shared in SHARED.items() if structure in shared)
    others = [s for s in SHARED[kernel] if s is not structure]
    name, fields = structure.__name__, list(structure._fields_)
    (first, kind), (last, _) = fields[0], fields[-1]
    for variant, message in (
        ([fields[1], fields[0], *fields[2:]], rf"{name}\.{first} .*\(0, 8\) in C\+\+, \(8, 8\) in"),
        (
            [(first, ctypes.c_int32), *fields[1:]],
            rf"{name}\.{first} .*\(0, 8\) in C\+\+, \(0, 4\) in",
        ),
        ([("renamed", kind), *fields[1:]], rf"only C\+\+ has a field {name}\.{first}"),
        (fields[:-1], rf"only C\+\+ has a field {name}\.{last}"),
        ([*fields, ("more", kind)], rf"only Python has a field {name}\.more"),
    ):
        with pytest.raises(RuntimeError, match=message):
            check_layout(build.library(kernel), changed(structure, variant), *others)


def test_a_field_of_another_size_at_the_end_is_an_error():
    fields = [*ProductArguments._fields_[:-1], ("sums", ctypes.c_int32)]
    with pytest.raises(RuntimeError, match=r"ProductArguments\.sums has offset and size"):
        check_layout(build.library("matmul"), changed(ProductArguments, fields))


def test_a_structure_that_only_one_side_has_is_an_error():
    with pytest.raises(RuntimeError, match=r"C\+\+ has Rows, ConvArguments; Python has Conv"):
        check_layout(build.library("conv"), ConvArguments)

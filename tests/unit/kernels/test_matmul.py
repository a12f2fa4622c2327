import pytest
import torch
from comparing import relative_error

from special_steps.kernels import build
from special_steps.kernels.matmul import multiply, multiply_by_torch, outer, outer_by_torch

pytestmark = pytest.mark.skipif(not build.available("matmul"), reason="needs a C++ compiler")


BY_KERNEL, BY_TORCH = (multiply, outer), (multiply_by_torch, outer_by_torch)


@pytest.mark.parametrize("sizes", [(1300, 7, 33), (5, 33, 8), (1, 1, 1), (129, 16, 64), (64, 3, 2)])
@pytest.mark.parametrize(
    ("threads", "functions"), [(1, BY_KERNEL), (2, BY_KERNEL), (3, BY_KERNEL), (1, BY_TORCH)]
)
def test_tall_products(sizes, threads, functions):
    multiply, outer = functions
    torch.set_num_threads(threads)
    rows, inner, columns = sizes
    x = torch.randn(1, rows, inner + 2)[..., 1:-1]
    weight, y = torch.randn(inner, columns), torch.randn(rows, 1, columns)
    wanted = x.double() @ weight.double()
    assert relative_error(multiply(x, weight), wanted) < 1e-6
    into = torch.ones(1, rows, columns + 1)
    multiply(x, weight, into[..., 1:], add=True)
    assert relative_error(into[..., 1:], wanted + 1) < 1e-6
    assert (into[..., 0] == 1).all()
    assert relative_error(outer(x, y), x[0].double().t() @ y[:, 0].double()) < 1e-6

"""The compiled doubling against a loop over pixels in float64; `clip` has the parity with the published one."""

import pytest
import torch
import torch.nn.functional as F
from comparing import relative_error

from special_steps.kernels import build
from special_steps.kernels.jbu import double_map

pytestmark = pytest.mark.skipif(not build.available("jbu"), reason="needs a C++ compiler")
D, R = 11, 5


def oracle(source, guidance, layers, temperature, gaussian):
    """Resize, then filter pixel by pixel."""
    key, key_bias, key2, key2_bias, first, first_bias, second, second_bias = layers
    fine = F.interpolate(source.permute(2, 0, 1)[None], scale_factor=2, mode="bicubic")
    fine = F.pad(fine, (R,) * 4, mode="reflect")[0]
    colours = guidance.permute(1, 2, 0)
    keys = F.gelu(colours @ key.t() + key_bias) @ key2.t() + key2_bias
    keys = F.pad(keys.permute(2, 0, 1)[None], (R,) * 4, mode="reflect")[0]
    out = source.new_empty(*colours.shape[:2], source.shape[2])
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            near = keys[:, y : y + D, x : x + D]
            products = torch.einsum("c,cij->ij", keys[:, y + R, x + R], near)
            kernel = (products * temperature + gaussian).flatten().softmax(0)
            hidden = F.gelu(first @ torch.cat([kernel, colours[y, x]]) + first_bias)
            kernel = kernel + second @ hidden + second_bias
            out[y, x] = fine[:, y : y + D, x : x + D].flatten(1) @ kernel
    return out


def resizing():
    """Bicubic doubling far from borders, along one side: of the 11 pixels around one, the weights of 9 cells."""
    cells = torch.eye(17)[None, None]
    along = F.interpolate(cells, (34, 17), mode="bicubic")[0, 0]
    return torch.stack([along[16 + p - R : 16 + p + R + 1, 4:13].t() for p in (0, 1)])


@pytest.mark.parametrize("shape", [(6, 7), (3, 18)])
@pytest.mark.parametrize("threads", [1, 3])
def test_doubling_equals_the_oracle(shape, threads):
    torch.set_num_threads(threads)
    source = torch.randn(*shape, 32)
    guidance = torch.rand(3, 2 * shape[0], 2 * shape[1])
    sizes = [(8, 3), (8, 8), (121, 124), (121, 121)]
    layers = [
        torch.randn(s) / 8 for outputs, inputs in sizes for s in ((outputs, inputs), (outputs,))
    ]
    gaussian = -torch.rand(D, D)
    double = [v.double() for v in layers]
    wanted = oracle(source.double(), guidance.double(), double, 0.7, gaussian.double())
    arguments = source, guidance, layers, 0.7, gaussian, resizing()
    assert relative_error(double_map(*arguments, None), wanted) < 1e-5

    axes, phrases, offset = 20, 5, torch.randn(32)  # the last seven channels are no use
    found = double_map(*arguments, (axes, phrases, offset))
    shifted = wanted + offset
    cosines = shifted[..., axes : axes + phrases] / shifted[..., :axes].norm(dim=-1, keepdim=True)
    assert found.shape == (2 * shape[0], 2 * shape[1], phrases)
    assert relative_error(found, cosines) < 1e-5

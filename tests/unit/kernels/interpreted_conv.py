"""The convolution in Triton against sums over taps; run by test_conv_triton.py in Triton's interpreter."""

import pytest
import test_conv
import torch

from special_steps.kernels import conv_triton


@pytest.mark.parametrize(
    "shape", [(1, 9, 33, 4), (7, 4, 8, 4), (2, 6, 5, 3), (1, 1, 1, 4), (2, 5, 6, 1)]
)
@pytest.mark.parametrize("with_before", [True, False])
def test_convolution(monkeypatch, shape, with_before):
    torch.manual_seed(0)
    monkeypatch.setattr(conv_triton, "VALUES", 256)
    monkeypatch.setattr(test_conv.build, "available", lambda *names: True)
    monkeypatch.setattr(test_conv, "conv_forward", conv_triton.conv_forward)
    monkeypatch.setattr(test_conv, "conv_backward", conv_triton.conv_backward)
    run = test_conv.by_kernel
    test_conv.test_convolution_and_its_gradients(shape, with_before, run, torch.float32, 1e-6)

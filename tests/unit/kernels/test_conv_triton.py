"""The convolution in Triton, on a machine without a GPU."""

import torch
from triton_without_gpu import needs_triton, recorded, run_interpreted, translate

pytestmark = needs_triton


def test_in_the_interpreter():
    run_interpreted("interpreted_conv.py")


def test_kernels_can_be_translated_for_a_card(monkeypatch):
    from special_steps.kernels import conv_triton

    calls = recorded(monkeypatch, conv_triton)
    x, before = torch.empty(1, 1000, 64)[..., :32], torch.zeros(1, 3, 32)
    weight, bias = torch.zeros(4, 32), torch.zeros(32)
    conv_triton.conv_forward(x, weight, bias, before)
    conv_triton.conv_backward(x, weight, bias, before, torch.zeros(1, 1000, 32), x)
    assert len(calls) == 2
    for call in calls:
        assert translate(*call)["cubin"]

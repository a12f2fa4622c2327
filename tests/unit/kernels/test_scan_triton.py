"""The scan in Triton, on a machine without a GPU."""

import pytest
import torch
from triton_without_gpu import needs_triton, recorded, run_interpreted, translate

from special_steps.kernels.scan import ScanInputs

pytestmark = needs_triton


def test_in_the_interpreter():
    run_interpreted("interpreted_scan.py")


# the spatial and the spectral branch; of two blocks of channels, with a state, which are other kernels
@pytest.mark.parametrize("shape", [(1, 1000, 32, 16), (300, 4, 8, 16), (2, 3, 33, 5)])
def test_kernels_can_be_translated_for_a_card(monkeypatch, shape):
    from special_steps.kernels import scan_triton

    calls = recorded(monkeypatch, scan_triton)
    sequences, tokens, channels, states = shape
    u = torch.empty(sequences, tokens, channels)
    both = torch.empty(sequences, tokens, 1 + 2 * states)
    B, C = both[..., 1 : 1 + states], both[..., 1 + states :]
    A, D = torch.empty(channels, states), torch.empty(channels)
    state = torch.empty(sequences, channels, states) if channels == 33 else None
    values = ScanInputs(u, u, A, B, C, D, u, D, state)
    _, _, saved = scan_triton.scan_forward(values, training=True)
    into = {"du": u, "ddelta": u, "dz": u, "dB": B, "dC": C, "out": u}
    scan_triton.scan_backward(values, saved, u, state, into)
    assert len(calls) == (5 + 1 if tokens > 64 else 2)
    for call in calls:
        assert translate(*call)["cubin"]

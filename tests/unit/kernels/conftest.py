import pytest
import torch


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)  # some gradients nearly cancel a sum, and its relative error is large then
    yield
    torch.set_num_threads(before)

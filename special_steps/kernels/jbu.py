"""A doubling of the learned joint bilateral upsampling by a kernel for the CPU (`jbu.cpp`)."""

import ctypes
import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from special_steps.kernels import build
from special_steps.kernels.structures import check_layout, fields


class DoublingArguments(ctypes.Structure):
    """`DoublingArguments` in jbu.cpp."""

    _fields_ = fields(
        "h w channels keys threads axes phrases",
        ("temperature", ctypes.c_float),
        ("guidance source offset gaussian", ctypes.c_void_p),
        ("key key_bias key2 key2_bias first first_bias second second_bias", ctypes.c_void_p),
        ("resizing out", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    library = build.library("jbu")
    check_layout(library, DoublingArguments)
    return library


def double_map(
    source: Tensor,
    guidance: Tensor,
    layers: Sequence[Tensor],
    temperature: float,
    gaussian: Tensor,
    resizing: Tensor,
    coordinates: tuple[int, int, Tensor] | None,
) -> Tensor:
    """Resize a map bicubically to twice its size, then filter each pixel with weights of 11 x 11 pixels around it.

    All float32 on the CPU. The weights are softmax(key products x temperature + gaussian), plus a correction by two
    layers that see the weights and the pixel's colour.

    Args:
        source: (h, w, channel), channels in multiples of 16.
        guidance: (3, 2 h, 2 w).
        layers: weight and bias of each: two that make keys of colours, (key, 3) and (key, key), then the two of the
            correction, (121, 124) and (121, 121); 1 x 1 convolutions are fine.
        temperature: of the products of keys.
        gaussian: (11, 11), exponents.
        resizing: (2, 9, 11): for even and odd pixels, of 11 pixels around one, the weights of cells around its own.
        coordinates: what the channels are, if cosines with phrases are wanted: how many are coordinates of features
            along axes, how many after these are products with phrases, and an offset (channel,) of both.

    Returns:
        (2 h, 2 w, channel), or (2 h, 2 w, phrase) cosines.
    """
    h, w, channels = source.shape
    axes, phrases, offset = coordinates or (0, 0, source)
    out = source.new_empty(2 * h, 2 * w, phrases or channels)
    exponents = gaussian * math.log2(math.e)
    tensors = [guidance, source, offset, exponents, *layers, resizing, out]
    tensors = [t.contiguous() for t in tensors]  # they outlive the call
    sizes = h, w, channels, len(layers[0]), torch.get_num_threads(), axes, phrases
    pointers = (t.data_ptr() for t in tensors)
    call = DoublingArguments(*sizes, temperature * math.log2(math.e), *pointers)
    _library().double_map(ctypes.byref(call))
    return out

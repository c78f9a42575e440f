"""Sum and average pooling of NIR as `Pool`."""

from __future__ import annotations

from math import prod

from archsim.errors import WorkloadError
from archsim.workload.network import Pool, Shape
from archsim.workload.nir_fields import describe, pair
from archsim.workload.nir_graph import NirNode


def read_pool(node: NirNode, before: str, shape: Shape) -> Pool:
    """The window of a pooling node over a map of `shape`.

    Raises:
        WorkloadError: It has padding, or a window larger than the map.
    """
    kernel = pair(node, "kernel_size", 1)
    stride = pair(node, "stride", 1) if "stride" in node.fields else kernel
    padding = pair(node, "padding", 0, default=0)
    if padding != (0, 0):
        found = f"padding {padding[0]} x {padding[1]}"
        raise WorkloadError(f"node '{node.name}' ({node.type}) has {found}; only pooling without padding is supported")
    if kernel[0] > shape[1] or kernel[1] > shape[2]:
        raise WorkloadError(
            f"node '{node.name}': window {kernel[0]} x {kernel[1]} is larger than the map of {describe(shape)} "
            f"from '{before}'"
        )
    return Pool(kernel, stride)


def average_factor(node: NirNode, pool: Pool) -> float:
    """What turns the sum of a window into the value of the node."""
    return 1.0 / prod(pool.kernel) if node.type == "AvgPool2d" else 1.0


def merge(node: NirNode, first: Pool, second: Pool) -> Pool:
    """Two poolings in a row as one, exact when the windows of the first neither overlap nor leave gaps."""
    if first.stride != first.kernel:
        raise WorkloadError(f"node '{node.name}' ({node.type}) pools again behind overlapping windows; use one pooling")
    (kernel_h, kernel_w), (stride_h, stride_w) = first.kernel, first.stride
    return Pool(
        (kernel_h * second.kernel[0], kernel_w * second.kernel[1]),
        (stride_h * second.stride[0], stride_w * second.stride[1]),
    )

"""Small NIR graphs for tests, and how to write them."""

from itertools import pairwise

import nir
import numpy as np


def neuron(n=5, **changes):
    values = {"r": np.ones(n), "v_threshold": np.ones(n), **changes}
    return nir.IF(**values)


def conv(out_channels, in_channels, kernel=3, **changes):
    weight = np.random.default_rng(0).normal(size=(out_channels, in_channels, kernel, kernel)).astype(np.float32)
    values = {"input_shape": None, "weight": weight, "stride": 1, "padding": 1, "dilation": 1, "groups": 1}
    return nir.Conv2d(**{**values, "bias": np.zeros(out_channels), **changes})


def pool(kind=nir.SumPool2d, kernel=2, stride=2, padding=0):
    return kind(np.array([kernel] * 2), np.array([stride] * 2), np.array([padding] * 2))


def graph(input_shape, output_shape, *nodes, **named):
    """A chain: nodes in order, called n0, n1, ... or by keyword."""
    named = {**{f"n{index}": node for index, node in enumerate(nodes)}, **named}
    chain = {"input": nir.Input(np.array(input_shape)), **named, "output": nir.Output(np.array(output_shape))}
    names = list(chain)
    return nir.NIRGraph(chain, list(pairwise(names)), type_check=False)


class WithoutNones:
    """Lets nir.write leave out what is None instead of failing on it."""

    def __init__(self, graph):
        self.graph = graph

    def to_dict(self):
        return self.strip(self.graph.to_dict())

    def strip(self, value):
        return {k: self.strip(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def save(path, content):
    nir.write(path, WithoutNones(content))
    return path


def dense(n_out=5, n_in=8):
    return nir.Linear(np.random.default_rng(1).normal(size=(n_out, n_in)).astype(np.float32))


def mlp(**changes):
    return graph([8], [5], fc=changes.get("fc", dense()), lif=changes.get("lif", neuron()))

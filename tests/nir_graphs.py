"""Small NIR graphs for tests, how to write them, and what a network of layers means, in plain torch."""

from itertools import pairwise
from math import prod

import nir
import numpy as np
import torch
from torch.nn.functional import avg_pool2d, conv2d

from archsim.workload.network import INPUT


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


class Layers:
    """A network executed as `Network` defines it; state and last spikes of every layer."""

    def __init__(self, net):
        self.net, self.states, self.spikes = net, {}, {}

    def run(self, frames):
        return torch.stack([self.step(frame) for frame in frames])

    def step(self, frame):
        before, self.spikes = self.spikes, {INPUT: frame}
        sums = {x.name: self.sums(x, before.get(x.source)) for x in self.net.layers if x.delayed}
        for layer in self.net.layers:
            if layer.neuron.kind == "none":
                if not layer.delayed:
                    sums[layer.name] = self.sums(layer, self.spikes[layer.source])
                continue
            total = self.sums(layer, self.spikes[layer.source])
            for name in layer.adds:
                total = total + (sums[name] if name in sums else self.spikes[name])
            self.spikes[layer.name] = self.neurons(layer, total)
        return self.spikes[self.net.layers[-1].name].flatten()

    def sums(self, layer, spikes):
        if spikes is None:
            return torch.zeros(layer.conv_shape, dtype=torch.float64)
        bias = None if layer.bias is None else torch.as_tensor(layer.bias).double()
        x, weights = spikes.reshape(1, *layer.in_shape), torch.as_tensor(layer.weights).double()
        return conv2d(x, weights, bias, layer.stride, layer.padding, groups=layer.groups)[0]

    def neurons(self, layer, i):
        model, (current, v) = layer.neuron, self.states.get(layer.name, (0.0, 0.0))
        if model.synapse_decay is not None:
            i = current = torch.as_tensor(model.synapse_decay) * current + torch.as_tensor(model.synapse_gain) * i
        v = torch.as_tensor(model.decay) * v + torch.as_tensor(model.input_gain) * i
        spikes = (v >= torch.as_tensor(model.v_threshold)).double()
        fired = torch.where(spikes > 0, torch.as_tensor(model.v_threshold), 0.0)
        self.states[layer.name] = current, v - fired
        if model.kind == "accumulate":
            return v
        if layer.pool is None:
            return spikes
        return avg_pool2d(spikes[None], layer.pool.kernel, layer.pool.stride)[0] * prod(layer.pool.kernel)

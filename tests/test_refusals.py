"""Chips on which nothing could move: every width, rate and buffer of nothing is refused with what is allowed."""

from __future__ import annotations

import pytest

import archsim
from archsim.engine.geometry import check_buffers
from archsim.errors import ConfigError, MappingError


@pytest.mark.parametrize(
    ("key", "least"),
    [
        ("chip.clock_mhz", "at least 0.001"),
        ("chip.noc.flit_bits", "at least 1"),
        ("chip.noc.virtual_channels", "at least 1"),
        ("chip.noc.vc_depth_flits", "at least 1"),
        ("chip.global_buffer.bits_per_cycle", "at least 1"),
        ("chip.global_buffer.kib", "at least 1"),
        ("chip.dram.gb_per_s", "above 0 or 'auto'"),
        ("tile.htree.bits_per_cycle", "at least 1"),
        ("tile.pe.fetch_bits_per_cycle", "at least 1"),
        ("tile.pe.latch_depth", "at least 1"),
        ("tile.skip_buffer.tokens", "at least 1 or 'auto'"),
    ],
)
def test_no_bandwidth_and_buffers_of_no_token_are_refused(key, least):
    with pytest.raises(ConfigError) as caught:
        archsim.load_hardware("demo", {key: 0})
    assert str(caught.value) == f"--set {key}=0: {key} is 0; it must be {least}"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"tile.line_buffer.rows": 1},
            "tile.line_buffer.rows is 1; layer 'conv1' needs at least 3 rows of 8 positions. Raise it or set it "
            "to auto.",
        ),
        (
            {"chip.mesh_width": 1, "chip.mesh_height": 1},
            "a mesh of 1 x 1 has 1 nodes; 5 tiles need one each. Raise chip.mesh_width or chip.mesh_height, or set "
            "them to auto.",
        ),
    ],
)
def test_a_chip_too_small_for_a_network_is_refused_with_what_it_needs(keys, message):
    workload = archsim.load_workload("digits-cnn")
    with pytest.raises(MappingError) as caught:
        check_buffers(archsim.map_network(archsim.load_hardware("demo", keys), workload))
    assert str(caught.value) == message

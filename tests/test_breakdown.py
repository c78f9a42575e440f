"""Where energy, time and bits went: parts are right by hand, and sum to the totals."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_result import END_PS, LEAKAGE_PJ, tiny_result

from archsim.analysis import breakdown


@pytest.fixture
def result():
    return tiny_result()


def test_energy_by_kind_is_sorted_and_sums_to_the_summary(result):
    frame = breakdown.energy_by_kind(result)
    assert list(frame["kind"]) == ["router", "crossbar", "adc", "tile_buffer"]
    assert frame["energy_pj"].sum() == pytest.approx(result.summary["energy_pj"], rel=1e-12)
    assert frame["energy_leakage_pj"].sum() == pytest.approx(LEAKAGE_PJ, rel=1e-12)
    assert frame["area_um2"].sum() == result.components["area_um2"].sum()


def test_energy_by_layer_and_kind_sums_to_layers_and_dynamic_energy(result):
    table = breakdown.energy_by_layer_and_kind(result)
    assert list(table.index) == ["first", "second"]
    assert table.loc["second", "adc"] == 0.6
    np.testing.assert_allclose(table.sum(axis=1), result.layers["energy_pj"], rtol=1e-12)
    assert table.to_numpy().sum() == pytest.approx(result.summary["energy_dynamic_pj"], rel=1e-12)


def test_energy_of_no_layer_has_a_row_of_its_own(result):
    result.log["layer"][0] = 0
    table = breakdown.energy_by_layer_and_kind(result)
    assert list(table.index) == ["first", "second", breakdown.NO_LAYER]
    assert table.loc[breakdown.NO_LAYER, "crossbar"] == 1.0


def test_latency_by_layer_finds_busiest_component_and_pe(result):
    first, second = breakdown.latency_by_layer(result).to_dict("records")
    assert (first["first_start_ps"], first["last_leave_ps"]) == (0, 300)
    assert (first["busiest_component"], first["busy_ps"]) == ("tile0.pe0.adc", 200)
    assert (first["busiest_unit"], first["unit_busy_ps"], first["unit_utilisation"]) == ("tile0.pe0", 300, 1.0)
    assert (second["first_start_ps"], second["last_leave_ps"]) == (300, 1000)
    assert second["utilisation"] == pytest.approx(200 / 700)


def test_parts_of_a_pe_that_overlap_count_once(result):
    result.log["start_ps"][2] = 50
    assert breakdown.latency_by_layer(result)["unit_busy_ps"][0] == 250


def test_layer_that_did_nothing_has_no_row():
    result = tiny_result()
    result.layers.loc[1, "layer"] = "unknown"
    assert list(breakdown.latency_by_layer(result)["layer"]) == ["first"]


def test_movement_is_ordered_from_far_to_near_and_keeps_its_sums(result):
    frame = breakdown.movement_by_level_and_class(result)
    assert list(frame["level"]) == ["noc", "tile_buffer"]
    for column in ("packets", "bits", "bit_hops", "energy_pj"):
        assert frame[column].sum() == pytest.approx(result.movement[column].sum(), rel=1e-12)


def test_activity_profile_is_the_share_of_each_bin(result):
    profile = breakdown.activity_profile(result.log, "second", "tile0.pe0", END_PS, 5)
    np.testing.assert_allclose(profile, [0, 0, 1, 0.5, 0])


def test_activity_profile_of_a_stranger_is_zero(result):
    assert not breakdown.activity_profile(result.log, "stranger", "tile0.pe0", END_PS, 4).any()


@pytest.mark.parametrize(
    ("component", "unit"),
    [("tile0.pe12.adc", "tile0.pe12"), ("tile0.buffer", "tile0.buffer"), ("noc.router0", "noc.router0")],
)
def test_parts_belong_to_their_pe(component, unit):
    assert breakdown.unit_of(component) == unit

"""SpikeSim, released model and simulated preset. Source: arXiv 2210.12899, ela_spikesim.py at c2627bc."""

import pytest

from archsim.hardware.reader import load_hardware
from archsim.validation import spikesim


@pytest.mark.parametrize("check", list(spikesim.closed_form_checks()), ids=lambda check: check.name)
def test_closed_form_gives_the_published_digits(check):
    assert check.passed, f"{check.name}: {check.ours} instead of {check.reference} {check.unit}"


def test_the_closed_form_has_nine_terms_for_energy_and_for_area():
    library = load_hardware("spikesim-rram-64").library
    assert len(spikesim.pe_cycle_terms_pj(library)) == len(spikesim.area_terms_um2(library)) == 9


@pytest.mark.parametrize(
    ("component", "action", "term"),
    [
        ("tile_buffer", "read", "tile buffer"),
        ("htree", "transfer", "H-tree"),
        ("adc", "convert", "ADC"),
        ("crossbar", "read", "crossbar"),
        ("mux", "select", "MUX"),
        ("neuron", "update", "neuron"),
        ("fetch", "latch", "fetch"),
        ("shift_add", "write_temp", "temp buffer"),
        ("shift_add", "subtract", "DIFF"),
    ],
)
def test_an_entry_raised_by_a_tenth_moves_the_closed_form_by_a_tenth_of_its_share(component, action, term):
    library = load_hardware("spikesim-rram-64").library
    share = spikesim.pe_cycle_terms_pj(library)[term]
    raised = spikesim.pe_cycle_pj(library.with_factor(component, action, 1.1))
    assert raised - spikesim.pe_cycle_pj(library) == pytest.approx(0.1 * share, rel=1e-9, abs=1e-12)


def test_the_simulated_preset_agrees_at_true_sizes():
    checks = list(spikesim.simulated_checks())
    assert [check.name for check in checks if not check.passed] == []
    energy = next(check for check in checks if check.name == "simulated: energy of the nine terms")
    assert energy.error_rel == pytest.approx(-0.0023, abs=1e-4)
    assert "neuron" in energy.note

"""Reading YAML from strangers: every fault at its line, in words, and nothing but the given error class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from archsim.errors import ConfigError, WorkloadError
from archsim.yamlfile import dump_model, parse_override, read_model


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Adc(Strict):
    bits: int = Field(ge=1, le=16)
    range: Literal["full", "calibrated"] = "full"
    area_um2: float = 1.0


class Pe(Strict):
    adc: Adc
    crossbars: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _odd(self) -> Pe:
        if self.crossbars == 13:
            raise ValueError("crossbars (13) brings bad luck; use 12")
        return self


class Chip(Strict):
    name: str
    clock_mhz: float = Field(gt=0)
    pipelined: bool = False
    pe: Pe
    taps: list[float] = []
    stages: list[Adc] = []
    table: dict[float, float] = {}
    labels: dict[str, str] = {}


GOOD = """\
# a chip
name: demo
clock_mhz: 250
pe:
  crossbars: 9
  adc:
    bits: 6
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes chip.yaml in the working folder, so that messages hold a short path."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str | bytes) -> Path:
        Path("chip.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path("chip.yaml")

    return _write


def fault(path: Path, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_model(path, Chip, ConfigError, overrides or {})
    return str(caught.value)


def test_a_good_file_becomes_the_model(write):
    chip = read_model(write(GOOD), Chip, ConfigError)
    assert chip == Chip(name="demo", clock_mhz=250.0, pe=Pe(crossbars=9, adc=Adc(bits=6)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bits: 6", "bits: 0", "chip.yaml:7: pe.adc.bits is 0; it must be at least 1"),
        ("bits: 6", "bits: 17", "chip.yaml:7: pe.adc.bits is 17; it must be at most 16"),
        ("bits: 6", "bits: 6.0", "chip.yaml:7: pe.adc.bits is 6.0; it must be a whole number"),
        ("bits: 6", "bits: '6'", "chip.yaml:7: pe.adc.bits is '6'; it must be a whole number"),
        ("clock_mhz: 250", "clock_mhz: 0", "chip.yaml:3: clock_mhz is 0; it must be above 0"),
        ("clock_mhz: 250", "clock_mhz: .nan", "chip.yaml:3: clock_mhz is nan; it must be finite"),
        (
            "clock_mhz: 250",
            "clock_mhz: 250 MHz",
            "chip.yaml:3: clock_mhz is '250 MHz'; it must be a number in MHz "
            "(the unit stands in the key's name); write 250",
        ),
        (
            "clock_mhz: 250",
            "clock_mhz: 0.25 GHz",
            "chip.yaml:3: clock_mhz is '0.25 GHz'; it must be a number in MHz "
            "(the unit stands in the key's name); write 250",
        ),
        (
            "clock_mhz: 250",
            "clock_mhz: 4 ns",
            "chip.yaml:3: clock_mhz is '4 ns'; it must be a number in MHz (the unit stands in the key's name)",
        ),
        (
            "bits: 6",
            "bits: 6\n    area_um2: 2 mm2",
            "chip.yaml:8: pe.adc.area_um2 is '2 mm2'; it must be a number in um2 "
            "(the unit stands in the key's name); write 2000000",
        ),
        (
            "bits: 6",
            "bits: 6\n    range: wide",
            "chip.yaml:8: pe.adc.range is 'wide'; it must be 'full' or 'calibrated'",
        ),
        ("crossbars: 9", "crossbars: many", "chip.yaml:5: pe.crossbars is 'many'; it must be a whole number or 'auto'"),
        ("crossbars: 9", "crossbars: 13", "chip.yaml:4: pe: crossbars (13) brings bad luck; use 12"),
        ("name: demo", "name: demo\npipelined: maybe", "chip.yaml:3: pipelined is 'maybe'; it must be true or false"),
        ("name: demo", "name: 3", "chip.yaml:2: name is 3; it must be text"),
        ("name: demo", "taps: 3\nname: demo", "chip.yaml:2: taps is 3; it must be a list"),
        ("name: demo\n", "", "chip.yaml:2: missing key name; it is required"),
        ("    bits: 6\n", "    range: full\n", "chip.yaml:6: missing key pe.adc.bits; it is required"),
        (
            "  adc:\n    bits: 6\n",
            "  adc:\n",
            "chip.yaml:6: pe.adc is empty; it must be a section of keys (area_um2, bits, range)",
        ),
        ("bits: 6", "bits: 6\n    rnge: full", "chip.yaml:8: unknown key pe.adc.rnge; did you mean pe.adc.range?"),
        ("name: demo", "name: demo\nadc: {bits: 3}", "chip.yaml:3: unknown key adc; did you mean pe.adc?"),
        (
            "name: demo",
            "name: demo\nzzzzz: 1",
            "chip.yaml:3: unknown key zzzzz; allowed here are "
            "clock_mhz, labels, name, pe, pipelined, stages, table, taps",
        ),
        (
            "name: demo",
            "name: demo\nstages: [{bits: 3, bitz: 4}]",
            "chip.yaml:3: unknown key stages.0.bitz; did you mean stages.0.bits?",
        ),
        ("bits: 6", "bits: 6\n    bits: 7", "chip.yaml:8: pe.adc.bits is given twice; the first is on line 7"),
        (
            "bits: 6",
            "bits: !!python/object:os.system 6",
            "chip.yaml:7: tag tag:yaml.org,2002:python/object:os.system is not allowed; values are plain YAML 1.2",
        ),
        ("bits: 6", "bits: &six 6", "chip.yaml:7: anchor &six is not allowed; write the value out"),
        ("bits: 6", "bits: *six", "chip.yaml:7: alias *six is not allowed; write the value out"),
        (
            "bits: 6",
            "bits: " + "9" * 5000,
            f"chip.yaml:7: pe.adc.bits is {'9' * 57}...: a number of 5000 characters; 40 are enough for any value",
        ),
        (
            "clock_mhz: 250",
            "clock_mhz: {250: 1",
            "chip.yaml:4: not valid YAML: expected ',' or '}', but got ':' "
            "(while parsing a flow mapping that starts on line 3)",
        ),
        ("clock_mhz: 250", "clock_mhz: 250: 3", "chip.yaml:3: not valid YAML: mapping values are not allowed here"),
        ("bits: 6", 'bits: "\\UFFFFFFFF"', "chip.yaml:1: not valid YAML: the parser gave up with OverflowError"),
        ("bits: 6", "bits: \x07", "chip.yaml:7: character 7 is not allowed in YAML; is this a text file?"),
        (
            "bits: 6",
            "bits: 6\n---\nname: two",
            "chip.yaml:8: a second YAML document starts here; put one document in a file",
        ),
        ("bits: 6", "bits: " + "[" * 5000, "chip.yaml:7: nested deeper than 24 levels"),
        ("# a chip", "%YAML 1.1\n---", "chip.yaml:2: the file asks for another YAML version; it must be YAML 1.2"),
    ],
)
def test_one_fault_is_told_in_full(write, old, new, message):
    assert old in GOOD
    assert fault(write(GOOD.replace(old, new))) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "chip.yaml:1: the file is empty; it must be a section of keys, such as 'name: demo'"),
        (b"# only words\n", "chip.yaml:1: the file is empty; it must be a section of keys, such as 'name: demo'"),
        (b"- 1\n- 2\n", "chip.yaml:1: the file is a list; it must be a section of keys, such as 'name: demo'"),
        (b"hello", "chip.yaml:1: the file is 'hello'; it must be a section of keys, such as 'name: demo'"),
        (b"\x89HDF\r\n\x1a\n\0\0", "chip.yaml: is a binary file; it must be YAML text in UTF-8"),
        (b"name: ok\nb: \xff", "chip.yaml:2: byte 0xff is not UTF-8 text; save the file as UTF-8"),
        (b"# " + b"x" * (1 << 20), "chip.yaml: is larger than 1024 KiB; a configuration never is"),
        (b"a: [" + b"1," * 60_000 + b"1]", "chip.yaml:1: the file holds more than 50000 values"),
    ],
)
def test_what_is_no_configuration_at_all(write, content, message):
    assert fault(write(content)) == message


def test_a_missing_file_and_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fault(Path("none.yaml")) == "none.yaml: cannot be read: no such file or directory"
    assert fault(Path(".")) == ".: cannot be read: is a directory"


def test_all_faults_of_a_file_come_together_in_the_order_of_lines(write):
    text = (
        GOOD.replace("250", "-1").replace("crossbars: 9", "crossbar: 9").replace("bits: 6", "bits: &a 0\n    bits: 3")
    )
    assert fault(write(text)).splitlines() == [
        "chip.yaml:3: clock_mhz is -1; it must be above 0",
        "chip.yaml:5: unknown key pe.crossbar; did you mean pe.crossbars?",
        "chip.yaml:7: anchor &a is not allowed; write the value out",
        "chip.yaml:8: pe.adc.bits is given twice; the first is on line 7",
    ]


def test_a_flood_of_faults_is_cut(write):
    lines = fault(write(GOOD + "".join(f"key{i}: 1\n" for i in range(5000)))).splitlines()
    assert len(lines) == 41
    assert lines[-1] == "chip.yaml: ... and more faults"


def test_overrides_lie_over_the_file_before_validation(write):
    path = write(GOOD.replace("bits: 6", "bits: 0"))
    assert read_model(path, Chip, ConfigError, {"pe.adc.bits": 3, "pe.crossbars": "auto"}).pe.adc.bits == 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("pe.adc.bits", 99, "--set pe.adc.bits=99: pe.adc.bits is 99; it must be at most 16"),
        ("pe.adc.bit", 3, "--set pe.adc.bit=3: unknown key pe.adc.bit; did you mean pe.adc.bits?"),
        ("adc.bits", 3, "--set adc.bits=3: unknown key adc; did you mean pe.adc?"),
        ("pe.adc.bits", "a\nb", "--set pe.adc.bits='a\\nb': pe.adc.bits is 'a\\nb'; it must be a whole number"),
        (
            "pe.adc.bits",
            1 << 9999,
            "--set pe.adc.bits=a number of 10000 bits: pe.adc.bits is a number of 10000 bits; it must be at most 16",
        ),
        ("name.first", "x", "--set name.first=x: name is 'demo', not a section of keys; it has no key first"),
        ("pe.crossbars", 13, "chip.yaml:4: pe: crossbars (13) brings bad luck; use 12 (with --set pe.crossbars=13)"),
    ],
)
def test_faulty_overrides_are_placed_at_themselves(write, path, value, message):
    assert fault(write(GOOD), {path: value}) == message


def test_checks_beyond_the_model_are_placed_at_their_key(write):
    with pytest.raises(WorkloadError, match=r"^chip\.yaml:7: pe\.adc\.bits is 6; too many$"):
        read_model(write(GOOD), Chip, WorkloadError, check=lambda chip: [("pe.adc.bits", "pe.adc.bits is 6; too many")])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0x1F", 31),
        ("010", 10),
        ("1e-8", 1e-8),
        (".5", 0.5),
        ("false", False),
        ("off", "off"),
        ("12:30", "12:30"),
        ("auto", "auto"),
        ("'3'", "3"),
        ("", None),
        ("a=b", "a=b"),
    ],
)
def test_override_values_are_yaml_1_2_scalars(text, value):
    assert parse_override(f"pe.adc.bits={text}") == ("pe.adc.bits", value)


@pytest.mark.parametrize("text", ["", "bits", "=3", "a b=3", "a..b=3", ".a=3"])
def test_what_is_no_override_is_refused(text):
    with pytest.raises(ConfigError, match=r"is not PATH=VALUE; write for example --set tile\.pe\.adc\.bits=6$"):
        parse_override(text)


def test_an_override_with_too_many_digits_is_refused():
    with pytest.raises(ConfigError, match=r"^--set a=1111.*\.\.\.: a number of 5000 characters"):
        parse_override("a=" + "1" * 5000)


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    clock=st.floats(min_value=1e-300, allow_infinity=False),
    taps=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    labels=st.dictionaries(
        st.sampled_from(["1e-8", "true", "0x1F", "a b", "~", "08", "-"]), st.text("01eE.-x", max_size=4)
    ),
)
def test_a_dumped_model_reads_back_equal(tmp_path_factory, name, clock, taps, labels):
    chip = Chip(name=name, clock_mhz=clock, pe=Pe(adc=Adc(bits=3)), taps=taps, table={4.0: 1.5}, labels=labels)
    path = tmp_path_factory.mktemp("dump") / "chip.yaml"
    path.write_text(dump_model(chip), encoding="utf-8", newline="")
    assert read_model(path, Chip, ConfigError) == chip

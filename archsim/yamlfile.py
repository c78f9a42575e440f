"""Reads YAML 1.2 files from strangers into pydantic models, and writes models back.

A file is parsed into plain values with the line of every key, overrides are laid on top, the model
validates the whole, and all faults come back in one exception, one line each: where, what was
found, what is allowed. Nothing in a file can run code, refer to another place in the file, or make
the reader take long. Main entry points: `read_model`, `parse_override`, `dump_model`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml import events as yaml_events
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from archsim.errors import ArchsimError, ConfigError

M = TypeVar("M", bound=BaseModel)
KeyPath = tuple[object, ...]
Place = int | str
"""Line of the file, or the override that put the value there."""
Check = Callable[[M], Iterable[tuple[str | KeyPath, str]]]
"""Rules beyond a model: (dotted path, or path as a tuple where keys have dots themselves, and fault)."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_VALUES = 50_000
MAX_DIGITS = 40
MAX_FAULTS_SHOWN = 40
NO_OVERRIDES: Mapping[str, object] = MappingProxyType({})


def read_model(
    path: Path,
    model: type[M] | Callable[[Mapping[Any, object]], type[M]],
    error: type[ArchsimError],
    overrides: Mapping[str, object] = NO_OVERRIDES,
    check: Check[M] | None = None,
) -> M:
    """Read one file into one model, or say everything that is wrong with it.

    Args:
        path: A YAML 1.2 file: UTF-8, at most 1 MiB, one mapping, no tags, anchors, aliases or repeated keys.
        model: The pydantic model of the whole file, or what chooses it by the file's values.
        error: Class of the exception for anything that is wrong.
        overrides: Dotted path -> value, laid over the file before it is validated.
        check: Called with the valid model; yields (dotted path, fault) for rules beyond the model.

    Raises:
        error: One line per fault, `file:line: what is found; what is allowed`; an overridden value
            is placed as `--set path=value`.
    """
    document = _parse(path, error)
    _lay_over(document, overrides)
    return _validated(document, model if isinstance(model, type) else model(document.values), error, check)


def build_model(
    values: Mapping[str, object],
    name: str,
    model: type[M],
    error: type[ArchsimError],
    overrides: Mapping[str, object] = NO_OVERRIDES,
    check: Check[M] | None = None,
) -> M:
    """A model of values that come from no file, checked like a file's; messages begin with `name`.

    Raises:
        error: One line per fault.
    """
    document = _Document(Path(name), _as_read(values), {(): name})  # type: ignore[arg-type]
    _lay_over(document, overrides)
    return _validated(document, model, error, check)


def unknown_key(model: type[BaseModel], dotted: str) -> str | None:
    """What is wrong with a dotted path that names no value of a model, with the likely one; None where it does."""
    path: KeyPath = tuple(dotted.split("."))
    here: list[Any] = [model]
    for depth, key in enumerate(path, start=1):
        models = list(_models_in(here))
        tables = [args[-1] for found in _flat(here) if len(args := get_args(found)) == 2]
        here = [found.model_fields[key].annotation for found in models if key in found.model_fields] or tables
        if not here:
            is_value = depth > 1 and not models
            advice = f"{key} cannot follow a single value" if is_value else _suggestion(model, path[:depth])
            return f"unknown key {_dotted(path)}; {advice}"
    models = list(_models_in(here))
    if models and len(models) == len(list(_flat(here))):
        return f"{_dotted(path)} is a section; give one of its keys ({', '.join(sorted(models[0].model_fields))})"
    return None


def _lay_over(document: _Document, overrides: Mapping[str, object]) -> None:
    for dotted, value in overrides.items():
        _override(document, dotted, value)


def _validated(document: _Document, model: type[M], error: type[ArchsimError], check: Check[M] | None) -> M:
    try:
        result = model.model_validate(document.values)
    except ValidationError as err:
        document.faults += _explain(document, model, err.errors(include_url=False))
        raise error(document.report()) from err
    if check is not None and not document.faults:
        document.faults += [(document.place(_key_path(where)), fault) for where, fault in check(result)]
    if document.faults:
        raise error(document.report())
    return result


def parse_override(text: str, error: type[ArchsimError] = ConfigError) -> tuple[str, object]:
    """Split `PATH=VALUE` and read the value as a YAML 1.2 scalar.

    Raises:
        error: There is no `=`, the path is not keys joined by dots, or the value is too long a number.
    """
    dotted, equals, value = text.partition("=")
    dotted, value = dotted.strip(), value.strip()
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", dotted):
        raise error(f"--set {_clip(text)!r} is not PATH=VALUE; write for example --set tile.pe.adc.bits=6")
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return dotted, value[1:-1]
    try:
        return dotted, _scalar(value)
    except ValueError as err:
        raise error(f"--set {dotted}={_clip(value)}: {err}") from err


def dump_model(model: BaseModel) -> str:
    """Write a model as YAML with every key resolved; `read_model` of the text gives an equal model."""
    return "".join(f"{line}\n" for line in _lines(model.model_dump()))


@dataclass
class _Document:
    """Plain values of a file with the place of each, and the faults found so far."""

    path: Path
    values: dict[object, object] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    broken: set[KeyPath] = field(default_factory=set)
    """Paths whose value is already known to be wrong, so that it is not reported twice."""
    faults: list[tuple[Place, str]] = field(default_factory=list)
    n_values: int = 0

    def place(self, path: KeyPath) -> Place:
        """Place of a key, or of the nearest section around it that is written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, 1)

    def report(self) -> str:
        """All faults, those of the file first, by line."""
        ordered = sorted(dict.fromkeys(self.faults), key=lambda fault: (isinstance(fault[0], str), fault[0]))
        lines = [f"{self.path}:{at}: {text}" if isinstance(at, int) else f"{at}: {text}" for at, text in ordered]
        if len(lines) > MAX_FAULTS_SHOWN:
            lines[MAX_FAULTS_SHOWN:] = [f"{self.path}: ... and more faults"]
        return "\n".join(lines)


# Parsing: text -> plain values with places.


def _parse(path: Path, error: type[ArchsimError]) -> _Document:
    text = read_text(path, error)
    document = _Document(path)
    try:
        values = _build_document(document, YAML(typ="safe", pure=True).parse(text))
    except _UnreadableError as err:
        document.faults.append((err.args[0], err.args[1]))
        raise error(document.report()) from err
    except ReaderError as err:
        line = text.count("\n", 0, err.position) + 1
        raise error(f"{path}:{line}: character {err.character!r} is not allowed in YAML; is this a text file?") from err
    except MarkedYAMLError as err:
        line, problem = _syntax_fault(err)
        raise error(f"{path}:{line}: not valid YAML: {problem}") from err
    except Exception as err:  # the parser leaks other exceptions on hostile text, such as OverflowError
        raise error(f"{path}:1: not valid YAML: the parser gave up with {type(err).__name__}") from err
    if not isinstance(values, dict):
        found = "empty" if values is None else _shown(values)
        raise error(f"{path}:1: the file is {found}; it must be a section of keys, such as 'name: demo'")
    document.values = values
    return document


def _syntax_fault(err: MarkedYAMLError) -> tuple[int, str]:
    """Line and words of a syntax error; one found far from its cause also says where the thing began."""
    start, end = err.context_mark, err.problem_mark or err.context_mark
    line = end.line + 1 if end is not None else 1
    problem = _clip(" ".join(str(err.problem or err.context).split()), 120)
    if start is not None and start.line + 1 != line:
        problem += f" ({_clip(str(err.context), 60)} that starts on line {start.line + 1})"
    return line, problem


def read_text(path: Path, error: type[ArchsimError], kind: str = "YAML text") -> str:
    """Text of a file of at most 1 MiB in UTF-8; an error says what else it is."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise error(f"{path}: cannot be read: {reason.lower()}") from err
    if len(data) > MAX_BYTES:
        raise error(f"{path}: is larger than {MAX_BYTES // 1024} KiB; a configuration never is")
    if b"\0" in data:
        raise error(f"{path}: is a binary file; it must be {kind} in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise error(f"{path}:{line}: byte 0x{data[err.start]:02x} is not UTF-8 text; save the file as UTF-8") from err


class _UnreadableError(Exception):
    """The file cannot be read further: (line, fault)."""


def _build_document(document: _Document, events: Iterator[Any]) -> object:
    value: object = None
    n_documents = 0
    for event in events:
        if isinstance(event, yaml_events.DocumentStartEvent):
            n_documents += 1
            if n_documents > 1:
                raise _UnreadableError(_line(event), "a second YAML document starts here; put one document in a file")
            if event.version not in (None, (1, 2)):
                raise _UnreadableError(_line(event), "the file asks for another YAML version; it must be YAML 1.2")
        elif isinstance(
            event, (yaml_events.StreamStartEvent, yaml_events.StreamEndEvent, yaml_events.DocumentEndEvent)
        ):
            continue
        else:
            document.places[()] = _line(event)
            value = _build(document, events, event, ())
    return value


def _build(document: _Document, events: Iterator[Any], event: Any, path: KeyPath) -> object:
    """Value of the node that starts with `event`; takes the node's other events from `events`."""
    document.n_values += 1
    if document.n_values > MAX_VALUES:
        raise _UnreadableError(_line(event), f"the file holds more than {MAX_VALUES} values")
    if len(path) > MAX_DEPTH:
        raise _UnreadableError(_line(event), f"nested deeper than {MAX_DEPTH} levels")
    if event.anchor is not None:
        what = "alias *" if isinstance(event, yaml_events.AliasEvent) else "anchor &"
        _reject(document, event, path, f"{what}{_clip(str(event.anchor))} is not allowed; write the value out")
    if isinstance(event, yaml_events.AliasEvent):
        return None
    if event.tag is not None:
        _reject(document, event, path, f"tag {_clip(str(event.tag))} is not allowed; values are plain YAML 1.2")
    if isinstance(event, yaml_events.MappingStartEvent):
        return _build_mapping(document, events, path)
    if isinstance(event, yaml_events.SequenceStartEvent):
        items: list[object] = []
        while not isinstance(item := next(events), yaml_events.SequenceEndEvent):
            document.places[*path, len(items)] = _line(item)
            items.append(_build(document, events, item, (*path, len(items))))
        return items
    if event.style is not None:
        return str(event.value)
    try:
        return _scalar(event.value)
    except ValueError as err:
        _reject(document, event, path, f"{_dotted(path)} is {_clip(event.value)}: {err}" if path else str(err))
        return None


def _build_mapping(document: _Document, events: Iterator[Any], path: KeyPath) -> dict[object, object]:
    values: dict[object, object] = {}
    while not isinstance(key_event := next(events), yaml_events.MappingEndEvent):
        key = _build(document, events, key_event, (*path, "?"))
        valid = isinstance(key, str | int) or (isinstance(key, float) and math.isfinite(key))
        if not valid:
            document.faults.append((_line(key_event), f"{_shown(key)} cannot be a key; keys are plain words"))
        repeated = valid and key in values
        if repeated:
            first = document.places[*path, key]
            text = f"{_dotted((*path, key))} is given twice; the first is on line {first}"
            document.faults.append((_line(key_event), text))
        kept = (*path, key) if valid and not repeated else (*path, "?")
        document.places[kept] = _line(key_event)
        value = _build(document, events, next(events), kept)
        if valid and not repeated:
            values[key] = value
    return values


def _reject(document: _Document, event: Any, path: KeyPath, fault: str) -> None:
    document.faults.append((_line(event), fault))
    document.broken.add(path)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def _scalar(text: str) -> object:
    """Value of a plain scalar by the YAML 1.2 core schema: `1e-8` is a number, `off` and `010:30` are text."""
    if text in _WORDS:
        return _WORDS[text]
    is_int = _INT.fullmatch(text)
    if (is_int or _FLOAT.fullmatch(text)) and len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters; {MAX_DIGITS} are enough for any value")
    if is_int:
        return int(text[2:], {"o": 8, "x": 16}[text[1]]) if text[:2] in ("0o", "0x") else int(text)
    if _SPECIAL.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return float(text) if _FLOAT.fullmatch(text) else text


def _override(document: _Document, dotted: str, value: object) -> None:
    """Lay one value over the file; a path that the model does not know is left for the model to refuse."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    shown = value if isinstance(value, str) and value.isprintable() else _shown(value)
    place = f"--set {_dotted(dotted.split('.'))}={_clip(shown)}"
    path: KeyPath = tuple(dotted.split("."))
    node = document.values
    for depth, key in enumerate(path[:-1], start=1):
        child = node.get(key)
        if child is None:
            child = {}
            document.places[path[:depth]] = place
        elif not isinstance(child, dict):
            text = f"{_dotted(path[:depth])} is {_shown(child)}, not a section of keys; it has no key {path[depth]}"
            document.faults.append((place, text))
            return
        node[key] = child
        node = child
    node[path[-1]] = dict(value) if isinstance(value, Mapping) else value
    for known in [known for known in document.places if known[: len(path)] == path]:
        del document.places[known]
    document.broken = {known for known in document.broken if known[: len(path)] != path}
    document.places[path] = place
    document.overrides[path] = place


# Explaining: pydantic's errors -> faults in words.


def _explain(document: _Document, model: type[BaseModel], errors: list[ErrorDetails]) -> list[tuple[Place, str]]:
    """One fault per path: the members of a union complain one by one but the reader sees one value."""
    by_path: dict[tuple[KeyPath, bool], list[ErrorDetails]] = {}
    for item in errors:
        path = _path_of(document.values, item)
        if not any(path[: len(broken)] == broken for broken in document.broken):
            by_path.setdefault((path, item["type"] == "value_error"), []).append(item)
    shown = list(by_path.items())[: MAX_FAULTS_SHOWN + 1]
    return [(document.place(path), _fault(document, model, path, items)) for (path, _), items in shown]


def _path_of(values: object, item: ErrorDetails) -> KeyPath:
    """Path in the file of an error; pydantic mixes in the names of union members, which are dropped."""
    path: list[object] = []
    for position, key in enumerate(item["loc"], start=1):
        in_list = isinstance(values, list) and isinstance(key, int) and key < len(values)
        if in_list or (isinstance(values, dict) and key in values):
            values = values[key]  # type: ignore[index]
        elif not (item["type"] == "missing" and position == len(item["loc"])):
            continue
        path.append(key)
    return tuple(path)


def _fault(document: _Document, model: type[BaseModel], path: KeyPath, items: list[ErrorDetails]) -> str:
    kind = items[0]["type"]
    if kind == "missing":
        return f"missing key {_dotted(path)}; it is required"
    if kind in ("extra_forbidden", "invalid_key"):
        return f"unknown key {_dotted(path)}; {_suggestion(model, path)}"
    if kind == "value_error":
        reason = str(items[0]["msg"]).removeprefix("Value error, ")
        involved = [text for known, text in document.overrides.items() if known[: len(path)] == path]
        with_overrides = f" (with {', '.join(involved[:5])})" if involved else ""
        return (f"{_dotted(path)}: " if path else "") + reason + with_overrides
    found = items[0]["input"]
    wrong_unit = _unit_advice(str(path[-1]), found) if path else None
    allowed = wrong_unit or " or ".join(dict.fromkeys(_allowed(item, model, path) for item in items))
    return f"{_dotted(path)} is {_shown(found)}; it must be {allowed}"


_NUMBER = {"int": "a whole number", "float": "a number"}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "string_too_short": ("text of at least length", "min_length"),
    "string_too_long": ("text of at most length", "max_length"),
    "string_pattern_mismatch": ("text that matches", "pattern"),
}


def _allowed(item: ErrorDetails, model: type[BaseModel], path: KeyPath) -> str:
    """What a value must be, after `it must be`."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        bound = context[key]
        return f"{words} {int(bound) if isinstance(bound, float) and bound.is_integer() else bound}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = sorted({key for candidate in _models_at(model, path) for key in candidate.model_fields})
        return f"a section of keys ({', '.join(keys)})" if keys else "a section of keys"
    stem = kind.split("_")[0]
    if stem in _NUMBER:
        return _NUMBER[stem]
    words_of = {"bool": "true or false", "string": "text", "list": "a list", "tuple": "a list", "finite": "finite"}
    return words_of.get(stem, f"otherwise ({item['msg'][:1].lower()}{item['msg'][1:]})")


def _suggestion(model: type[BaseModel], path: KeyPath) -> str:
    """Nearest key at this level, else the place in the model where this key belongs, else what is allowed."""
    hint = getattr(model, "hint_on_unknown_key", lambda _path: None)(path)
    if hint is not None:
        return str(hint)
    key, around = _clip(str(path[-1])), path[:-1]
    here = sorted({name for candidate in _models_at(model, around) for name in candidate.model_fields})
    everywhere = sorted(_model_paths(model), key=lambda known: (len(known), known))
    for found in (
        [(*around, name) for name in difflib.get_close_matches(key, here, 1, 0.75)],
        [known for known in everywhere if known[-1] == key],
        [(*around, name) for name in difflib.get_close_matches(key, here, 1, 0.6)],
        [known for known in everywhere if difflib.SequenceMatcher(None, known[-1], key).ratio() > 0.8],
    ):
        if found:
            return f"did you mean {_dotted(found[0])}?"
    return f"allowed here are {', '.join(here) or 'no keys'}"


def _models_at(model: type[BaseModel], path: KeyPath) -> list[type[BaseModel]]:
    """Models that may stand at a path, through unions, lists and tables."""
    candidates: list[Any] = [model]
    for key in path:
        fields = [c.model_fields[key].annotation for c in _models_in(candidates) if key in c.model_fields]
        tables = [args[-1] for c in _flat(candidates) if len(args := get_args(c)) in (1, 2)]
        candidates = fields or tables
    return list(_models_in(candidates))


def _model_paths(model: type[BaseModel], around: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, info in model.model_fields.items():
        yield (*around, name)
        for child in _models_in([info.annotation]):
            if len(around) < MAX_DEPTH:
                yield from _model_paths(child, (*around, name))


def _models_in(annotations: Iterable[Any]) -> Iterator[type[BaseModel]]:
    return (item for item in _flat(annotations) if isinstance(item, type) and issubclass(item, BaseModel))


def _flat(annotations: Iterable[Any]) -> Iterator[Any]:
    """Annotations with unions and `Annotated` opened; containers stay closed."""
    for annotation in annotations:
        if hasattr(annotation, "__metadata__"):
            yield from _flat([annotation.__origin__])
        elif type(annotation).__name__ in ("UnionType", "_UnionGenericAlias", "Union"):
            yield from _flat(get_args(annotation))
        else:
            yield annotation


# Units: every key that has one carries it as its suffix.

_UNITS = {
    "mhz": ("hz", 1e6, "MHz"), "ps": ("s", 1e-12, "ps"), "ns": ("s", 1e-9, "ns"), "s": ("s", 1.0, "s"),
    "pj": ("j", 1e-12, "pJ"), "mw": ("w", 1e-3, "mW"), "um2": ("m2", 1e-12, "um2"), "nm": ("m", 1e-9, "nm"),
    "kib": ("ib", 1024.0, "KiB"), "ohm": ("ohm", 1.0, "ohm"), "v": ("v", 1.0, "V"), "bits": ("bit", 1.0, "bits"),
    "cycles": ("cycle", 1.0, "cycles"),
}  # fmt: skip
_PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}
_WITH_UNIT = re.compile(
    r"([-+]?[0-9]{1,18}(?:\.[0-9]{0,18})?(?:[eE][-+]?[0-9]{1,2})?)\s*([A-Za-zµΩ][A-Za-z0-9²Ω]{0,9})"
)


def _unit_advice(key: str, found: object) -> str | None:
    """What to write instead of `250 MHz`, when that is what stands there."""
    unit = _UNITS.get(key.rsplit("_", 1)[-1])
    match = _WITH_UNIT.fullmatch(found.strip()) if isinstance(found, str) else None
    if unit is None or match is None:
        return None
    factor = _factor(match[2].replace("Ω", "ohm").replace("²", "2"), *unit[:2])
    advice = f"; write {float(f'{float(match[1]) * factor:.12g}'):.12g}" if factor is not None else ""
    return f"a number in {unit[2]} (the unit stands in the key's name){advice}"


def _factor(text: str, base: str, scale: float) -> float | None:
    """Factor from the unit in `text` to the unit (base, scale), or None where they measure different things."""
    plain = text.lower() if base in ("bit", "cycle") else text
    if plain.lower().removesuffix("s" if base in ("bit", "cycle") else "") == base:
        return 1.0 / scale
    if base in ("ib", "m2"):
        table = {"kib": 1024.0, "mib": 1048576.0, "um2": 1e-12, "mm2": 1e-6}
        return table[text.lower()] / scale if text.lower().endswith(base) and text.lower() in table else None
    if text[1:].lower() != base:
        return None
    prefix = "M" if base == "hz" and text[0] == "m" else "k" if text[0] == "K" else text[0]
    return _PREFIXES[prefix] / scale if prefix in _PREFIXES else None


# Words for values and paths.


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a section of keys"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of {value.bit_length()} bits"
    return _clip(repr(value))


def _as_read(value: object) -> object:
    """A value as the parser would have built it: a copy of dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _as_read(item) for key, item in value.items()}
    return [_as_read(item) for item in value] if isinstance(value, list | tuple) else value


def _key_path(where: str | KeyPath) -> KeyPath:
    return tuple(where.split(".")) if isinstance(where, str) else where


def _dotted(path: Iterable[object]) -> str:
    """Dotted path; keys that are not plain words are quoted, so that control characters stay visible."""
    words = (str(key) if re.fullmatch(r"[\w-]+", str(key)) else repr(str(key)) for key in path)
    return ".".join(_clip(word) for word in words) or "the file"


def _clip(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


# Writing.


def _lines(section: Mapping[Any, object]) -> Iterator[str]:
    """A section of keys, one line each; sections in it are indented, lists stay on their line."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield f"{_inline(key)}:"
            yield from (f"  {line}" for line in _lines(value))
        else:
            yield f"{_inline(key)}: {_inline(value)}"


def _inline(value: object) -> str:
    """A value as it stands behind its key; text is quoted where this reader would take it for something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_inline(key)}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and len(value) <= MAX_DIGITS and isinstance(_scalar(value), str)
        return value if is_plain else '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return "null" if value is None else repr(value).lower()


_PLAIN = re.compile(r"[A-Za-z]([\w ./()+-]*[\w)])?", re.ASCII)


def _escaped(letter: str) -> str:
    """A character between double quotes."""
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"

"""Constraints between keys, such as `tile.pe.crossbar.rows * tile.pe.crossbar.cols <= 16384`.

The text is parsed into Python's syntax tree and only the nodes listed here are interpreted: comparisons, and/or/not,
+ - * / // %, numbers, texts, lists of them, and dotted keys. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archsim.errors import ConfigError

MAX_LENGTH = 300
"""Characters of a constraint, which bounds its depth and the size of its numbers."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Constraint:
    """A parsed constraint and the keys that it names."""

    text: str
    tree: ast.expr
    keys: tuple[str, ...]

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        """Whether the constraint holds at a point.

        Args:
            value_of: Value of a key at this point.

        Raises:
            ConfigError: Its values cannot be compared or computed with, such as `auto` and a number.
        """
        try:
            return bool(_value(self.tree, value_of))
        except (TypeError, ArithmeticError) as err:
            values = ", ".join(f"{key} is {value_of(key)!r}" for key in self.keys)
            raise ConfigError(f"constraint '{self.text}' cannot be computed where {values} ({err})") from err


def parse_constraint(text: str) -> Constraint:
    """Read a constraint.

    Raises:
        ConfigError: It is too long, no expression, or holds something else than keys, values and comparisons.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"a constraint of {len(text)} characters; {MAX_LENGTH} are the most")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise ConfigError(f"'{text}' is no constraint; write for example tile.pe.adc.bits <= 8") from err
    keys = dict.fromkeys(_keys(tree, text))
    if not keys:
        raise ConfigError(f"constraint '{text}' names no key; write for example tile.pe.adc.bits <= 8")
    return Constraint(text.strip(), tree, tuple(keys))


def _keys(node: ast.expr, text: str) -> list[str]:
    """Keys that an expression names, once everything in it is known to be allowed."""
    match node:
        case ast.Name() | ast.Attribute():
            dotted = _dotted(node)
            if dotted is not None:
                return [] if dotted in _WORDS else [dotted]
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return []
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [key for part in parts for key in _keys(part, text)]
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return _keys(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _keys(left, text) + _keys(right, text)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            return [key for part in (left, *others) for key in _keys(part, text)]
    found = ast.unparse(node)
    raise ConfigError(
        f"constraint '{text}': '{found}' is not allowed; it may hold keys, values, comparisons, and, or, not, in, "
        "+ - * / // %"
    )


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None


def _value(node: ast.expr, value_of: Callable[[str], Any]) -> Any:
    match node:
        case ast.Name() | ast.Attribute():
            dotted = _dotted(node)
            assert dotted is not None, "checked when parsed"
            return _WORDS[dotted] if dotted in _WORDS else value_of(dotted)
        case ast.Constant(value=value):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, value_of) for part in parts]
        case ast.BoolOp(op=op, values=parts):
            combine = all if isinstance(op, ast.And) else any
            return combine(bool(_value(part, value_of)) for part in parts)
        case ast.UnaryOp(op=op, operand=operand):
            found = _value(operand, value_of)
            return (not found) if isinstance(op, ast.Not) else -_number(found)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_number(_value(left, value_of)), _number(_value(right, value_of)))
        case ast.Compare(left=first, ops=ops, comparators=others):
            values = [_value(part, value_of) for part in (first, *others)]
            return all(_COMPARE[type(op)](values[i], values[i + 1]) for i, op in enumerate(ops))
    raise AssertionError(f"{ast.dump(node)} was refused when parsed")


def _number(value: Any) -> int | float:
    """Operands of arithmetic are numbers; texts, which Python would repeat or join, are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value

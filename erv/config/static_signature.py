"""The parameters of a component, read from its source without importing it.

A config is checked against the constructors that it names. Importing these takes torch, Lightning and transformers, five to ten
seconds, which is too long to be told of a typo. What cannot be read here (a decorator that changes the parameters, a base class
that is computed) is left to `inspect`, after an import.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Union

from erv.errors import ConfigError


class Unreadable(Exception):
    """The source alone does not tell the parameters."""


@dataclass(frozen=True)
class Parameter:
    """One parameter; `hint` is a type made of bool, int, float, str, None, Literal and unions of these, or Any."""

    hint: Any
    required: bool


@dataclass(frozen=True)
class Parameters:
    """The parameters of a class' constructor or of a function, in their order."""

    by_name: dict[str, Parameter] = field(default_factory=dict)
    takes_any: bool = False
    """Whether further keywords are taken (`**keywords`)."""
    module: str = ""
    """Where the class or function is written."""
    is_class: bool = True


def read_parameters(target: str) -> Parameters:
    """The parameters of the class or function with this dotted name; Unreadable where the source does not tell them."""
    package, _, name = target.rpartition(".")
    module, definition = _resolve(package, name)
    if isinstance(definition, ast.FunctionDef):
        return replace(_of_function(module, definition, is_method=False), module=module.name, is_class=False)
    if isinstance(definition, ast.ClassDef):
        return replace(_of_class(module, definition), module=module.name)
    raise Unreadable(target)


def parameters_by_import(component: Any) -> Parameters:
    """The parameters of a class or function that has been imported; ConfigError where it has none to be told."""
    try:
        signature = inspect.signature(component)
    except ValueError as error:
        raise ConfigError(f"the parameters of {component!r} cannot be told: {error}") from error
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return Parameters(
        {
            name: Parameter(Any, parameter.default is parameter.empty)
            for name, parameter in signature.parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        },
        inspect.Parameter.VAR_KEYWORD in kinds,
        component.__module__,
        isinstance(component, type),
    )


@dataclass(frozen=True)
class _Module:
    name: str
    is_package: bool
    body: tuple[ast.stmt, ...]


@cache
def _module(name: str) -> _Module:
    """A module's syntax tree. Only its top-level package is looked up, since that alone imports nothing."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise Unreadable(name) from error
    if spec is None or spec.origin is None:
        raise Unreadable(name)
    file = Path(spec.origin)
    if rest:
        base = file.parent.joinpath(*rest)
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if file.suffix != ".py" or not file.is_file():
        raise Unreadable(name)
    return _Module(name, file.name == "__init__.py", tuple(ast.parse(file.read_text(encoding="utf-8")).body))


def _statements(body: tuple[ast.stmt, ...] | list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those below `if TYPE_CHECKING` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements(statement.body)


def _resolve(package: str, name: str, depth: int = 0) -> tuple[_Module, ast.stmt]:
    """Where a name of a module is defined, through its imports and its lazy exports."""
    if depth > 10:
        raise Unreadable(f"{package}.{name}")
    module = _module(package)
    for statement in _statements(module.body):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return module, statement
        if isinstance(statement, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in statement.targets
        ):
            return module, statement
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _resolve(_absolute(module, statement), alias.name, depth + 1)
    exports = _lazy_exports(module)
    if name in exports:
        origin, _, attribute = exports[name].partition(":")
        return _resolve(origin, attribute or name, depth + 1)
    raise Unreadable(f"{package}.{name}")


def _absolute(module: _Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parents = module.name.split(".")
    parents = parents[: len(parents) - statement.level + module.is_package]
    return ".".join([*parents, *([statement.module] if statement.module else [])])


def _lazy_exports(module: _Module) -> dict[str, str]:
    """The table that a package gives to `erv.utils.lazy.lazy_exports`."""
    for statement in module.body:
        call = statement.value if isinstance(statement, ast.Assign) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "lazy_exports":
            table: dict[str, str] = ast.literal_eval(call.args[1])
            return table
    return {}


def _of_class(module: _Module, definition: ast.ClassDef) -> Parameters:
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(module, statement, is_method=True)
    if any(_name_of(d.func if isinstance(d, ast.Call) else d) == "dataclass" for d in definition.decorator_list):
        return Parameters(_fields(module, definition))
    for base in definition.bases:
        if (name := _name_of(base)) not in ("", "Protocol", "Generic", "ABC", "object"):
            home, parent = _resolve(module.name, name)
            if isinstance(parent, ast.ClassDef):
                return _of_class(home, parent)
    if definition.bases:
        raise Unreadable(definition.name)
    return Parameters()


def _fields(module: _Module, definition: ast.ClassDef) -> dict[str, Parameter]:
    """The fields of a dataclass, those of its base classes first."""
    fields: dict[str, Parameter] = {}
    for base in reversed(definition.bases):
        if (name := _name_of(base)) not in ("", "Protocol", "Generic", "ABC", "object"):
            home, parent = _resolve(module.name, name)
            if isinstance(parent, ast.ClassDef):
                fields |= _fields(home, parent)
    for statement in definition.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        annotation = statement.annotation
        if isinstance(annotation, ast.Subscript) and _name_of(annotation.value) == "ClassVar":
            continue
        default = statement.value
        if isinstance(default, ast.Call) and _name_of(default.func) == "field":
            keywords = {keyword.arg: keyword.value for keyword in default.keywords}
            init = keywords.get("init")
            if isinstance(init, ast.Constant) and init.value is False:
                continue
            required = not {"default", "default_factory"} & set(keywords)
        else:
            required = default is None
        fields[statement.target.id] = Parameter(_hint(module, annotation), required)
    return fields


def _of_function(module: _Module, function: ast.FunctionDef, is_method: bool) -> Parameters:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True)][1 if is_method else 0 :]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    by_name = {
        argument.arg: Parameter(_hint(module, argument.annotation), default is None) for argument, default in pairs
    }
    return Parameters(by_name, arguments.kwarg is not None)


_PLAIN = {"bool": bool, "int": int, "float": float, "str": str, "None": NoneType}


def _hint(module: _Module, annotation: ast.expr | None) -> Any:
    """The type that an annotation stands for; Any for one that a plain value cannot be checked against."""
    if annotation is None:
        return Any
    if isinstance(annotation, ast.Constant):
        if isinstance(annotation.value, str):
            return _hint(module, ast.parse(annotation.value, mode="eval").body)
        return NoneType if annotation.value is None else Any
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        left, right = _hint(module, annotation.left), _hint(module, annotation.right)
        return Any if Any in (left, right) else Union[left, right]  # noqa: UP007 - of values, not of a written type
    if isinstance(annotation, ast.Subscript) and _name_of(annotation.value) == "Literal":
        try:
            values = ast.literal_eval(annotation.slice)
        except ValueError:
            return Any
        return Literal[values]
    name = _name_of(annotation)
    if name in _PLAIN:
        return _PLAIN[name]
    if isinstance(annotation, ast.Name):
        try:
            home, definition = _resolve(module.name, name)
        except Unreadable:
            return Any
        if isinstance(definition, ast.Assign) and definition.value is not annotation:
            return _hint(home, definition.value)
    return Any


def _name_of(node: ast.expr) -> str:
    """The last name of `a.b.c`, or of the type that is subscripted."""
    if isinstance(node, ast.Subscript):
        return _name_of(node.value)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""

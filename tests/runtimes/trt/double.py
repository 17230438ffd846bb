"""A `tensorrt` that computes on the processor, made of the real bindings' names and signatures.

Every class, enum member, method, property and argument is one of the real bindings, as `api`
read them: anything else raises, with its type where pybind11 would raise too. What documented use
allows is allowed and nothing else: the order of calls, and that whatever made an object outlives it
(docs.nvidia.com/deeplearning/tensorrt, "Object Lifetimes"). `behaviour` and
`behaviour_run` say what the calls do.
"""

from __future__ import annotations

import enum
import types
import weakref
from collections.abc import Callable
from typing import Any

from tests.runtimes.trt import api
from tests.runtimes.trt.cuda_double import CudaDouble

CONSTRUCTED = {"Builder", "Runtime", "OnnxParser", "Dims", "ILogger", "Logger"}
KINDS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "typing.SupportsInt": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "buffer": lambda value: isinstance(value, (bytes, bytearray, memoryview)),
    "typing_extensions.Buffer": lambda value: isinstance(value, (bytes, bytearray, memoryview)),
    "List[int]": lambda value: isinstance(value, (list, tuple)),
    "collections.abc.Sequence[typing.SupportsInt]": lambda value: isinstance(value, (list, tuple)),
}


class Misuse(AssertionError):
    """Something that TensorRT's documentation forbids."""


class World:
    """What one double knows and did: the calls in order, the mistakes, and how it shall behave."""

    def __init__(self, facts: dict[str, Any], cuda: CudaDouble) -> None:
        self.facts = facts
        self.cuda = cuda
        self.calls: list[str] = []
        self.used: set[str] = set()
        self.mistakes: list[str] = []
        self.builds_in: str | None = None  # every layer in this type, whatever the file says
        self.fails: dict[str, str] = {}  # call -> what is logged; it returns None or False then
        self.captures = True
        self.classes: dict[str, Any] = {}

    @property
    def is_old(self) -> bool:
        return str(self.facts["version"]).startswith("10.")

    def note(self, name: str) -> None:
        self.calls.append(name)
        self.used.add(name)


class Thing:
    """An object of TensorRT: knows, weakly, what it was made from."""

    def __init__(
        self, world: World, kind: str, *made_from: Thing, owner: Thing | None = None
    ) -> None:
        self.world, self.kind = world, kind
        self.state: dict[str, Any] = {}
        makers = [*made_from, *([owner] if owner else [])]
        self._made_from = [(one.kind, weakref.ref(one)) for one in makers]
        self._made: list[tuple[str, weakref.ref[Thing]]] = []
        for one in made_from:
            one._made.append((kind, weakref.ref(self)))

    def require_makers(self) -> None:
        for kind, reference in self._made_from:
            if reference() is None:
                raise Misuse(f"{self.kind} is used after its {kind} is gone")

    def __del__(self) -> None:
        alive = [kind for kind, reference in vars(self).get("_made", []) if reference() is not None]
        if alive:  # raised here it would be lost
            self.world.mistakes.append(f"{self.kind} was freed before {', '.join(alive)}")


def make_tensorrt(world: World) -> Any:
    """The module. What `Class.member` does is `Class_member` in `behaviour` or `behaviour_run`."""
    module = types.ModuleType("tensorrt")
    module.__version__ = world.facts["version"]  # type: ignore[attr-defined]
    for name, facts in world.facts["classes"].items():
        world.classes[name] = _make_class(world, name, facts)
    for name, cls in world.classes.items():
        outer, _, inner = name.rpartition(".")
        if outer:
            setattr(world.classes[outer], inner, cls)
        else:
            setattr(module, name, cls)
    return module


def _make_class(world: World, name: str, facts: dict[str, Any]) -> Any:
    if facts["members"]:
        return enum.IntEnum(name.rpartition(".")[2], facts["members"])
    if name == "Dims":
        return type("Dims", (tuple,), {})
    if name == "ILogger":
        return type(
            "ILogger", (Thing,), {"__init__": lambda self: Thing.__init__(self, world, name)}
        )
    body: dict[str, Any] = {"__setattr__": _no_new_attributes}
    for member, signatures in facts["methods"].items():
        if member != "__init__":
            body[member] = _make_method(world, name, member, signatures)
    for member, (kind, is_settable) in facts["properties"].items():
        body[member] = _make_property(world, name, member, api.plain(kind), is_settable)
    if name in CONSTRUCTED:
        body["__init__"] = _make_constructor(world, name, facts["methods"]["__init__"])
    else:
        body["__init__"] = _no_constructor
    if name == "IHostMemory":
        body["__bytes__"] = lambda self: bytes(self.state["content"])
    return type(name, (Thing,), body)


def new(
    world: World, kind: str, *made_from: Thing, owner: Thing | None = None, **state: Any
) -> Any:
    """An object that TensorRT hands out, of a class that has no constructor.

    It may not be used when what made it, or owns it, is gone; an owned one goes with its owner.
    """
    one = object.__new__(world.classes[kind])
    Thing.__init__(one, world, kind, *made_from, owner=owner)
    one.state.update(state)
    return one


def _no_new_attributes(self: Any, name: str, value: Any) -> None:
    if name in ("world", "kind", "state") or name.startswith("_"):
        object.__setattr__(self, name, value)
        return
    found = getattr(type(self), name, None)
    if not isinstance(found, property) or found.fset is None:
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}' that can be set")
    found.fset(self, value)


def _no_constructor(self: Any, *arguments: Any) -> None:
    raise TypeError(f"{type(self).__name__}: No constructor defined!")


def _make_constructor(world: World, name: str, signatures: list[str]) -> Any:
    def construct(self: Any, *arguments: Any, **named: Any) -> None:
        given = bind(world, f"{name}()", signatures, arguments, named)
        makers = [value for value in given.values() if isinstance(value, Thing)]
        if "logger" in given and not hasattr(given["logger"], "world"):
            raise Misuse("the logger's own __init__ never called ILogger.__init__")
        Thing.__init__(self, world, name, *makers)
        world.note(name)
        if name in world.fails:
            given["logger"].log(world.classes["ILogger.Severity"].ERROR, world.fails[name])
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.state.update(given)
        if "logger" in self.state:  # not kept alive: whoever made it must
            self.state["logger"] = weakref.ref(given["logger"])
        if "network" in self.state:
            self.state["network"] = weakref.ref(given["network"])
            given["network"].state["parser"] = weakref.ref(self)

    return construct


def _make_method(world: World, name: str, member: str, signatures: list[str]) -> Any:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        given = bind(world, f"{name}.{member}", signatures, arguments, named)
        return _do(self, name, member, given)

    return method


def _make_property(world: World, name: str, member: str, kind: str, is_settable: bool) -> property:
    def read(self: Any) -> Any:
        return _do(self, name, member, {})

    def write(self: Any, value: Any) -> None:
        if not fits(world, kind, value):
            raise TypeError(f"{name}.{member} is {kind}, got {value!r}")
        self.require_makers()
        world.note(f"{name}.{member}")
        self.state[member] = value

    return property(read, write if is_settable else None)


def _do(self: Any, name: str, member: str, given: dict[str, Any]) -> Any:
    from tests.runtimes.trt import behaviour, behaviour_run

    key = f"{name}.{member}"
    self.require_makers()
    self.world.note(key)
    found = (getattr(module, f"{name}_{member}", None) for module in (behaviour, behaviour_run))
    action = next(filter(None, found), None)
    if action is None:
        if member in self.state:
            return self.state[member]
        raise NotImplementedError(f"the double does not know what {key} does")
    return action(self, **given)


def bind(
    world: World, where: str, signatures: list[str], arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Arguments by name, by the first overload that they fit. Raises TypeError as pybind11 does."""
    assert signatures, f"{where}: no signature could be read"
    for text in signatures:
        parameters = api.signature(text)
        given = dict(zip((one.name for one in parameters), arguments, strict=False))
        if len(arguments) > len(parameters) or set(given) & set(named):
            continue
        given.update(named)
        known = {one.name: one for one in parameters}
        needed = {one.name for one in parameters if not one.is_optional}
        if not needed <= set(given) <= set(known):
            continue
        if all(fits(world, known[key].kind, value) for key, value in given.items()):
            return given
    raise TypeError(f"{where}(): incompatible function arguments: {arguments} {named}; "
                    f"the real one is {signatures}")  # fmt: skip


def fits(world: World, kind: str, value: Any) -> bool:
    """Would pybind11 take `value` for a parameter of this kind?"""
    if kind in KINDS:
        return KINDS[kind](value)
    if kind not in world.classes:
        raise NotImplementedError(f"the double does not know the type '{kind}'")
    return isinstance(value, world.classes[kind])

"""engine.pyi is what Python sees of the engine: every class and function of engine.pyx and bindings/ alike."""

import ast
import re
from pathlib import Path

import spokes._fastpath
from spokes._fastpath import engine

FOLDER = Path(spokes._fastpath.__file__).parent
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in [*FOLDER.glob("bindings/*.pyx"), FOLDER / "engine.pyx"])
CLASSES = {
    node.name: node
    for node in ast.parse((FOLDER / "engine.pyi").read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
}
BODIES = {
    match[1]: match[0]
    for match in re.finditer(r"^(?:cdef )?class (\w+)\b.*?(?=^(?:cdef )?class |\Z)", SOURCE, re.MULTILINE | re.DOTALL)
}


def defined(name: str) -> dict[str, list[str]]:
    """{function: its parameters} of a class as it is; without the door of Python's own."""
    found = {}
    for function, text in re.findall(r"^    def (\w+)\(((?:.|\n)*?)\):", BODIES[name], re.MULTILINE):
        words = [re.sub(r"=.*| not None", "", one).split() for one in re.sub(r"\s+", " ", text).split(",")]
        found["__init__" if function == "__cinit__" else function] = [
            one[-1].lstrip("*") for one in words if one and one != ["*"]
        ]
    return {function: names for function, names in found.items() if function not in ("__dealloc__", "__repr__")}


def declared(name: str) -> dict[str, list[str]]:
    return {
        node.name: [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
        for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)
    }


def test_stub_has_no_class_that_is_not_there():
    assert [name for name in CLASSES if not isinstance(getattr(engine, name), type)] == []


def test_stub_has_every_function_with_its_parameters():
    wrong = {}
    for name in CLASSES.keys() & BODIES.keys():     # enumerations have none: test_engine_numbers.py
        node = CLASSES[name]
        attributes = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign)}
        there = {function: names for function, names in defined(name).items() if function not in attributes}
        if there != declared(name):
            wrong[name] = (there, declared(name))
    assert wrong == {}

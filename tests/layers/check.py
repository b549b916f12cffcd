"""Holds src/ to the rule of dependencies in docs/architecture.md, by its `use crate::` lines.

The rule is the block of that page which begins with ```layers: a line `a: b c` lets the files of
src/a import from src/b and src/c, which must be declared above it. Beside it, no files may import
each other in a circle, and src/xds must be pure.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
# What a pure module has no business with; a closure could carry any of it in.
IMPURE = re.compile(
    r"std::(fs|io|net|process|env|thread|time)\b|\blog::|\brustix::|Instant::now|SystemTime"
    r"|\bdyn Fn(Mut|Once)?\b"
)


def rule():
    text = (ROOT / "docs/architecture.md").read_text()
    block = re.search(r"^```layers\n(.*?)^```", text, re.M | re.S).group(1)
    layers = {}
    for line in block.splitlines():
        name, allowed = line.split(":")
        for below in allowed.split():
            if below not in layers:
                sys.exit(f"docs/architecture.md: {name} stands above {below}, which is not declared above it")
        layers[name] = set(allowed.split())
    return layers


def without_tests(text):
    """The file up to its test module, without comments and strings."""
    text = re.split(r"^#\[cfg\(test\)\]\nmod \w+ \{", text, flags=re.M)[0]
    return re.sub(r'//[^\n]*|"(\\.|[^"\\])*"', "", text)


def modules():
    """Each file's module path, as `xds::weights::plan`."""
    found = {}
    for path in sorted(SRC.rglob("*.rs")):
        parts = list(path.relative_to(SRC).with_suffix("").parts)
        if parts[-1] in ("tests", "model", "properties") or "tests" in parts:
            continue
        if parts[-1] == "mod":
            parts.pop()
        found["::".join(parts)] = (path, without_tests(path.read_text()))
    return found


def uses(module, text):
    """Paths that a file imports from the crate, whole, `super::` and `crossover::` resolved."""
    tree = re.findall(r"\b(crate|crossover|super(?:::super)*|self)::((?:\w+::)*)(\{[^;]*?\}|\w+)", text)
    parts = module.split("::") if module not in ("lib", "main") else []
    for start, middle, last in tree:
        if start in ("crate", "crossover"):
            base = []
        elif start == "self":
            base = parts
        else:
            base = parts[: len(parts) - start.count("super")]
        base = base + [p for p in middle.split("::") if p]
        names = re.findall(r"(?:^|[{,]\s*)((?:\w+::)*\w+)", last)
        for name in names or [last]:
            yield "::".join(base + [p for p in name.split("::") if p != "self"])


def owner(path, found):
    """The module that a path leads into."""
    parts = path.split("::")
    while parts and "::".join(parts) not in found:
        parts.pop()
    return "::".join(parts)


def circles(arrows):
    """Groups of files of which each leads to each other (Tarjan)."""
    index, low, stack, groups = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for to in arrows[node]:
            if to not in index:
                visit(to)
                low[node] = min(low[node], low[to])
            elif to in stack:
                low[node] = min(low[node], index[to])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                groups.append(group)

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return groups


def main():
    layers, found, faults = rule(), modules(), []
    arrows = {module: set() for module in found}
    for module, (path, text) in found.items():
        here = module.split("::")[0]
        if here != "lib" and here not in layers:
            faults.append(f"{path.relative_to(ROOT)}: {here} has no line in the rule")
            continue
        for use in uses(module, text):
            to = owner(use, found)
            if to in ("", module):
                continue
            arrows[module].add(to)
            there = to.split("::")[0]
            if here not in ("lib", there) and there not in layers[here]:
                faults.append(f"{path.relative_to(ROOT)}: {here} must not import {use}")
        if here == "xds":
            for line, code in enumerate(text.splitlines(), 1):
                if impure := IMPURE.search(code):
                    faults.append(f"{path.relative_to(ROOT)}:{line}: xds is pure: {impure.group()}")
    for group in circles(arrows):
        faults.append("these import each other in a circle: " + ", ".join(sorted(group)))
    if faults:
        sys.exit("\n".join(faults))
    count = sum(len(to) for to in arrows.values())
    print(f"{len(found)} files, {count} imports: no circle, none upwards, xds is pure")


main()

"""Holds the tables of docs/operations.md to the log messages in src/, both ways.

  check.py             fails for each message without a row and each row without a message
  check.py skeleton    prints a row for each message that has none

A message is found where it is logged: in a log macro, in the second argument of `WarnOnce::warn`
and `clear`, in what is bound to `message`, and in a constant of type `Messages`. What a macro cannot
be seen to log must be in COMPOSED. What varies in a text is shown as an ellipsis.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/operations.md"

# Macros whose message is made elsewhere, and the places whose texts it can be: a file, or an item of it.
COMPOSED = {
    'warn!("{warning}")': [
        ("src/xds/weights/warning.rs", ""),
        ("src/xds/merge.rs", ""),
        ("src/app/sequence/kept.rs", ""),
        ("src/app/sequence/kept/surplus.rs", ""),
        ("src/app/sequence/plan.rs", ""),
    ],
    'log::error!("{}", Chain(error))': [("src/error.rs", "impl fmt::Display for Error {"), ("src/main.rs", "")],
}
# A macro of a composed text.
WRITES = r"(?:\bformat!|\bwrite(?:ln)?!|\.write_str)\("
# In Rust's own order of precedence: what begins first wins.
TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<raw>\br(#*)".*?"\3)|(?P<string>"(?:\\.|[^"\\])*")"""
    r"""|(?P<char>'(?:\\.[^']*|[^'\\])')""",
    re.S,
)
ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "'": "'", "0": "\0", "r": "\r"}


def unescape(body):
    body = re.sub(r"\\\n\s*", "", body)
    return re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[0]), body)


class Source:
    """A file without its tests and comments: its code with strings blanked, and the strings."""

    def __init__(self, path):
        self.path = path.relative_to(ROOT).as_posix()
        text = re.split(r"^#\[cfg\(test\)\]\nmod \w+ \{", path.read_text(), flags=re.M)[0]
        self.text, self.strings = text, {}
        pieces, end = [], 0
        for token in TOKEN.finditer(text):
            pieces.append(text[end : token.start()])
            if token["string"]:
                self.strings[token.start()] = unescape(token["string"][1:-1])
            elif token["raw"]:
                self.strings[token.start()] = re.fullmatch(r'r(#*)"(.*)"\1', token["raw"], re.S)[2]
            blank = re.sub(r"[^\n]", " ", token[0])
            is_text = token["string"] or token["raw"]
            pieces.append('"' + blank[1:-1] + '"' if is_text else blank)
            end = token.end()
        self.code = "".join(pieces) + text[end:]

    def end_of(self, start, closers=")]}"):
        """Where the bracket that is open at `start` closes, or a top-level one of `closers` comes."""
        depth = 0
        for at in range(start, len(self.code)):
            c = self.code[at]
            if depth == 0 and c in closers:
                return at
            depth += (c in "([{") - (c in ")]}")
        sys.exit(f"{self.path}: a bracket is not closed")

    def literals(self, start, end):
        return [text for at, text in self.strings.items() if start <= at < end]

    def split(self, start, end, separator):
        """The top-level parts of a span."""
        parts, depth, begin = [], 0, start
        for at in range(start, end):
            c = self.code[at]
            depth += (c in "([{") - (c in ")]}")
            if depth == 0 and c == separator:
                parts.append((begin, at))
                begin = at + 1
        return parts + [(begin, end)]

    def place(self, at):
        return f"{self.path}:{self.text[:at].count(chr(10)) + 1}"


def shown(text):
    """A text as the table has it."""
    return re.sub(r"\{[^{}]*\}", "…", text)


def is_prose(text):
    return " " in text and len(re.findall(r"[A-Za-z]{2,}", shown(text))) >= 2


def bound(source):
    """Texts that are bound to `message`, or are in a constant of type Messages."""
    for match in re.finditer(r"\blet (?:\(message, [^=]*\)|message) = ", source.code):
        start, end = match.end(), source.end_of(match.end(), ";")
        if "(message" in match[0]:
            start, end = source.split(start + 1, end - 1, ",")[0]
        yield from source.literals(start, end)
    for match in re.finditer(r"\bconst \w+: (?:\w+::)*Messages = ", source.code):
        for text in source.literals(match.end(), source.end_of(match.end(), ";")):
            if " " in text:
                yield text


def constant(source, name):
    match = re.search(rf"\bconst {name}: &str =", source.code)
    return source.literals(match.end(), source.end_of(match.end(), ";")) if match else None


def returned(source, method):
    match = re.search(rf"\bfn {method}\(&self\) -> &'static str \{{", source.code)
    return source.literals(match.end(), source.end_of(match.end()))


def resolve(source, span, unknown):
    """The messages that an argument can be; those of a variable are found where it is bound."""
    argument = source.code[slice(*span)].strip()
    literals = source.literals(*span)
    if argument.startswith('"') and len(literals) == 1:
        return literals
    if re.fullmatch(r"[A-Z_]+", argument):
        found = constant(source, argument)
        if found:
            return found
    if argument == "message" or re.search(r"\bmessages(?:\(\))?\.\w+$", argument):
        return []
    unknown.append(f"{source.place(span[0])}: cannot tell what is logged: {argument}")
    return []


def macros(source, unknown, composed):
    for match in re.finditer(r"(?:\blog::)?\b(?:error|warn|info|debug)!\(", source.code):
        end = source.end_of(match.end())
        parts = source.split(match.end(), end, ";")
        arguments = source.split(*parts[-1], ",")
        literals = source.literals(*arguments[0])
        text = literals[0] if len(literals) == 1 else None
        name = re.fullmatch(r"\{([A-Za-z_]*)\}", text or "")
        if text and "{" not in text:
            yield text
        elif name and re.fullmatch(r"[A-Z_]+", name[1]):
            yield from constant(source, name[1]) or unknown.append(f"{source.place(match.start())}: {text}") or []
        elif name and name[1] == "message":
            pass
        elif text == "{}" and (method := re.fullmatch(r"\s*self\.(\w+)\(\)", source.text[slice(*arguments[1])])):
            yield from returned(source, method[1])
        elif (whole := re.sub(r"\s+", " ", source.text[match.start() : end + 1])) in COMPOSED:
            composed.add(whole)
        else:
            unknown.append(f"{source.place(match.start())}: cannot tell what is logged: {whole}")


def calls(source, unknown):
    for match in re.finditer(r"\.(?:warn|clear)\(", source.code):
        arguments = source.split(match.end(), source.end_of(match.end()), ",")
        arguments = [span for span in arguments if source.code[slice(*span)].strip()]
        first = source.code[slice(*arguments[0])].strip() if arguments else ""
        # Other methods of these names have no subject.
        if first.startswith("(") or first.startswith("subject"):
            yield from resolve(source, arguments[1], unknown)
    for match in re.finditer(r"\bevent\(Level::|\bself\.log\(Level::", source.code):
        start = source.code.index("(", match.start()) + 1
        yield from resolve(source, source.split(start, source.end_of(start), ",")[1], unknown)
    for match in re.finditer(r"\bformat_args!\(", source.code):
        for text in source.literals(match.end(), source.end_of(match.end())):
            if "{" not in text:
                yield text


def messages():
    """{message: a place where it stands}, and what cannot be told."""
    found, unknown, composed = {}, [], set()
    sources = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        if not re.search(r"/(tests|model|herd)(\.rs|/)", path.as_posix()):
            source = Source(path)
            sources[source.path] = source
    for source in sources.values():
        for texts in (bound(source), macros(source, unknown, composed), calls(source, unknown)):
            for text in texts:
                if text and "{" not in text:
                    found.setdefault(text, source.path)
    for whole in COMPOSED:
        if whole not in composed:
            unknown.append(f"nothing logs by {whole} any more: take it out of tests/messages/check.py")
        for path, item in COMPOSED[whole]:
            source = sources[path]
            start = source.code.index(item) + len(item)
            end = source.end_of(start) if item else len(source.code)
            for match in re.compile(WRITES).finditer(source.code, start, end):
                for text in source.literals(match.end(), source.end_of(match.end())):
                    if is_prose(text):
                        found.setdefault(shown(text).strip(" ;"), path)
    # By the form of a message; what has it and is none of them has gone past the rules above.
    for source in sources.values():
        for at, text in source.strings.items() if re.search(r"\blog::|\blogging\b", source.code) else ():
            is_message = re.fullmatch(r"[A-Za-z][^\n{}\"]*; [a-z][^\n{}\"]*", text) and " " in text
            if is_message and text not in found:
                unknown.append(f"{source.place(at)}: looks like a log message that is found nowhere: {text}")
    return found, unknown


def rows():
    lines = PAGE.read_text().splitlines() if PAGE.exists() else []
    return [match[1] for line in lines if (match := re.match(r"\| `([^`]+)` \|.*\|.*\|$", line))]


def main():
    found, unknown = messages()
    listed = rows()
    missing = sorted(set(found) - set(listed), key=lambda text: (found[text], text))
    if sys.argv[1:] == ["skeleton"]:
        for text in missing:
            print(f"| `{text}` | | | {found[text]}")
        return
    faults = list(unknown)
    faults += [f"docs/operations.md has no row for: {text} ({found[text]})" for text in missing]
    faults += [f"docs/operations.md: nothing logs: {text}" for text in listed if text not in found]
    faults += [f"docs/operations.md has two rows for: {text}" for text in sorted(set(listed)) if listed.count(text) > 1]
    empty = [line for line in PAGE.read_text().splitlines() if re.search(r"^\| `.*\|\s*\|", line)]
    faults += [f"docs/operations.md: an empty cell: {line}" for line in empty]
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(found)} log messages, each with its row in docs/operations.md")


if __name__ == "__main__":
    main()

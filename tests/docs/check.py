"""Holds what people read to what is there: links, anchors, commands and make's targets.

In README.md and the other pages: each relative link leads to a file of the repository, and to a
heading of it where it has an anchor; each page of docs/ can be reached from README.md; each `make`
target exists. Each command of a `console` block is run by the test that TESTS names for its section,
or stands in EXCEPTIONS with the reason.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
# README.md is for those who have ten minutes.
MOST_LINES = 200

# The languages of blocks. Commands are in `console` blocks, each after "$ "; a test reads all YAML.
LANGUAGES = {"console", "dockerfile", "layers", "text", "yaml"}
# The test that runs the commands of a section: all of them, and it fails if there is another one.
PUBLISHES = "every_crossover_command_of_the_pages_publishes"
TESTS = {
    "README.md#usage": "the_readme_shows_the_usage_as_the_program_prints_it",
    "charts/envoy/README.md#the-chart-envoy": "the_charts_page_and_the_go_versions_install_as_they_say",
    "docs/from-the-go-version.md#the-chart": "the_charts_page_and_the_go_versions_install_as_they_say",
    "docs/getting-started.md#the-image": "the_page_leads_from_the_image_to_pods_that_have_it",
    "docs/getting-started.md#envoy-and-two-backends": "getting_started_with_a_configmap_alone",
    "docs/getting-started.md#change-the-weights": "getting_started_with_a_configmap_alone",
    "docs/getting-started.md#weights-from-a-trafficsplit": "getting_started_with_traffic_splits",
    "docs/getting-started.md#a-canary-by-flagger": "getting_started_with_flagger",
    "docs/getting-started.md#in-a-restricted-namespace": "in_a_restricted_namespace_what_the_page_starts_is_let_in",
    "docs/getting-started.md#other-ways-to-install": "the_package_installs_the_same_and_there_is_a_plain_manifest",
    "docs/getting-started.md#clean-up": "what_the_page_has_installed_is_cleaned_up",
    "docs/httproutes.md#httproutes": PUBLISHES,
    "docs/traffic-splits.md#trafficsplits": PUBLISHES,
    "docs/traffic-splits.md#try-it": "every_split_gives_the_file_the_weights_that_its_name_stands_for",
}
# Commands that no test can run as they stand, and the reason. The text after it is part of what a
# target of make runs.
EXCEPTIONS = {
    "make demo": ("tests/it/kit/demo.rs runs the program that it builds", "--example lab -- demo"),
    "make test-quick": ("a test cannot run itself", "tests/run.py --quick"),
    "make image": ("it needs a Docker engine; `make test-container` runs it under another name", "docker build"),
    "make package": ("it needs buildah; `make test-container` runs it", "manifest push"),
    "make reproducible": ("it takes two builds; .ci/run runs it", "cmp"),
    "docker build -t crossover -t crossover:0.1.0 .": ("it pulls Rust's image; a test compares its names", ""),
    "skopeo copy --all oci-archive:target/package/crossover-0.1.0.oci.tar docker://REGISTRY/crossover:0.1.0": (
        "it needs a registry; tests/container/packages.rs copies the archive to a folder", ""),
    "install -d -m 0777 xds": ("it is for the next command", ""),
    'docker run --read-only --user 65532 --cap-drop ALL --security-opt no-new-privileges --memory 12m --pids-limit 2'
    ' -v "$PWD/xds:/srv/runtime" crossover -configmap envoy-xds -watch -apiserver URL': (
        "it needs a Docker engine; tests/container/locked_down.rs runs it with these options", ""),
}


def tracked():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def slug(heading):
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


class Page:
    def __init__(self, name):
        self.name = name
        self.anchors, self.links, self.codes, self.lines = set(), [], [], 0
        self.languages = []
        # The commands of each section, each with its line.
        self.commands = {}
        fence, section, prose, last = None, "", [], ""
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            self.lines = number
            mark = re.match(r"\s*```(\w*)", line)
            if mark and fence is None:
                fence = mark[1]
                self.languages.append((number, fence))
                continue
            if mark:
                fence = None
                continue
            if fence is not None:
                self.codes.append((number, line))
                if line.startswith("$ "):
                    self.commands.setdefault(section, []).append([number, fence, line[2:]])
                elif fence == "console" and last.endswith("\\"):
                    self.commands[section][-1][2] += "\n" + line
                last = line
                continue
            heading = re.match(r"#+ (.*)", line)
            if heading:
                section = self.anchor(heading[1])
            prose.append((number, line))
        if fence is not None:
            sys.exit(f"{name}: a code block is not closed")
        # A link's text, and a span of code, may go over a line's end.
        text = "\n".join(line for _, line in prose)
        at = lambda place: prose[text.count("\n", 0, place)][0]
        for code in re.finditer(r"`([^`]+)`", text):
            self.codes.append((at(code.start()), code[1].replace("\n", " ")))
        bare = re.sub(r"`[^`]+`", lambda code: "`" * len(code[0]), text)
        for link in re.finditer(r"\]\(([^()\s]+)\)|^\[[^\]]+\]:\s*(\S+)", bare, re.M):
            self.links.append((at(link.start()), link[1] or link[2]))

    def anchor(self, heading):
        first = anchor = slug(heading)
        count = 0
        while anchor in self.anchors:
            count += 1
            anchor = f"{first}-{count}"
        self.anchors.add(anchor)
        return anchor


def bare(command):
    """A command on one line, without its comment."""
    return re.sub(r"\s+", " ", command.replace("\\\n", " ").split(" #")[0]).strip()


def main():
    names = tracked()
    pages = {name: Page(name) for name in names if name.endswith(".md")}
    folders = {str(parent) for name in names for parent in Path(name).parents}
    # Each target of make, with its recipe. (`make -n` would run the lines that call make.)
    targets = dict(re.findall(r"^([a-z0-9.-]+):.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.M))
    # Each test, with the text of its file.
    tests = {
        test: text
        for name in names
        if name.startswith("tests/") and name.endswith(".rs")
        for text in [(ROOT / name).read_text()]
        for test in re.findall(r"^#\[test\]\nfn (\w+)\(", text, re.M)
    }
    faults, used, count, leads = [], set(), 0, {name: set() for name in pages}
    for name, page in pages.items():
        for line, link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            count += 1
            path, _, anchor = unquote(link).partition("#")
            target = ((ROOT / name).parent / path if path else ROOT / name).resolve()
            known = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
            if known not in names and known not in folders:
                faults.append(f"{name}:{line}: {link} leads nowhere")
                continue
            if known in pages:
                leads[name].add(known)
            if anchor and (known not in pages or anchor not in pages[known].anchors):
                faults.append(f"{name}:{line}: {link}: {known} has no such heading")
        for line, code in page.codes:
            for target in re.findall(r"(?:^|[\s$`&;])make ((?:[a-z][a-z0-9.-]*(?= |$|\)) ?)+)", code):
                for word in target.split():
                    if word not in targets:
                        faults.append(f"{name}:{line}: make has no target {word}")
        for line, language in page.languages:
            if language not in LANGUAGES:
                faults.append(f"{name}:{line}: a block is one of {', '.join(sorted(LANGUAGES))}, not {language!r}")
        for section, commands in page.commands.items():
            for line, language, command in commands:
                if language != "console":
                    faults.append(f"{name}:{line}: a command in a block that is not `console`")
                excepted = bare(command) in EXCEPTIONS
                used.add(bare(command))
                test = TESTS.get(f"{name}#{section}")
                if test is None and not excepted:
                    faults.append(f"{name}:{line}: no test runs this: {command}")
                elif test == PUBLISHES and not command.startswith("crossover "):
                    faults.append(f"{name}:{line}: {test} does not run this: {command}")
    for place, test in TESTS.items():
        name, _, section = place.partition("#")
        if name not in pages or section not in pages[name].commands:
            faults.append(f"{sys.argv[0]}: {place} has no commands")
        if test not in tests:
            faults.append(f"{sys.argv[0]}: there is no test {test}")
        elif test != PUBLISHES and Path(name).name not in tests[test]:
            faults.append(f"{sys.argv[0]}: {test} does not read {name}")
    for command, (_, part) in EXCEPTIONS.items():
        if command not in used:
            faults.append(f"{sys.argv[0]}: no page has the command {command}")
        if command.startswith("make ") and part not in targets.get(command[5:], ""):
            faults.append(f"{sys.argv[0]}: {command} does not run {part}")
    reached, ahead = set(), ["README.md"]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += leads[name]
    faults += [f"{name} cannot be reached from README.md" for name in pages if name not in reached]
    if pages["README.md"].lines > MOST_LINES:
        faults.append(f"README.md has {pages['README.md'].lines} lines, more than {MOST_LINES}")
    if faults:
        sys.exit("\n".join(faults))
    total = sum(len(commands) for page in pages.values() for commands in page.commands.values())
    print(f"{len(pages)} pages, {count} links that lead somewhere, {total} commands, all but {len(EXCEPTIONS)} of them tested")


main()

"""Holds what people read to what is there: links, anchors, commands and make's targets.

In README.md and the other pages: each relative link leads to a file of the repository, and to a
heading of it where it has an anchor; each page of docs/ can be reached from README.md; each section
with commands is named in COMMANDS, with the test that runs them; each `make` target exists.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
# README.md is for those who have ten minutes.
MOST_LINES = 200

# The test that runs the commands of a section. MAKE: they are make's and Docker's, which .ci/run calls.
MAKE = "make"
PUBLISHES = "every_crossover_command_of_the_pages_publishes"
COMMANDS = {
    "README.md#quick-start": MAKE,
    "README.md#usage": "the_readme_shows_the_usage_as_the_program_prints_it",
    "charts/envoy/README.md#the-chart-envoy": "the_charts_page_and_the_go_versions_install_as_they_say",
    "docs/deploying.md#the-image": MAKE,
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
        self.anchors, self.links, self.consoles, self.codes, self.lines = set(), [], {}, [], 0
        fence, section, prose = None, "", []
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            self.lines = number
            mark = re.match(r"\s*```(\w*)", line)
            if mark and fence is None:
                fence = mark[1] or "text"
                continue
            if mark:
                fence = None
                continue
            if fence is not None:
                self.codes.append((number, line))
                if fence == "console":
                    self.consoles.setdefault(section, number)
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


def main():
    names = tracked()
    pages = {name: Page(name) for name in names if name.endswith(".md")}
    folders = {str(parent) for name in names for parent in Path(name).parents}
    targets = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(), re.M))
    tests = {
        test
        for name in names
        if name.startswith("tests/") and name.endswith(".rs")
        for test in re.findall(r"^(?:pub )?fn (\w+)\(", (ROOT / name).read_text(), re.M)
    }
    faults, count, leads = [], 0, {name: set() for name in pages}
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
        for section, line in page.consoles.items():
            test = COMMANDS.get(f"{name}#{section}")
            if test is None:
                faults.append(f"{name}:{line}: which test runs the commands of #{section}? name it in {sys.argv[0]}")
            elif test != MAKE and test not in tests:
                faults.append(f"{sys.argv[0]}: there is no test {test}")
    for place in COMMANDS:
        name, _, section = place.partition("#")
        if name not in pages or section not in pages[name].consoles:
            faults.append(f"{sys.argv[0]}: {place} has no commands")
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
    print(f"{len(pages)} pages, {count} links that lead somewhere, {len(COMMANDS)} sections whose commands are run")


main()
